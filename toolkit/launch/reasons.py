"""The states and reasons of SLURM in words, with what to do about them."""

from __future__ import annotations

from toolkit.launch.queue import Entry

ENDS = {
    "TIMEOUT": "its time was up before it had saved and stopped: raise launch.signal_lead_s if a save takes long, "
    "or launch.time",
    "OUT_OF_MEMORY": "it took more RAM than it was given: raise launch.mem",
    "NODE_FAIL": "a machine failed{nodes}: launch.exclude keeps away from it",
    "BOOT_FAIL": "a machine did not start{nodes}: launch.exclude keeps away from it",
    "PREEMPTED": "its machines were given to a job that goes before it: launch.requeue: true has it start again",
    "CANCELLED": "it was cancelled",
    "DEADLINE": "its deadline came (launch.extra)",
    "REVOKED": "it runs on another cluster of the federation",
}
EXIT_CODES = {
    1: "it failed, and its log says why",
    2: "its config was refused, and its log says where",
    75: "it stopped, and was not started again; its log says why",
    126: "a program could not be run: see launch.venv, launch.modules and launch.setup",
    127: "a program was not found: see launch.venv, launch.modules and launch.setup",
    130: "it was interrupted",
    134: "it aborted (SIGABRT), as CUDA and NCCL do after an error; its log says more",
    137: "it was killed (SIGKILL), which mostly means that the RAM was full: raise launch.mem",
    139: "it crashed (SIGSEGV), mostly in a driver or a compiled library; its log says where",
    143: "it was ended (SIGTERM) before it had saved",
}
WAITS = {
    "Resources": "until machines are free",
    "Priority": "others go first",
    "Dependency": "for the job before it",
    "DependencyNeverSatisfied": "in vain: the job before it did not end well; cancel it and submit it again",
    "BeginTime": "until it may begin",
    "JobArrayTaskLimit": "launch.array_parallelism others of the sweep run",
    "JobHeldUser": "held by the user: `scontrol release {job}`",
    "JobHeldAdmin": "held by an administrator: ask them",
    "PartitionTimeLimit": "in vain: launch.time is longer than the partition allows",
    "PartitionNodeLimit": "in vain: launch.nodes is more than the partition has",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "ReqNodeNotAvail": "its machines are down or reserved",
    "BadConstraints": "in vain: no machine is as launch.constraint, gres and mem want it",
    "InvalidAccount": "in vain: launch.account is not known",
    "InvalidQOS": "in vain: launch.qos is not known",
    "launch_failed_requeued_held": "held, as it did not start: ask an administrator, then `scontrol release {job}`",
}


def waits(entry: Entry) -> str:
    """Why a job does not run yet."""
    # squeue writes some with spaces, scontrol with underscores
    known = WAITS.get(entry.reason.replace(" ", "_"), entry.reason)
    if entry.reason.startswith(("QOS", "Assoc")):
        known = f"a limit of launch.account, qos or partition is reached ({entry.reason})"
    start = f"; starts at {entry.start.replace('T', ' ')}" if entry.start else ""
    return (known.format(job=entry.job_id) + start).strip("; ")


def ended(entry: Entry) -> str:
    """How a job ended that did not end well; starts with SLURM's word for it."""
    if (entry.state, entry.reason) == ("CANCELLED", "DependencyNeverSatisfied"):
        return "CANCELLED: the job before it did not end well; submit it again when that one has"
    if entry.state in ENDS:
        nodes = f" ({entry.nodes})" if entry.nodes else ""
        return f"{entry.state}: {ENDS[entry.state].format(nodes=nodes)}"
    code, _, number = entry.exit_code.partition(":")
    status = int(code) if code.isdigit() else 1
    if number.isdigit() and int(number):
        status = 128 + int(number)
    return f"{entry.state}, exit code {status}: {EXIT_CODES.get(status, 'its log says more')}"
