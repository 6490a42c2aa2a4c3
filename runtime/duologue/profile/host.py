"""The host as a frame loop sees it: processor, clock policy, limits of the container, and who else wants the cores."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from duologue import _native
from duologue.profile.machine import cpu_name, measured_bandwidth, versions

_ROOT = Path("/")
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """The GPU that torch sees.

    Attributes:
        name: As the driver calls it.
        memory_gb: Its memory.
        driver: Version of the driver, or "" where the system does not tell it.
        cuda: CUDA version that torch was built for.
        bandwidth_gb_s: What a copy inside its memory reaches.
    """

    name: str
    memory_gb: float
    driver: str
    cuda: str
    bandwidth_gb_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What timings depend on, apart from the program.

    Attributes:
        cpu: Name of the processor.
        cores: Logical cores of the machine.
        usable_cores: Cores that this process may run on at the same time: affinity and container quota.
        isa: Instruction set in use by the native codec.
        isas: Those it could use here.
        governor: CPU frequency policy, or "" where the system does not tell it.
        kernel: Operating system and version.
        memory_gb: Memory of the machine.
        memory_limit_gb: The container's limit, or None.
        bandwidth_gb_s: What one thread reads from memory.
        load: Load average of the last minute, or None.
        realtime_priority: Highest real-time priority this process may ask for; 0 is none.
        memory_lock_mb: Memory this process may keep from being paged out; None is unlimited.
        is_gil_enabled: Whether this Python holds a global interpreter lock.
        versions: Python and packages.
        gpu: The GPU, or None.
    """

    cpu: str
    cores: int
    usable_cores: float
    isa: str
    isas: tuple[str, ...]
    governor: str
    kernel: str
    memory_gb: float
    memory_limit_gb: float | None
    bandwidth_gb_s: float
    load: float | None
    realtime_priority: int
    memory_lock_mb: float | None
    is_gil_enabled: bool
    versions: dict[str, str]
    gpu: GpuFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How much others held this host back during a measurement; None where the system does not tell.

    Attributes:
        cpu_share: Share of the time in which some ready task waited for a core (Linux PSI).
        steal_share: Share of the cores' time that the hypervisor gave to others.
    """

    cpu_share: float | None
    steal_share: float | None


def read_host(*, device: str = "cpu") -> HostFacts:
    """Look at this machine; takes a third of a second for the memory bandwidth.

    Args:
        device: "cuda" to look at the GPU, too.
    """
    limits = _resource_limits()
    return HostFacts(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        isa=_native.isa(),
        isas=tuple(_native.available_isas()),
        governor=_text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        kernel=f"{platform.system()} {platform.release()}",
        memory_gb=_memory_bytes() / 1e9,
        memory_limit_gb=memory_limit_gb(),
        bandwidth_gb_s=measured_bandwidth("cpu"),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        realtime_priority=limits[0],
        memory_lock_mb=limits[1],
        is_gil_enabled=getattr(sys, "_is_gil_enabled", lambda: not sysconfig.get_config_var("Py_GIL_DISABLED"))(),
        versions=versions(),
        gpu=_gpu() if device == "cuda" else None,
    )


def usable_cores(root: Path = _ROOT) -> float:
    """Return how many cores this process may use at once.

    Args:
        root: Where sys/ lies; another folder in tests.
    """
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, _, period = _text("sys/fs/cgroup/cpu.max", root).partition(" ")
    if not quota:
        quota = _text("sys/fs/cgroup/cpu/cpu.cfs_quota_us", root)
        period = _text("sys/fs/cgroup/cpu/cpu.cfs_period_us", root)
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return min(allowed, int(quota) / int(period))
    return allowed


def memory_limit_gb(root: Path = _ROOT) -> float | None:
    """Return the container's memory limit, or None when there is none.

    Args:
        root: Where sys/ lies; another folder in tests.
    """
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _text(name, root)
        # The first cgroup version writes an enormous number for "none".
        if limit.isdigit() and int(limit) < _UNLIMITED_BYTES:
            return int(limit) / 1e9
    return None


def resident_mb() -> float:
    """Return this process's resident memory; where the system does not tell it, its peak."""
    statm = _text("proc/self/statm").split()
    if len(statm) > 1:
        return int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return peak_mb()


def peak_mb() -> float:
    """Return the most memory this process has held so far; 0 where the system does not tell it."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


class PressureMeter:
    """Measures the pressure on the host between its creation and `read`."""

    def __init__(self, root: Path = _ROOT) -> None:
        """Start.

        Args:
            root: Where proc/ lies; another folder in tests.
        """
        self._root = root
        self._begin = time.monotonic(), *self._now()

    def read(self, *, elapsed_s: float | None = None) -> Pressure:
        """Return the pressure since the start.

        Args:
            elapsed_s: Time since the start; None takes it from the clock.
        """
        begin_s, waited_begin_us, ticks_begin = self._begin
        elapsed_s = time.monotonic() - begin_s if elapsed_s is None else elapsed_s
        waited_us, ticks = self._now()
        cpu = steal = None
        if waited_us is not None and waited_begin_us is not None and elapsed_s > 0:
            cpu = min(1.0, (waited_us - waited_begin_us) / 1e6 / elapsed_s)
        if ticks is not None and ticks_begin is not None and ticks[1] > ticks_begin[1]:
            steal = (ticks[0] - ticks_begin[0]) / (ticks[1] - ticks_begin[1])
        return Pressure(cpu_share=cpu, steal_share=steal)

    def _now(self) -> tuple[int | None, tuple[int, int] | None]:
        total = _text("proc/pressure/cpu", self._root).partition("total=")[2].split()
        fields = _text("proc/stat", self._root).split("\n")[0].split()[1:9]
        ticks = (int(fields[7]), sum(map(int, fields))) if len(fields) == 8 else None
        return (int(total[0]) if total else None), ticks


def _text(name: str, root: Path = _ROOT) -> str:
    try:
        return (root / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _memory_bytes() -> int:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _resource_limits() -> tuple[int, float | None]:
    try:
        import resource
    except ImportError:
        return 0, None
    priority = resource.getrlimit(resource.RLIMIT_RTPRIO)[0] if hasattr(resource, "RLIMIT_RTPRIO") else 0
    lock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    is_unlimited = lock == resource.RLIM_INFINITY
    return (99 if priority == resource.RLIM_INFINITY else priority), (None if is_unlimited else lock / 1e6)


def _gpu() -> GpuFacts | None:
    if find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    driver = next((word for word in _text("proc/driver/nvidia/version").split() if word[:1].isdigit()), "")
    return GpuFacts(
        name=torch.cuda.get_device_name(),
        memory_gb=torch.cuda.get_device_properties(0).total_memory / 1e9,
        driver=driver,
        cuda=str(torch.version.cuda),
        bandwidth_gb_s=measured_bandwidth("cuda"),
    )
