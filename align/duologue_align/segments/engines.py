"""Run one function over many tasks: here, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from duologue.errors import ConfigError, MissingExtraError

Engine: TypeAlias = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def run_tasks(
    function: Callable[[_Task], _Result], tasks: Sequence[_Task], *, engine: Engine = "local", jobs: int = 1
) -> Iterator[_Result]:
    """Yield the result of every task, in the order in which they finish.

    Args:
        function: What to do with a task; importable by name.
        tasks: What to do it with.
        engine: "local", or "ray": the cluster that RAY_ADDRESS names, else one of this machine. Every worker must see
            the same files.
        jobs: Processes here; for Ray, CPUs of a cluster of this machine.

    Raises:
        ConfigError: `jobs` is below 1 or the engine is unknown.
        MissingExtraError: Ray is not installed.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; give 1 or more")
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine {engine!r}; use one of {', '.join(ENGINES)}")
    if not tasks:
        return iter(())
    if engine == "ray":
        return _run_ray(function, tasks, jobs)
    return map(function, tasks) if jobs == 1 or len(tasks) == 1 else _run_processes(function, tasks, jobs)


def _run_processes(function: Callable[[_Task], _Result], tasks: Sequence[_Task], jobs: int) -> Iterator[_Result]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    waiting = iter(tasks)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_leave_interrupts) as pool:
        # A few at a time, so that an interrupt does not leave a long queue behind.
        running: set[Future[_Result]] = {pool.submit(function, task) for task in islice(waiting, 2 * jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(function, task) for task in islice(waiting, len(done))}
            for future in done:
                yield future.result()


def _leave_interrupts() -> None:
    # Ctrl-C reaches every process of the terminal; the one that started the others decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_ray(function: Callable[[_Task], _Result], tasks: Sequence[_Task], jobs: int) -> Iterator[_Result]:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    is_ours = not ray.is_initialized()
    if is_ours and "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    elif is_ours:
        ray.init(address="local", num_cpus=jobs, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=1)(function)
        room = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))
        waiting = iter(tasks)
        running = [remote.remote(task) for task in islice(waiting, room)]
        while running:
            done, running = ray.wait(running, num_returns=1)
            running += [remote.remote(task) for task in islice(waiting, len(done))]
            yield from ray.get(done)
    finally:
        if is_ours:
            ray.shutdown()
