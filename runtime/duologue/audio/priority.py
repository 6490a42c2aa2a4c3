"""A place before ordinary programs in the scheduler's queue, where the system grants one."""

from __future__ import annotations

import os
from contextlib import suppress

_REAL_TIME = 10
_NICE = -11


def hurry(*, is_real_time: bool) -> str:
    """Ask for this thread, and those it starts from now on, to run before others; say what was granted.

    Args:
        is_real_time: Whether to ask for the round-robin class, too. Only for threads that compute next to nothing:
            in it, a thread that does not wait leaves a core to nobody.

    Returns:
        For example "real-time 10", "nice -11" or "ordinary"; it depends on the rights of the process.
    """
    granted = "ordinary"
    if hasattr(os, "setpriority"):
        # Also before the class: a library may start its threads in the ordinary one.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
            granted = f"nice {_NICE}"
    if is_real_time and hasattr(os, "sched_setscheduler"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_REAL_TIME))
            granted = f"real-time {_REAL_TIME}"
    return granted
