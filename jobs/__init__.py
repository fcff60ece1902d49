"""What a run is: `get_job` reads and checks a config, `job.run()` does its processes in order. No torch."""

from jobs.contract import Process, Stopped
from jobs.factory import get_job, get_jobs, run_job
from jobs.job import Job
from jobs.kinds import KINDS
from jobs.process import BaseExtensionProcess
from jobs.sweep import Sweep

__all__ = ["KINDS", "BaseExtensionProcess", "Job", "Process", "Stopped", "Sweep", "get_job", "get_jobs", "run_job"]
