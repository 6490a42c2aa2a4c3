"""What every step engine shares: the interface, the noise and the delay ring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from duologue.config import Sampling
from duologue.errors import ConfigError, StreamError
from duologue.model.config import UNGENERATED, LMConfig
from duologue.types import Codes, StepOutput


@dataclass(frozen=True, kw_only=True)
class StepNoise:
    """The random part of one step, ready for `ids[argmax(sorted_top_k_logits / temperature + noise)]`.

    Greedy sampling is the same formula with zero noise and temperature 1.

    Attributes:
        text: Gumbel noise per rank of the sorted text candidates, shape [k_text].
        audio: Gumbel noise per rank for each agent codebook, shape [dep_q, k_audio].
        temperature_text: Divisor to use, > 0.
        temperature_audio: Divisor to use, > 0.
        is_greedy_text: Whether the text draw is certain, so that its log-probability is 0.
        is_greedy_audio: The same for the audio draws.
    """

    text: npt.NDArray[np.float32]
    audio: npt.NDArray[np.float32]
    temperature_text: float
    temperature_audio: float
    is_greedy_text: bool
    is_greedy_audio: bool

    def settle(self, logprobs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Replace by 0 the log-probabilities, shape [1 + dep_q], of draws that were greedy, and return them."""
        if self.is_greedy_text:
            logprobs[:1] = 0.0
        if self.is_greedy_audio:
            logprobs[1:] = 0.0
        return logprobs


class NoiseSource:
    """Gumbel noise as a pure function of (seed, frame), so that a snapshot is two integers.

    Source: Philox4x32-10 counter-based generator (numpy.random.Philox); Gumbel-max sampling.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 1 << 128:
            raise ConfigError(f"seed must be an integer in [0, 2**128), got {seed!r}")
        self.seed = int(seed)

    def draw(self, frame: int, sampling: Sampling, config: LMConfig) -> StepNoise:
        """Return the noise of one frame.

        Args:
            frame: Index of the call, from 0.
            sampling: Decides how many ranks get noise, and whether any does.
            config: Model shape.
        """
        kept_text, kept_audio = sampling.kept_text(config), sampling.kept_audio(config)
        # The two streams get counters of their own: changing top_k_text must not move the audio noise.
        text = self._gumbel(frame, 0, kept_text)
        audio = self._gumbel(frame, 1, config.dep_q * kept_audio).reshape(config.dep_q, kept_audio)
        is_greedy_text, is_greedy_audio = sampling.temperature_text == 0, sampling.temperature_audio == 0
        return StepNoise(
            text=np.zeros_like(text) if is_greedy_text else text,
            audio=np.zeros_like(audio) if is_greedy_audio else audio,
            temperature_text=1.0 if is_greedy_text else sampling.temperature_text,
            temperature_audio=1.0 if is_greedy_audio else sampling.temperature_audio,
            is_greedy_text=is_greedy_text,
            is_greedy_audio=is_greedy_audio,
        )

    def _gumbel(self, frame: int, lane: int, size: int) -> npt.NDArray[np.float32]:
        bits = np.random.Philox(key=self.seed, counter=(frame << 128) | (lane << 64))
        uniform = np.random.Generator(bits).random(size, dtype=np.float32)
        # float32 uniforms reach 0; half a step up keeps both logarithms finite.
        noise: npt.NDArray[np.float32] = -np.log(-np.log(uniform * np.float32(1 - 2**-24) + np.float32(2**-25)))
        return noise


class StepStream(Protocol):
    """One conversation's state inside an engine; not safe to share between threads."""

    sampling: Sampling
    """Takes effect at the next step."""

    def step(self, user_codes: Codes, *, forced_text: int | None = None) -> StepOutput:
        """Advance one frame, exactly as moshi 0.2.13's LMGen.step.

        Args:
            user_codes: Codes of the user's frame, shape [user_q].
            forced_text: Token to write in place of the text token sampled in this call; it is the text of the
                next frame.

        Returns:
            Text token and codes of the frame that this call completes. `agent_codes` is None and `text_token`
            is PAD on the first `max_delay` calls. `logprobs` belongs to the tokens sampled in this call, NaN
            for a forced one.

        Raises:
            StreamError: `user_codes` has another shape or holds a code outside [0, card).
        """
        ...

    def prefill(self, tokens: npt.NDArray[np.int64], *, embeddings: npt.NDArray[np.float32] | None = None) -> None:
        """Force whole frames in one pass: the state afterwards equals as many `step` calls with these tokens.

        Args:
            tokens: Frames before delays are applied, shape [T, 1 + n_q]: text, agent codes, user codes. Call n takes
                frame n as `TokenDelays.begin(tokens[n, 1 + dep_q :], agent_frame=tokens[n, : 1 + dep_q])` does; what
                the last call leaves free (the next frame's text and semantic code) is sampled.
            embeddings: Summed input embeddings that stand in for the tokens of the first N positions, shape [N, dim],
                N < T, as a PersonaPlex voice file holds them.

        Raises:
            StreamError: An argument has another shape or holds a token outside the vocabularies, or embeddings are
                given to a conversation that has begun.
        """
        ...

    def reset(self, seed: int) -> None:
        """Start over with another seed."""
        ...

    def snapshot(self) -> object:
        """Return a copy of the state that `restore` of a stream of the same engine takes."""
        ...

    def restore(self, snapshot: object) -> None:
        """Return to a snapshot.

        Raises:
            StreamError: The snapshot is not of a stream of this engine.
        """
        ...


@runtime_checkable
class StepEngine(Protocol):
    """Weights ready to step; immutable, any number of streams at once."""

    config: LMConfig

    def stream(self, *, seed: int, sampling: Sampling = ..., adapter: str | None = None) -> StepStream:
        """Open a conversation with the model as it is, or with one of the adapters it was loaded with.

        Raises:
            ConfigError: There is no such adapter.
        """
        ...


def unknown_adapter(name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an adapter that an engine was not loaded with."""
    loaded = ", ".join(known) or "none"
    return ConfigError(f"no adapter {name!r} is loaded; loaded: {loaded}; name its folder in AgentConfig.adapters")


class TokenDelays:
    """The ring that shifts each stream by its delay, for one conversation on the host.

    A call is `begin`, the network's forward pass on the returned row with the tokens of `pending` fixed, then
    `commit` with what it sampled. Frame f of stream k stands at position f + delays[k]; call n shows the network
    position n and samples position n + 1.
    Positions up to the delay show initial tokens, so frame 0 of the user is never seen.

    Source: moshi 0.2.13, models/lm.py, LMGen._step.
    """

    def __init__(self, config: LMConfig) -> None:
        self._config = config
        self._delays = np.array(config.delays, dtype=np.int64)
        self._capacity = config.max_delay + 2
        self._streams = np.arange(config.num_streams)
        self._initial = np.full(config.num_streams, config.card, dtype=np.int64)
        self._initial[0] = config.text_card
        self._limits = self._initial + 1
        self._ring = np.empty((config.num_streams, self._capacity), dtype=np.int64)
        self._forced = np.empty((1 + config.dep_q, self._capacity), dtype=np.int64)
        self.reset()

    @property
    def padding_id(self) -> int:
        """PAD, the text token of a call that completes no frame."""
        return self._config.existing_text_padding_id

    @property
    def calls(self) -> int:
        """Calls completed since the start."""
        return self._calls

    def reset(self) -> None:
        """Forget everything."""
        self._ring.fill(UNGENERATED)
        self._forced.fill(UNGENERATED)
        self._calls = 0

    def begin(self, user_codes: npt.ArrayLike, *, agent_frame: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
        """Write the user's frame, and the agent's when it is forced, and return what the network sees.

        Args:
            user_codes: Shape [user_q], each in [0, card).
            agent_frame: Text token and agent codes of the same frame, shape [1 + dep_q], to use instead of what was
                or will be sampled for it.

        Returns:
            Input tokens, shape [1 + n_q].

        Raises:
            StreamError: Wrong shape or a token out of range.
        """
        codes = checked_user_codes(user_codes, self._config)
        rows = self._streams[1 + self._config.dep_q :]
        if agent_frame is not None:
            self._force(agent_frame)
        self._ring[rows, (self._calls + self._delays[rows]) % self._capacity] = codes
        row = self._ring[:, self._calls % self._capacity]
        return np.where(self._calls <= self._delays, self._initial, row)

    def pending(self, *, forced_text: int | None = None) -> npt.NDArray[np.int64]:
        """Return the tokens already fixed at the position this call samples.

        Args:
            forced_text: Text token to fix besides.

        Returns:
            Shape [1 + dep_q], UNGENERATED where the network is free.

        Raises:
            StreamError: `forced_text` is outside the text vocabulary.
        """
        tokens = self._forced[:, (self._calls + 1) % self._capacity].copy()
        if forced_text is not None:
            if not 0 <= forced_text < self._config.text_card:
                raise StreamError(f"forced_text must lie in [0, {self._config.text_card}), got {forced_text}")
            tokens[0] = forced_text
        return tokens

    def commit(self, tokens: npt.ArrayLike) -> npt.NDArray[np.int64] | None:
        """Write what the call sampled and return the frame it completes.

        Args:
            tokens: Text token and agent codes, shape [1 + dep_q]; the agent's forced frames override them.

        Returns:
            Text token and agent codes of the completed frame, shape [1 + dep_q], or None on the first calls.
        """
        self._calls += 1
        place = self._calls % self._capacity
        forced = self._forced[:, place]
        agent = slice(0, 1 + self._config.dep_q)
        self._ring[agent, place] = np.where(forced == UNGENERATED, np.asarray(tokens, dtype=np.int64), forced)
        self._forced[:, place] = UNGENERATED
        if self._calls <= self._config.max_delay:
            return None
        places = (self._calls - self._config.max_delay + self._delays[agent]) % self._capacity
        return self._ring[self._streams[agent], places]

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the state."""
        return {"calls": self._calls, "ring": self._ring.copy(), "forced": self._forced.copy()}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Return to a snapshot of a ring of the same configuration.

        Raises:
            StreamError: The snapshot has another shape.
        """
        if np.shape(snapshot["ring"]) != self._ring.shape or np.shape(snapshot["forced"]) != self._forced.shape:
            raise StreamError("the snapshot belongs to a model with other delays or codebooks")
        self._calls = int(snapshot["calls"])
        self._ring[:] = snapshot["ring"]
        self._forced[:] = snapshot["forced"]

    def _force(self, agent_frame: npt.ArrayLike) -> None:
        frame = np.asarray(agent_frame, dtype=np.int64)
        limits = self._limits[: 1 + self._config.dep_q]
        if frame.shape != limits.shape or (frame < 0).any() or (frame >= limits).any():
            raise StreamError(
                f"a forced frame must hold {limits.size} tokens of the vocabularies, got {frame.tolist()}"
            )
        rows = self._streams[: limits.size]
        places = (self._calls + self._delays[rows]) % self._capacity
        # A delay of 0 puts the token at the position this call shows: it replaces what the last call sampled.
        is_now = self._delays[rows] == 0
        self._ring[rows[is_now], places[is_now]] = frame[is_now]
        self._forced[rows[~is_now], places[~is_now]] = frame[~is_now]


def checked_user_codes(user_codes: npt.ArrayLike, config: LMConfig) -> npt.NDArray[np.int64]:
    """Return a user's frame as int64.

    Raises:
        StreamError: It is not user_q integers in [0, card).
    """
    codes = np.asarray(user_codes)
    if codes.shape != (config.user_q,) or codes.dtype.kind not in "iu":
        raise StreamError(f"user codes must be {config.user_q} integers, got shape {codes.shape} of {codes.dtype}")
    codes = codes.astype(np.int64)
    if (codes < 0).any() or (codes >= config.card).any():
        raise StreamError(f"user codes must lie in [0, {config.card}), got {codes.tolist()}")
    return codes


def checked_frames(
    tokens: npt.ArrayLike, embeddings: npt.ArrayLike | None, config: LMConfig
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32] | None]:
    """Return the arguments of `StepStream.prefill` in their exact types.

    Raises:
        StreamError: A shape does not fit the model, or a token is outside its vocabulary.
    """
    frames = np.asarray(tokens)
    if frames.ndim != 2 or frames.shape[1] != config.num_streams or frames.dtype.kind not in "iu":
        raise StreamError(f"frames must be integers of shape [T, {config.num_streams}], got {frames.shape}")
    # The agent's streams may hold the initial token; a person's codes may not.
    limits = np.array([config.text_card + 1] + [config.card + 1] * config.dep_q + [config.card] * config.user_q)
    if (frames < 0).any() or (frames >= limits).any():
        raise StreamError(f"frames must hold text tokens below {config.text_card} and codes below {config.card}")
    if embeddings is None:
        return frames.astype(np.int64), None
    inputs = np.asarray(embeddings, dtype=np.float32)
    if inputs.ndim != 2 or inputs.shape[1] != config.dim or inputs.shape[0] >= max(1, frames.shape[0]):
        raise StreamError(
            f"embeddings must have shape [N, {config.dim}] with N < {frames.shape[0]}, got {inputs.shape}"
        )
    if not np.isfinite(inputs).all():
        raise StreamError("embeddings must be finite numbers")
    return frames.astype(np.int64), inputs


def finish_step(
    delays: TokenDelays,
    *,
    tokens: npt.NDArray[np.int64],
    logprobs: npt.NDArray[np.float32],
    pending: npt.NDArray[np.int64],
    noise: StepNoise,
) -> StepOutput:
    """Commit what a step sampled and assemble its output.

    Args:
        delays: The conversation's ring, between `begin` and `commit`.
        tokens: Text token and agent codes, shape [1 + dep_q].
        logprobs: Their log-probabilities under the distribution sampled from, shape [1 + dep_q].
        pending: What `TokenDelays.pending` gave the network.
        noise: What the step was sampled with.
    """
    settled = noise.settle(logprobs.astype(np.float32, copy=True))
    settled[pending != UNGENERATED] = np.nan
    frame = delays.commit(tokens)
    if frame is None:
        return StepOutput(text_token=delays.padding_id, agent_codes=None, logprobs=settled)
    return StepOutput(text_token=int(frame[0]), agent_codes=frame[1:].astype(np.int32), logprobs=settled)
