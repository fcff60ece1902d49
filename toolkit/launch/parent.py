"""A rank ends with the process that started it, however that ended: its input is a pipe that the other holds open.

This works wherever there are pipes, and needs no signal from the system. Ranks of a cluster, or of torchrun, have no
such pipe; whoever starts those ends them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import MutableMapping

VARIABLE = "AITK_PARENT_HOLDS_INPUT"


def end_with_parent(env: MutableMapping[str, str]) -> None:
    """Be stopped as by SIGTERM, at which a training saves, when the process that started this one is gone."""
    # not for those that this process starts, which have an input of their own
    if env.pop(VARIABLE, None) is None:
        return
    pipe = os.dup(0)
    # whoever reads the input finds none, and does not wait for one
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_watch, args=(pipe,), name="parent", daemon=True).start()


def _watch(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
