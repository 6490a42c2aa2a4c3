"""Hear what rollouts did: decode the agent's codes, find speech by the detector that reports use, read the words."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duologue.codec import Mimi
from duologue.metrics.activity import Ticks, make_detector
from duologue.metrics.timeline import TICKS_PER_FRAME
from duologue.model.tokenizer import Tokenizer
from duologue.types import FRAME_RATE_HZ, FRAME_SAMPLES, Pcm
from duologue_align.evaluation.ears import Ears
from duologue_align.evaluation.take import place_words, spoken_spans
from duologue_align.rl.rollout import Rollouts
from duologue_align.rl.scenes import Scene

WARM_FRAMES = 25
"""Frames decoded before a window, so that codec and detector have settled when it begins; 2 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the agent did in the window of a segment.

    Attributes:
        activity: Its speech in ticks of 10 ms, shape [8 frames].
        words: Those that sound, each with a blank before it and the second of the window where it begins, in order.
        pcm: Its voice, float32 at 24 kHz, shape [1920 frames].
    """

    activity: Ticks
    words: tuple[tuple[float, str], ...]
    pcm: Pcm

    @property
    def text(self) -> str:
        """All words."""
        return said(self.words, 0.0)


class Listener:
    """Hears rollouts with a codec, a tokenizer and a detector."""

    def __init__(
        self,
        mimi: Mimi,
        tokenizer: Tokenizer,
        *,
        detector: str = "level",
        ears: Ears | None = None,
        threads: int = 1,
    ) -> None:
        """Prepare.

        Args:
            mimi: Codec of the model.
            tokenizer: Its tokenizer.
            detector: "level", as reports use for the agent, or "speech".
            ears: Recogniser that tells the words; None reads the inner monologue.
            threads: Rollouts decoded at once.
        """
        self._mimi, self._tokenizer, self._detector, self._ears = mimi, tokenizer, detector, ears
        self._threads = ThreadPoolExecutor(threads)

    def hear(self, rollouts: Rollouts, scenes: Sequence[Scene]) -> list[Heard]:
        """Return what each row did; `scenes` are those of the rows."""
        frames = rollouts.heard.cpu().numpy()
        return list(self._threads.map(self._hear, frames, scenes))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _hear(self, heard: npt.NDArray[np.int64], scene: Scene) -> Heard:
        window = range(scene.first, scene.frames)
        begin = max(0, scene.first - WARM_FRAMES)
        pcm = self._decode(heard[1:, begin : scene.frames])
        detector = make_detector(self._detector)
        ticks = np.concatenate([detector.push(pcm), detector.finish()])
        skipped = scene.first - begin
        voice = pcm[skipped * FRAME_SAMPLES :]
        if self._ears is None:
            steps = enumerate(window)
            pieces = [(index / FRAME_RATE_HZ, self._tokenizer.piece(int(heard[0, n]))) for index, n in steps]
        else:
            pieces = self._ears.transcript(voice)
        activity = ticks[skipped * TICKS_PER_FRAME :]
        placed = place_words([(at_s, piece) for at_s, piece in pieces if piece], spoken_spans(activity))
        return Heard(
            activity=activity,
            words=tuple((word.start_s, f" {word.text}") for word in placed),
            pcm=voice,
        )

    def _decode(self, codes: npt.NDArray[np.int64]) -> Pcm:
        """Decode a row's codes, shape [dep_q, T]; frames that never came are silence."""
        stream, out = self._mimi.stream(), np.zeros((codes.shape[1], FRAME_SAMPLES), dtype=np.float32)
        columns = np.ascontiguousarray(codes.T, dtype=np.int32)
        for index, column in enumerate(columns):
            if column[0] >= 0:
                out[index] = stream.decode_step(column)
        return out.reshape(-1)


def said(words: Sequence[tuple[float, str]], since_s: float) -> str:
    """Return the words from a second of the window on, as one text."""
    return " ".join("".join(piece for at_s, piece in words if at_s >= since_s).split())
