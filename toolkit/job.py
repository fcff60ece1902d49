"""`from toolkit.job import get_job, run_job`: where notebooks and extensions written for ai-toolkit find them.

The one place where `toolkit` reaches up to `jobs`; nothing of our own imports it.
"""

from jobs import get_job, run_job

__all__ = ["get_job", "run_job"]
