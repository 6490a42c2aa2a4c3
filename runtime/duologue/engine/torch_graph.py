"""One step at fixed addresses: inputs copied in, one packed result copied out, captured as a CUDA graph on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from duologue.engine.base import StepNoise
from duologue.model.generate import FrameGenerator, StepInputs
from duologue.model.sampling import DrawSettings

_SMALLEST_BUCKET = 128


class StaticStep:
    """Runs a generator of one row from host values.

    All inputs of a frame travel in two host buffers (integers, floats) and all results in one, so a frame costs two
    copies to the device, one launch and one copy back: the only synchronisation is reading the result.

    Args:
        generator: The generator; its state is updated in place.
        use_cuda_graph: Capture the step, once per power-of-two length of the cache it reads.
    """

    def __init__(self, generator: FrameGenerator, *, use_cuda_graph: bool) -> None:
        self._generator = generator
        self._use_cuda_graph = use_cuda_graph
        self._device = generator.model.device
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        self._kept = (0, 0)

    def run(
        self,
        user_codes: npt.NDArray[np.int64],
        forced: npt.NDArray[np.int64],
        noise: StepNoise,
        padding_bias: float,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Advance one frame.

        Args:
            user_codes: Shape [user_q].
            forced: Shape [1 + dep_q], UNGENERATED where free.
            noise: The frame's noise.
            padding_bias: Added to the logit of PAD.

        Returns:
            Completed frame, shape [1 + dep_q], UNGENERATED if none; log-probabilities, shape [1 + dep_q].
        """
        self._fit(noise.text.shape[0], noise.audio.shape[1])
        self._fill(user_codes, forced, noise, padding_bias)
        if self._use_cuda_graph:
            self._replay()
        else:
            self._record(self._generator.span())
        self._generator.note_steps(1)
        packed = self._packed.cpu().numpy()
        return packed[0].astype(np.int64), packed[1].astype(np.float32)

    def _fit(self, kept_text: int, kept_audio: int) -> None:
        """Make the noise buffers wide enough; a graph captured with narrower ones is dropped."""
        if kept_text <= self._kept[0] and kept_audio <= self._kept[1]:
            return
        self._kept = (max(kept_text, self._kept[0]), max(kept_audio, self._kept[1]))
        self._graphs.clear()
        config = self._generator.config
        agent, is_pinned = 1 + config.dep_q, self._device.type == "cuda"
        self._host_ints = torch.zeros(config.user_q + agent + 2, dtype=torch.int64, pin_memory=is_pinned)
        floats = self._kept[0] + config.dep_q * self._kept[1] + 3
        self._host_floats = torch.zeros(floats, dtype=torch.float32, pin_memory=is_pinned)
        self._ints = self._host_ints.to(self._device, copy=True)
        self._floats = self._host_floats.to(self._device, copy=True)
        self._inputs = self._views(self._ints, self._floats)
        self._packed = torch.zeros(2, agent, device=self._device)

    def _views(self, ints: Tensor, floats: Tensor) -> StepInputs:
        config = self._generator.config
        codes, forced, kept = torch.split(ints, [config.user_q, 1 + config.dep_q, 2])
        text, audio, rest = torch.split(floats, [self._kept[0], config.dep_q * self._kept[1], 3])
        return StepInputs(
            user_codes=codes[None],
            forced=forced[None],
            noise_text=text[None],
            noise_audio=audio.view(1, config.dep_q, self._kept[1]),
            is_live=torch.ones(1, dtype=torch.bool, device=ints.device),
            settings=DrawSettings(
                temperature_text=rest[0],
                temperature_audio=rest[1],
                padding_bias=rest[2],
                kept_text=kept[0],
                kept_audio=kept[1],
            ),
        )

    def _fill(
        self,
        user_codes: npt.NDArray[np.int64],
        forced: npt.NDArray[np.int64],
        noise: StepNoise,
        padding_bias: float,
    ) -> None:
        kept_text, kept_audio = noise.text.shape[0], noise.audio.shape[1]
        ints, floats = self._host_ints.numpy(), self._host_floats.numpy()
        ints[:] = np.concatenate([user_codes, forced, [kept_text, kept_audio]])
        floats[:kept_text] = noise.text
        audio = floats[self._kept[0] : -3].reshape(-1, self._kept[1])
        audio[:, :kept_audio] = noise.audio
        floats[-3:] = noise.temperature_text, noise.temperature_audio, padding_bias
        self._ints.copy_(self._host_ints, non_blocking=True)
        self._floats.copy_(self._host_floats, non_blocking=True)

    def _record(self, span: int) -> None:
        """Run the step and pack its result; everything in here may be captured."""
        output = self._generator.pure_step(self._inputs, span)
        # Token ids are below 2**24, so float32 carries them exactly beside the log-probabilities.
        self._packed.copy_(torch.cat([output.frame.float(), output.logprobs]))

    def _replay(self) -> None:
        bucket = bucket_of(self._generator.span(), self._generator.config.context)
        if bucket not in self._graphs:
            self._graphs[bucket] = self._capture(bucket)
        self._graphs[bucket].replay()

    def _capture(self, bucket: int) -> torch.cuda.CUDAGraph:
        # Warming up runs the step for real, so it runs with no live row: that changes no row's state.
        self._inputs.is_live.zero_()
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(2):
                self._record(bucket)
        torch.cuda.current_stream(self._device).wait_stream(side)
        self._inputs.is_live.fill_(True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self._record(bucket)
        self._pool = self._pool or graph.pool()
        return graph


def bucket_of(span: int, context: int) -> int:
    """Return the captured cache length that serves `span`: a power of two from 128 on, at most `context`."""
    bucket = _SMALLEST_BUCKET
    while bucket < span:
        bucket *= 2
    return min(bucket, context)
