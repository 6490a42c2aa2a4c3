"""The torch engine: eager anywhere, one captured CUDA graph per frame on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from duologue.config import Sampling
from duologue.engine.base import NoiseSource, StepNoise, checked_frames, checked_user_codes, unknown_adapter
from duologue.engine.torch_graph import StaticStep
from duologue.errors import ConfigError, StreamError
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import UNGENERATED, LMConfig
from duologue.model.generate import FrameGenerator, GeneratorState
from duologue.model.lm import LanguageModel
from duologue.model.load import adapted_view, load_model
from duologue.types import Codes, StepOutput

_DEFAULT_SAMPLING = Sampling()


class TorchEngine:
    """A language model in torch, ready to step.

    Attributes:
        config: Its shape.
        model: The model, in evaluation mode.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        use_cuda_graph: bool = True,
        adapters: Mapping[str, Checkpoint] | None = None,
    ) -> None:
        self.config: LMConfig = model.config
        self.model = model.eval()
        self._adapted = {name: adapted_view(self.model, adapter) for name, adapter in (adapters or {}).items()}
        self._use_cuda_graph = use_cuda_graph and model.device.type == "cuda"

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        use_cuda_graph: bool = True,
        adapters: Mapping[str, Checkpoint] | None = None,
    ) -> TorchEngine:
        """Load a checkpoint.

        Args:
            checkpoint: The model folder.
            device: "cpu", "cuda" or "cuda:N".
            dtype: "float32", "bfloat16" or "float16".
            use_cuda_graph: Capture each step as one graph; only on a GPU.
            adapters: What `open_adapters` returned; the base's weights are held once.

        Raises:
            ConfigError: The device is not there, or the type is not supported.
            WeightsError: A tensor cannot be read.
        """
        target = _checked_device(device)
        model = load_model(checkpoint, device=target, dtype=dtype)
        return cls(model, use_cuda_graph=use_cuda_graph, adapters=adapters)

    def stream(
        self, *, seed: int, sampling: Sampling = _DEFAULT_SAMPLING, adapter: str | None = None
    ) -> TorchStepStream:
        """Open a conversation.

        Args:
            seed: Same seed and same input give the same tokens on one device.
            sampling: How tokens are drawn; can be changed later.
            adapter: Name of an adapter the engine was loaded with, or None for the model as it is.

        Raises:
            ConfigError: There is no such adapter.
        """
        if adapter is not None and adapter not in self._adapted:
            raise unknown_adapter(adapter, self._adapted)
        model = self.model if adapter is None else self._adapted[adapter]
        return TorchStepStream(model, seed=seed, sampling=sampling, use_cuda_graph=self._use_cuda_graph)


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    config: LMConfig
    state: GeneratorState
    seed: int
    calls: int
    sampling: Sampling


class TorchStepStream:
    """One conversation in torch.

    Attributes:
        sampling: Takes effect at the next step.
    """

    def __init__(self, model: LanguageModel, *, seed: int, sampling: Sampling, use_cuda_graph: bool) -> None:
        self.sampling = sampling
        self._config: LMConfig = model.config
        self._generator = FrameGenerator(model)
        self._step = StaticStep(self._generator, use_cuda_graph=use_cuda_graph)
        self._noise = NoiseSource(seed)
        self._calls = 0

    def step(self, user_codes: Codes, *, forced_text: int | None = None) -> StepOutput:
        """Advance one frame; see `StepStream.step`.

        Raises:
            StreamError: `user_codes` has another shape or holds a code outside [0, card), or `forced_text` is outside
                the text vocabulary.
        """
        codes = checked_user_codes(user_codes, self._config)
        forced = np.full(1 + self._config.dep_q, UNGENERATED, dtype=np.int64)
        if forced_text is not None:
            if not 0 <= forced_text < self._config.text_card:
                raise StreamError(f"forced_text must lie in [0, {self._config.text_card}), got {forced_text}")
            forced[0] = forced_text
        noise = self._noise.draw(self._calls, self.sampling, self._config)
        frame, logprobs = self._step.run(codes, forced, noise, self.sampling.padding_bias)
        self._calls += 1
        return self._output(frame, logprobs, noise)

    def prefill(self, tokens: npt.NDArray[np.int64], *, embeddings: npt.NDArray[np.float32] | None = None) -> None:
        """Force whole frames; in one pass at the start of a conversation. See `StepStream.prefill`.

        Raises:
            StreamError: An argument has another shape or holds a token outside the vocabularies, or embeddings are
                given to a conversation that has begun.
        """
        frames, inputs = checked_frames(tokens, embeddings, self._config)
        if inputs is not None and self._calls:
            raise StreamError("embeddings can be prefilled only before the first step; reset the stream first")
        passed = 0
        if self._calls == 0 and len(frames) > 1:
            passed = len(frames) - 1
            device = self._generator.model.device
            block = torch.from_numpy(np.ascontiguousarray(frames[:passed].T)[None]).to(device)
            self._generator.prefill(block, None if inputs is None else torch.from_numpy(inputs).to(device))
            self._calls = passed
        agent = 1 + self._config.dep_q
        for frame in frames[passed:]:
            self._generator.force(torch.from_numpy(frame[None, :agent]).to(self._generator.model.device))
            self.step(frame[agent:].astype(np.int32))

    def reset(self, seed: int) -> None:
        """Start over with another seed."""
        self._noise = NoiseSource(seed)
        self._calls = 0
        self._generator.reset()

    def snapshot(self) -> object:
        """Return a copy of the state; it stays on the model's device."""
        return _Snapshot(
            config=self._config,
            state=self._generator.state.clone(),
            seed=self._noise.seed,
            calls=self._calls,
            sampling=self.sampling,
        )

    def restore(self, snapshot: object) -> None:
        """Return to a snapshot.

        Raises:
            StreamError: The snapshot is not of a torch stream of this model.
        """
        if not isinstance(snapshot, _Snapshot) or snapshot.config != self._config:
            raise StreamError("the snapshot is not of a torch stream of this model")
        self._generator.state.copy_from(snapshot.state)
        self._generator.set_steps(snapshot.calls)
        self._noise = NoiseSource(snapshot.seed)
        self._calls = snapshot.calls
        self.sampling = snapshot.sampling

    def _output(self, frame: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float32], noise: StepNoise) -> StepOutput:
        # NaN marks forced tokens; settling a greedy draw must not hide that.
        is_forced = np.isnan(logprobs)
        settled = noise.settle(logprobs)
        settled[is_forced] = np.nan
        if frame[0] == UNGENERATED:
            return StepOutput(text_token=self._config.existing_text_padding_id, agent_codes=None, logprobs=settled)
        return StepOutput(text_token=int(frame[0]), agent_codes=frame[1:].astype(np.int32), logprobs=settled)


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not one torch knows; use 'cpu' or 'cuda'") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' needs a CUDA GPU and a CUDA build of torch; use 'cpu'")
    return target
