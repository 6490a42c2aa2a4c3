"""Facts of the host from files that a test writes, and the ones of this very machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from duologue.profile.host import (
    Pressure,
    PressureMeter,
    memory_limit_gb,
    read_host,
    resident_mb,
    usable_cores,
)


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/cpu.max": "50000 100000\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
    ],
)
def test_a_container_with_half_a_core(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cores(_write(tmp_path, files)) == 0.5


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        {"sys/fs/cgroup/cpu.max": "99999999 100000\n"},
    ],
)
def test_without_a_quota_the_affinity_counts(tmp_path: Path, files: dict[str, str]) -> None:
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_cores(_write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "limit_gb"),
    [
        ({"sys/fs/cgroup/memory.max": "2000000000\n"}, 2.0),
        ({"sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000\n"}, 1.0),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_memory_limit(tmp_path: Path, files: dict[str, str], limit_gb: float | None) -> None:
    assert memory_limit_gb(_write(tmp_path, files)) == limit_gb


def test_pressure_is_what_was_added_meanwhile(tmp_path: Path) -> None:
    before = {
        "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 total=7\n",
        "proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n",
    }
    after = {
        "proc/pressure/cpu": "some avg10=9.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=9\n",
        "proc/stat": "cpu  150 0 100 840 0 0 0 10 0 0\ncpu0 1 2 3\n",
    }
    meter = PressureMeter(_write(tmp_path, before))
    _write(tmp_path, after)
    assert meter.read(elapsed_s=2.0) == Pressure(cpu_share=0.25, steal_share=0.1)


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert PressureMeter(tmp_path).read(elapsed_s=1.0) == Pressure(cpu_share=None, steal_share=None)


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue.profile.host.measured_bandwidth", lambda device: 12.5)
    facts = read_host()
    assert facts.cpu
    assert 0 < facts.usable_cores <= facts.cores
    assert facts.isa in facts.isas
    assert facts.bandwidth_gb_s == 12.5
    assert {"python", "numpy", "duologue"} <= facts.versions.keys()
    assert facts.gpu is None
    assert 10 < resident_mb() < 1e3 * facts.memory_gb
