"""What is asked of the scheduler, and what is said of its answer."""

from __future__ import annotations

import os

import pytest

from duologue.audio.priority import hurry

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="asks Linux's scheduler")


def _refuse(*arguments: object) -> None:
    raise PermissionError("not allowed")


@pytest.mark.parametrize(
    ("may_nice", "may_real_time", "is_real_time", "granted"),
    [
        (True, True, True, "real-time 10"),
        (True, True, False, "nice -11"),
        (True, False, True, "nice -11"),
        (False, True, True, "real-time 10"),
        (False, False, True, "ordinary"),
    ],
)
def test_what_was_granted_is_said(
    may_nice: bool, may_real_time: bool, is_real_time: bool, granted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(os, "setpriority", lambda *_: asked.append("nice") if may_nice else _refuse())
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: asked.append("class") if may_real_time else _refuse())
    assert hurry(is_real_time=is_real_time) == granted
    # A thread that computes must never be where it leaves a core to nobody.
    assert ("class" in asked) == (may_real_time and is_real_time)
