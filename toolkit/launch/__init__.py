"""Where a job runs: in this process, in one process per GPU, on a cluster. Text first, then run; never torch."""
