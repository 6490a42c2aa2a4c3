"""What a segment feeds the model: fixed frames before everything, then the user's codes that the agent hears freely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from duologue.codec import Mimi, MimiConfig
from duologue.errors import ConfigError, WeightsError
from duologue.metrics.types import Side
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.personaplex import Prompt
from duologue.model.tokenizer import Tokenizer
from duologue.prompt import load_prompt
from duologue.types import FRAME_MS, FRAME_RATE_HZ, FRAME_SAMPLES, Pcm
from duologue_align.corpus.conversation import Line
from duologue_align.segments.segment import Segment
from duologue_align.sft.dialogues import SpokenWord
from duologue_align.sft.encode import encode_channel
from duologue_align.sft.text_stream import text_stream

Frames = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A segment, ready to be conversed through. Frames count from the first given one.

    Attributes:
        segment: The segment; its window is the last `segment.frames` frames.
        given: Frames of all streams that are fixed (prompt, recorded history), before delays, shape [1 + n_q, P].
        embeddings: Inputs that replace those of the first N positions, shape [N, dim], or None.
        user: The user's codes in the frames after the given ones, shape [user_q, U].
    """

    segment: Segment
    given: Frames
    embeddings: npt.NDArray[np.float32] | None
    user: Frames

    @property
    def frames(self) -> int:
        """Frames in all."""
        return int(self.given.shape[1] + self.user.shape[1])

    @property
    def first(self) -> int:
        """Frame at which the window begins."""
        return self.frames - self.segment.frames


class Bundle:
    """What a model folder holds beside the language model: codec, tokenizer, and the prompt made with them.

    Attributes:
        checkpoint: The folder.
        mimi: Codec.
        tokenizer: Text tokenizer.
        prompt: What every conversation begins with, or None.
    """

    def __init__(self, checkpoint: Checkpoint, *, text_prompt: str = "", voice_prompt: str = "") -> None:
        """Load the parts.

        Raises:
            WeightsError: The folder has no codec or no tokenizer, or one cannot be read.
            ConfigError: The model takes no prompts.
            AudioError: The voice cannot be used.
        """
        if checkpoint.mimi_path is None or checkpoint.tokenizer_path is None:
            missing = "codec (mimi_name)" if checkpoint.mimi_path is None else "tokenizer (tokenizer_name)"
            raise WeightsError(f"{checkpoint.path}: the folder has no {missing}; copy the file beside config.json")
        shape = MimiConfig.from_file(checkpoint.mimi_config_path) if checkpoint.mimi_config_path else None
        self.checkpoint = checkpoint
        self.mimi = Mimi.load(checkpoint.mimi_path, num_codebooks=checkpoint.config.dep_q, config=shape)
        self.tokenizer = Tokenizer(checkpoint.tokenizer_path)
        self.prompt: Prompt | None = load_prompt(
            checkpoint.config,
            self.tokenizer,
            self.mimi,
            text_prompt=text_prompt or None,
            voice_prompt=voice_prompt or None,
        )

    @property
    def config(self) -> LMConfig:
        """Shape of the language model."""
        return self.checkpoint.config


class SceneMaker:
    """Makes scenes of one model and one way to begin."""

    def __init__(
        self, bundle: Bundle, *, history: str = "free", silence_s: float = 0.0, segments: Sequence[Segment] = ()
    ) -> None:
        """Prepare.

        Args:
            bundle: Codec, tokenizer and prompt.
            history: "free" or "recorded"; see `DataSettings`.
            silence_s: Silence before everything.
            segments: Segments whose lines say what recorded agents said before a window.
        """
        self._bundle, self._history = bundle, history
        self._silence_frames = round(silence_s * FRAME_RATE_HZ)
        self._lines: dict[str, set[tuple[bool, Line]]] = {}
        if history == "recorded":
            for segment in segments:
                found = self._lines.setdefault(segment.conversation, set())
                found.update((segment.is_swapped, line) for line in segment.lines)

    def make(self, segment: Segment, context_frames: int) -> Scene:
        """Return the scene of a segment.

        Args:
            segment: With codes.
            context_frames: Frames before the window to begin with; cut to what there is.

        Raises:
            ConfigError: The segment has no codes, or not of this model's codec.
            WeightsError: They cannot be read.
            AudioError: The recording of a recorded history cannot be read.
        """
        config = self._bundle.config
        context = min(context_frames, segment.context_frames)
        codes = segment.user_codes(context_frames=context).astype(np.int64)
        if codes.shape[0] != config.user_q or codes.max(initial=0) >= config.card:
            raise ConfigError(
                f"{segment.id}: {codes.shape[0]} codebooks, codes up to {codes.max(initial=0)}; the model has "
                f"{config.user_q} of {config.card}; mine again with --codec MODEL"
            )
        user = np.concatenate([self._silence[config.dep_q :], codes], axis=1)
        parts = [] if self._bundle.prompt is None else [self._bundle.prompt.tokens.T]
        if self._history == "recorded":
            agent = np.concatenate([self._agent_silence, self._recorded(segment, context)], axis=1)
            parts.append(np.concatenate([agent, user[:, : agent.shape[1]]]))
            user = user[:, agent.shape[1] :]
        embeddings = None if self._bundle.prompt is None else self._bundle.prompt.embeddings
        given = np.concatenate([np.zeros((config.num_streams, 0), dtype=np.int64), *parts], axis=1)
        return Scene(segment=segment, given=given, embeddings=embeddings, user=user)

    @cached_property
    def _silence(self) -> Frames:
        """Both sides' codes of the silence, shape [dep_q + user_q, S]."""
        pcm = np.zeros(self._silence_frames * FRAME_SAMPLES, dtype=np.float32)
        codes = self._encode(pcm)
        return np.concatenate([codes, codes])

    @property
    def _agent_silence(self) -> Frames:
        config = self._bundle.config
        text = np.full((1, self._silence_frames), config.existing_text_padding_id, dtype=np.int64)
        return np.concatenate([text, self._silence[: config.dep_q]])

    def _recorded(self, segment: Segment, context: int) -> Frames:
        """Return text and codes of the recorded agent before the window, shape [1 + dep_q, context]."""
        pcm = segment.pcm("agent", context_s=context * FRAME_MS / 1000)[: context * FRAME_SAMPLES]
        begin_s = (segment.first_frame - context) / FRAME_RATE_HZ
        words = [word for line in self._said(segment) for word in _words(line, begin_s)]
        text = text_stream(words, context, self._bundle.tokenizer.encode)
        return np.concatenate([text[None], self._encode(pcm)])

    def _said(self, segment: Segment) -> list[Line]:
        side: Side
        lines = []
        for is_swapped, line in self._lines.get(segment.conversation, ()):
            side = "agent" if is_swapped == segment.is_swapped else "user"
            if line.side == side and line.start_s < segment.start_s:
                lines.append(line)
        return sorted(lines, key=lambda line: (line.start_s, line.end_s, line.text))

    def _encode(self, pcm: Pcm) -> Frames:
        if not len(pcm):
            return np.zeros((self._bundle.config.dep_q, 0), dtype=np.int64)
        return encode_channel(self._bundle.mimi.stream(), pcm).astype(np.int64)


def open_bundle(model: str, *, text_prompt: str = "", voice_prompt: str = "") -> Bundle:
    """Open a model folder, `hf://owner/name`, or the default agent for "".

    Raises:
        WeightsError: It cannot be read.
        ConfigError: It is not supported.
    """
    from duologue.agent import cache_folder, find_bundle
    from duologue.config import AgentConfig

    folder = find_bundle(model or None, cache_folder(AgentConfig()))
    return Bundle(Checkpoint.open(folder), text_prompt=text_prompt, voice_prompt=voice_prompt)


def _words(line: Line, begin_s: float) -> list[SpokenWord]:
    """Spread the words of a line over its time by their letters, in seconds from `begin_s`; those before it are cut."""
    words = line.text.split()
    ends = np.cumsum([len(word) + 1 for word in words]) / max(1, sum(len(word) + 1 for word in words))
    starts = line.start_s - begin_s + np.concatenate([[0.0], ends[:-1]]) * (line.end_s - line.start_s)
    # A time that is a whole number of frames but for a rounding error belongs to the later frame.
    starts = starts.round(6)
    return [
        SpokenWord(text=word, start_s=float(start), end_s=float(start))
        for word, start in zip(words, starts, strict=True)
        if start >= 0
    ]
