"""The default engine: one ONNX Runtime call per frame, no torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.config import Sampling
from duologue.engine.base import NoiseSource, StepNoise, TokenDelays, checked_frames, finish_step
from duologue.engine.graph_file import keep_graph, read_graph, seal_graph
from duologue.engine.onnx_graph import build_step_graph, graph_digest, ring_names, ring_shape
from duologue.engine.onnx_switches import Switches, switched_layers
from duologue.engine.onnx_writer import weights_root
from duologue.errors import ConfigError, MissingExtraError, StreamError, WeightsError
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import NO_TOKEN, UNGENERATED, LMConfig
from duologue.replacing import replace_file
from duologue.types import Codes, StepOutput

_log = logging.getLogger(__name__)
_MAX_PREFILL_ROWS = 128
_DEFAULT_SAMPLING = Sampling()
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


class OnnxEngine:
    """Weights inside an ONNX Runtime session; immutable, shared by any number of streams and threads.

    Attributes:
        config: Shape of the model.
        providers: Execution providers in use, preferred first.
    """

    def __init__(
        self, session: Any, config: LMConfig, *, runtime: Any, adapters: Mapping[str, Checkpoint] | None = None
    ) -> None:
        self.config = config
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self._session = session
        self._runtime = runtime
        self._device = "cuda" if self.providers[0] == _CUDA else "cpu"
        self._switches = Switches(adapters or {}, config, runtime=runtime, device=self._device)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        threads: int = 1,
        cache_dir: str | Path | None = None,
        providers: Sequence[str] | None = None,
        adapters: Mapping[str, Checkpoint] | None = None,
    ) -> OnnxEngine:
        """Make an engine from a checkpoint; its files are mapped, not copied.

        The folder's step.onnx or the one in the cache is used if it was built from these very weights, by this version,
        and is undamaged; otherwise the graph is built, which takes a fraction of a second.

        Args:
            checkpoint: The model.
            threads: Threads inside one step, >= 1. They sleep, not spin, between steps.
            cache_dir: Folder to keep a built graph in, or None to build it at each load; where it cannot be written, a
                warning is logged.
            providers: Execution providers in order of preference, by default the CPU.
            adapters: What `open_adapters` returned. The base is held once; every stream binds the low-rank matrices of
                its adapter, or zeros, and pays for their products.

        Raises:
            MissingExtraError: onnxruntime (or, to build a graph, onnx) is not installed.
            ConfigError: `threads` or `providers` is not usable here.
            WeightsError: ONNX Runtime refuses the graph or the weights.
        """
        runtime = _import_runtime()
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ConfigError(f"threads must be an integer >= 1, got {threads!r}")
        names = _checked_providers(runtime, providers)
        options = _session_options(runtime, threads, weights_root(checkpoint))
        graph = _StepGraph(checkpoint, switched_layers(adapters or {}))
        session = _open_session(graph, runtime, options, names, None if cache_dir is None else Path(cache_dir))
        return cls(session, checkpoint.config, runtime=runtime, adapters=adapters)

    def stream(
        self, *, seed: int, sampling: Sampling = _DEFAULT_SAMPLING, adapter: str | None = None
    ) -> OnnxStepStream:
        """Open a conversation.

        Args:
            seed: Same seed and same input give the same tokens.
            sampling: How tokens are drawn; can be changed later.
            adapter: Name of an adapter the engine was loaded with, or None for the model as it is.

        Raises:
            ConfigError: There is no such adapter.
        """
        return OnnxStepStream(self, seed=seed, sampling=sampling, adapter=adapter)


def write_step_graph(checkpoint: Checkpoint) -> Path:
    """Write step.onnx into a model folder, its weights being the folder's own files; return its path.

    Raises:
        MissingExtraError: The `onnx` package is not installed.
        WeightsError: The weights lie outside the folder, so that the graph could not refer to them.
    """
    if weights_root(checkpoint) != checkpoint.path.resolve():
        raise WeightsError(
            f"the weights of {checkpoint.path} lie in {weights_root(checkpoint)}; copy them into it first"
        )
    path = checkpoint.path / "step.onnx"
    replace_file(path, seal_graph(build_step_graph(checkpoint)))
    return path


def _import_runtime() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnxruntime (or onnxruntime-gpu, which the extra 'gpu' brings)", "cpu") from error


def _checked_providers(runtime: Any, wanted: Sequence[str] | None) -> list[str]:
    names = list(wanted or (_CPU,))
    available = runtime.get_available_providers()
    for name in names:
        if name not in available:
            raise ConfigError(f"execution provider {name!r} is not available here; choose from {available}")
    return names


def _session_options(runtime: Any, threads: int, weights_folder: Path) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning pool burns the cores that the codec and the host application need between two frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights_folder))
    return options


@dataclass(frozen=True, slots=True)
class _StepGraph:
    """What a graph is built from."""

    checkpoint: Checkpoint
    switched: frozenset[str]


def _open_session(
    graph_of: _StepGraph, runtime: Any, options: Any, providers: Sequence[str], cache_dir: Path | None
) -> Any:
    checkpoint, switched = graph_of.checkpoint, graph_of.switched
    digest = graph_digest(checkpoint, switched=switched)
    cached = None if cache_dir is None else cache_dir / f"step-{digest[:32]}.onnx"
    refused = []
    for path in (checkpoint.step_graph_path, cached):
        kept = read_graph(path, digest)
        if kept is None:
            continue
        try:
            return _start(runtime, kept, options, providers)
        except _RefusedError as error:
            _log.warning("ONNX Runtime refuses the kept step graph %s (%s); it is built again", path, error)
            refused.append(str(path))
    graph = seal_graph(build_step_graph(checkpoint, switched=switched))
    try:
        session = _start(runtime, graph, options, providers)
    except _RefusedError as error:
        tried = " nor ".join([*refused, "the step graph built anew"])
        raise WeightsError(f"{checkpoint.path}: ONNX Runtime cannot load {tried}: {error}") from error
    if cached is not None:
        keep_graph(cached, graph)
    return session


class _RefusedError(Exception):
    """ONNX Runtime does not take a graph; the message is the first line of its reason."""


def _start(runtime: Any, graph: bytes, options: Any, providers: Sequence[str]) -> Any:
    try:
        return runtime.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # onnxruntime raises classes of its own without a public base
        raise _RefusedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    config: LMConfig
    seed: int
    sampling: Sampling
    delays: dict[str, Any]
    rings: tuple[npt.NDArray[np.float32], ...]


class OnnxStepStream:
    """One conversation: the rings of keys and values, the delays and the noise counter.

    Attributes:
        sampling: Takes effect at the next step.
    """

    def __init__(self, engine: OnnxEngine, *, seed: int, sampling: Sampling, adapter: str | None = None) -> None:
        self.sampling = sampling
        self._config = engine.config
        self._delays = TokenDelays(engine.config)
        self._noise = NoiseSource(seed)
        self._network = _Network(engine, adapter)

    def step(self, user_codes: Codes, *, forced_text: int | None = None) -> StepOutput:
        """Advance one frame; see `StepStream.step`.

        Raises:
            StreamError: `user_codes` has another shape or holds a code outside [0, card), or `forced_text` is
                outside the text vocabulary.
        """
        row = self._delays.begin(user_codes)
        return self._advance(row[None], self._delays.pending(forced_text=forced_text))

    def prefill(self, tokens: npt.NDArray[np.int64], *, embeddings: npt.NDArray[np.float32] | None = None) -> None:
        """Force whole frames, many per network call; see `StepStream.prefill`.

        Raises:
            StreamError: An argument has another shape or holds a token outside the vocabularies, or embeddings are
                given to a conversation that has begun.
        """
        frames, given = checked_frames(tokens, embeddings, self._config)
        if given is not None and self._delays.calls:
            raise StreamError("embeddings can be prefilled only before the first step; reset the stream first")
        replaced = 0 if given is None else len(given)
        agent = 1 + self._config.dep_q
        waiting: list[npt.NDArray[np.int64]] = []
        for index, frame in enumerate(frames):
            row = self._delays.begin(frame[agent:], agent_frame=frame[:agent])
            waiting.append(row if index >= replaced else np.full_like(row, NO_TOKEN))
            pending = self._delays.pending()
            if index + 1 < len(frames) and self._can_wait(pending) and len(waiting) < self._room(len(waiting)):
                self._delays.commit(np.zeros(agent, dtype=np.int64))
                continue
            chunk = None if given is None else given[index + 1 - len(waiting) : index + 1]
            self._advance(np.stack(waiting), pending, chunk)
            waiting.clear()

    def reset(self, seed: int) -> None:
        """Start over with another seed."""
        self._noise = NoiseSource(seed)
        self._delays.reset()
        self._network.clear()

    def snapshot(self) -> object:
        """Return a copy of the state."""
        return _Snapshot(
            config=self._config,
            seed=self._noise.seed,
            sampling=self.sampling,
            delays=self._delays.snapshot(),
            rings=self._network.copy_rings(min(self._delays.calls, self._config.context)),
        )

    def restore(self, snapshot: object) -> None:
        """Return to a snapshot.

        Raises:
            StreamError: The snapshot is not of a stream of this engine.
        """
        if not isinstance(snapshot, _Snapshot) or snapshot.config != self._config:
            raise StreamError("the snapshot is not of an ONNX stream of this model")
        self.sampling = snapshot.sampling
        self._noise = NoiseSource(snapshot.seed)
        self._delays.restore(snapshot.delays)
        self._network.set_rings(snapshot.rings)

    def _advance(
        self,
        rows: npt.NDArray[np.int64],
        pending: npt.NDArray[np.int64],
        embeddings: npt.NDArray[np.float32] | None = None,
    ) -> StepOutput:
        calls = self._delays.calls
        noise = self._noise.draw(calls, self.sampling, self._config)
        self._network.set_draw(pending, noise, self.sampling.padding_bias)
        tokens, logprobs = self._network.run(rows, calls + 1 - len(rows), embeddings)
        return finish_step(self._delays, tokens=tokens, logprobs=logprobs, pending=pending, noise=noise)

    def _can_wait(self, pending: npt.NDArray[np.int64]) -> bool:
        # What this call samples may be skipped if the next frame forces it or the ring never shows it.
        delays = np.array(self._config.delays[: pending.size])
        return bool(np.all((pending != UNGENERATED) | (delays == 0) | (self._delays.calls + 1 <= delays)))

    def _room(self, waiting: int) -> int:
        # Rows of one call must not overwrite keys that its earlier rows still see.
        start = self._delays.calls + 1 - waiting
        return max(1, min(_MAX_PREFILL_ROWS, self._config.context - start))


class _Network:
    """The session with one conversation's buffers bound to it; inputs and outputs are written in place."""

    def __init__(self, engine: OnnxEngine, adapter: str | None) -> None:
        self._config, self._session, self._runtime = engine.config, engine._session, engine._runtime
        self._device = engine._device
        self._switches = engine._switches.of(adapter)
        config = self._config
        draws = 1 + config.dep_q
        self._arrays: dict[str, npt.NDArray[Any]] = {
            "tokens": np.zeros((1, config.num_streams), dtype=np.int64),
            "embeddings": np.zeros((1, config.dim), dtype=np.float32),
            "position": np.zeros((), dtype=np.int64),
            "forced": np.full(draws, UNGENERATED, dtype=np.int64),
            "temperatures": np.ones(2, dtype=np.float32),
            "padding_bias": np.zeros(1, dtype=np.float32),
        }
        self._sampled = np.zeros(draws, dtype=np.int64)
        self._logprobs = np.zeros(draws, dtype=np.float32)
        self._ring_arrays: list[npt.NDArray[np.float32]] = []
        self._rings = [self._new_ring() for _ in ring_names(config)]
        self._binding: Any = None

    def set_draw(self, pending: npt.NDArray[np.int64], noise: StepNoise, padding_bias: float) -> None:
        """Set how the next call draws its tokens."""
        arrays = self._arrays
        arrays["forced"][:] = pending
        arrays["temperatures"][:] = noise.temperature_text, noise.temperature_audio
        arrays["padding_bias"][0] = padding_bias
        self._set_noise("noise_text", noise.text)
        self._set_noise("noise_audio", noise.audio)

    def run(
        self, rows: npt.NDArray[np.int64], position: int, embeddings: npt.NDArray[np.float32] | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Run input rows at consecutive positions.

        Args:
            rows: Shape [T, 1 + n_q].
            position: Of the first row.
            embeddings: Of the first N <= T rows, shape [N, dim], or None.

        Returns:
            Tokens drawn at the last row and their log-probabilities, shape [1 + dep_q], valid until the next call.
        """
        self._arrays["position"][...] = position
        if len(rows) == 1 and (embeddings is None or not len(embeddings)):
            self._arrays["tokens"][:] = rows
            self._session.run_with_iobinding(self._binding)
        else:
            chunk = self._chunk(rows, embeddings)  # must outlive the binding that points to it
            self._session.run_with_iobinding(self._bind(chunk))
        return self._sampled, self._logprobs

    def clear(self) -> None:
        """Forget all keys and values."""
        if self._device == "cpu":
            for array in self._ring_arrays:
                array.fill(0)
        else:
            zeros = np.zeros(ring_shape(self._config), dtype=np.float32)
            for ring in self._rings:
                ring.update_inplace(zeros)

    def copy_rings(self, filled: int) -> tuple[npt.NDArray[np.float32], ...]:
        """Return copies of the first `filled` slots of every ring."""
        arrays = self._ring_arrays if self._device == "cpu" else [ring.numpy() for ring in self._rings]
        return tuple(array[:, :, :filled].copy() for array in arrays)

    def set_rings(self, copies: Sequence[npt.NDArray[np.float32]]) -> None:
        """Write back what `copy_rings` returned."""
        self.clear()
        filled = copies[0].shape[2]
        for index, copy in enumerate(copies):
            if self._device == "cpu":
                self._ring_arrays[index][:, :, :filled] = copy
                continue
            whole = np.zeros(ring_shape(self._config), dtype=np.float32)
            whole[:, :, :filled] = copy
            self._rings[index].update_inplace(whole)

    def _new_ring(self) -> Any:
        shape = ring_shape(self._config)
        ort_value = self._runtime.OrtValue
        if self._device == "cpu":
            # The OrtValue shares the array's memory, which therefore must outlive it.
            self._ring_arrays.append(np.zeros(shape, dtype=np.float32))
            return ort_value.ortvalue_from_numpy(self._ring_arrays[-1])
        return ort_value.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32), self._device, 0)

    def _set_noise(self, name: str, values: npt.NDArray[np.float32]) -> None:
        held = self._arrays.get(name)
        if held is not None and held.shape == values.shape:
            held[...] = values
            return
        self._arrays[name] = np.ascontiguousarray(values, dtype=np.float32)
        self._binding = self._bind(self._arrays)

    def _chunk(
        self, rows: npt.NDArray[np.int64], embeddings: npt.NDArray[np.float32] | None
    ) -> dict[str, npt.NDArray[Any]]:
        given = np.zeros((len(rows), self._config.dim), dtype=np.float32)
        if embeddings is not None:
            given[: len(embeddings)] = embeddings
        return {**self._arrays, "tokens": np.ascontiguousarray(rows, dtype=np.int64), "embeddings": given}

    def _bind(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
        wrap = self._runtime.OrtValue.ortvalue_from_numpy
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, wrap(array))
        for name, value in self._switches.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("sampled", wrap(self._sampled))
        binding.bind_ortvalue_output("logprobs", wrap(self._logprobs))
        for name, ring in zip(ring_names(self._config), self._rings, strict=True):
            binding.bind_ortvalue_input(name, ring)
            binding.bind_ortvalue_output(f"{name}_out", ring)
        return binding
