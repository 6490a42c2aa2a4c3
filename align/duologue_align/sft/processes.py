"""The processes that share a batch: torchrun's, or this one alone."""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first validates and tests alone, while a lost one must end the run."""
_LEAVE_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Who takes part.

    Attributes:
        rank: Number of this process.
        count: Processes in all.
        local_rank: Number of this process on its machine, which is the number of its GPU.
    """

    rank: int
    count: int
    local_rank: int

    @classmethod
    def alone(cls) -> Processes:
        """Return this process by itself."""
        return cls(rank=0, count=1, local_rank=0)

    @classmethod
    def join(cls, device: str) -> Processes:
        """Join the processes that torchrun started, if it did."""
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls.alone()
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if device.startswith("cuda"):
            torch.cuda.set_device(local)
        if not distributed.is_initialized():
            backend = "nccl" if device.startswith("cuda") else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)
        return cls(rank=distributed.get_rank(), count=distributed.get_world_size(), local_rank=local)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shared(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over the processes."""
        if self.count == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def sharing(self, module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
        """Return the context of one of several passes; gradients are exchanged in the last."""
        if isinstance(module, nn.parallel.DistributedDataParallel) and not is_last:
            context: AbstractContextManager[Any] = module.no_sync()
            return context
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Return values summed over the processes."""
        if self.count == 1:
            return values
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total

    def any(self, value: bool) -> bool:
        """Return whether the value is true in any process."""
        if self.count == 1:
            return value
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        return bool(self.sum(torch.tensor(float(value), device=device)) > 0)

    def largest(self, value: float) -> float:
        """Return the greatest of the processes' values."""
        return float(max(self.gather([value])))

    def gather(self, values: list[Any]) -> list[Any]:
        """Return the values of all processes, in order of rank."""
        if self.count == 1:
            return values
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, values)
        return [value for part in found for value in part]

    def leave(self) -> None:
        """Part from the other processes."""
        if self.count > 1:
            distributed.destroy_process_group()
            # Gloo's threads drop their tensors after a collective is over, and abort the process if Python ends first.
            time.sleep(_LEAVE_S)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()
