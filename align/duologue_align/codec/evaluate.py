"""Measure a codec on held-out speech: is it still understood, still speech where it was, still pleasant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.audio.files import write_wav
from duologue.codec import Mimi, MimiConfig
from duologue.errors import ConfigError
from duologue.metrics.activity import make_detector
from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.codec.listeners import QualityJudge, Recogniser
from duologue_align.codec.phones import SPEAKERS
from duologue_align.codec.recordings import Track, list_tracks
from duologue_align.codec.weights import CONFIG_NAME, WEIGHTS_NAME
from duologue_align.codec.word_errors import spoken_words, word_errors
from duologue_align.statistics import bootstrap, ratio

_LONGEST_S = 24.0
_PAUSE_S = 0.6
_MARGIN_S = 0.25
_MAX_RECORDING_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What to measure.

    Attributes:
        channel: The only channel to read; None reads all.
        seconds: Most audio of each set.
        with_asr: Whether to transcribe; needs the words of the recordings, or compares with the original's transcript.
        with_quality: Whether to run DNSMOS.
        save: Where to write decoded recordings; None writes none.
        threads: Cores of the networks that listen.
    """

    channel: int | None = None
    seconds: float = 600.0
    with_asr: bool = True
    with_quality: bool = True
    save: Path | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech.

    Attributes:
        begin: First sample.
        end: Behind the last sample.
        words: What is said, if known.
    """

    begin: int
    end: int
    words: tuple[str, ...] | None


def evaluate_codec(
    codec: str | Path, sets: Mapping[str, str | Path], options: EvaluationOptions | None = None
) -> dict[str, Any]:
    """Code and decode recordings with the native streaming codec and compare.

    Args:
        codec: Folder with mimi.safetensors and mimi_config.json.
        sets: Data sources by name, as for training.
        options: What to measure.

    Returns:
        Ready for JSON: for each set seconds, wer_original, wer_decoded and wer_increase (against the words of the
        alignment files; the original's transcript stands in where there are none), vad_agreement (share of 10 ms
        ticks), dnsmos_original and dnsmos_decoded, and under ci95 the 95 % intervals of those over recordings; over
        all sets codebook_use (share of entries chosen, per codebook)
        and perplexity.

    Raises:
        ConfigError: A source or the codec's configuration cannot be read.
        WeightsError: The weights do not fit.
        MissingExtraError: A package that listens is not installed.
    """
    options = options or EvaluationOptions()
    folder = Path(codec)
    mimi = Mimi.load(folder / WEIGHTS_NAME, config=MimiConfig.from_file(folder / CONFIG_NAME), num_codebooks=8)
    recogniser = Recogniser(threads=options.threads) if options.with_asr else None
    judge = QualityJudge(threads=options.threads) if options.with_quality else None
    counts = np.zeros((mimi.num_codebooks, mimi.cardinality), dtype=np.int64)
    results = {}
    for name, source in sets.items():
        tally = _Tally(recogniser, judge)
        for track, pcm in _recordings(source, options):
            decoded = _through(mimi, pcm, counts)
            tally.add(track, pcm, decoded)
            if options.save is not None:
                path = options.save / name
                path.mkdir(parents=True, exist_ok=True)
                write_wav(path / f"{track.path.stem}_{track.channel}.wav", np.clip(decoded, -1, 1))
        results[name] = tally.summary()
    return {"codec": str(folder), "sets": results, **_codebook_use(counts)}


def table(result: Mapping[str, Any]) -> str:
    """Return the evaluation as lines of text."""
    columns = ("seconds", "wer_original", "wer_decoded", "vad_agreement", "dnsmos_original", "dnsmos_decoded")
    lines = [f"{'set':<14}" + "".join(f"{column:>17}" for column in columns)]
    for name, row in result["sets"].items():
        cells = ("-" if row[column] is None else f"{row[column]:.3f}" for column in columns)
        lines.append(f"{name:<14}" + "".join(f"{cell:>17}" for cell in cells))
    lines.append("codebook use  " + " ".join(f"{share:.2f}" for share in result["codebook_use"]))
    lines.append("perplexity    " + " ".join(f"{value:.0f}" for value in result["perplexity"]))
    return "\n".join(lines)


@dataclass(slots=True)
class _Part:
    """What one recording adds to the figures of its set."""

    samples: int
    ticks: int
    agreeing: int
    words: int = 0
    errors_original: int = 0
    errors_decoded: int = 0
    scores: list[tuple[float, float]] = field(default_factory=list)


class _Tally:
    """Figures of one set, with intervals over its recordings."""

    def __init__(self, recogniser: Recogniser | None, judge: QualityJudge | None) -> None:
        self.recogniser, self.judge = recogniser, judge
        self.parts: list[_Part] = []

    def add(self, track: Track, pcm: Pcm, decoded: Pcm) -> None:
        heard, heard_after = _activity(pcm), _activity(decoded)
        part = _Part(len(pcm), len(heard), int((heard == heard_after).sum()))
        self.parts.append(part)
        if self.recogniser is None and self.judge is None:
            return
        for utterance in _utterances(track, heard, len(pcm)):
            spoken = tuple(x[utterance.begin : utterance.end] for x in (pcm, decoded))
            self._listen(part, utterance, *spoken)

    def _listen(self, part: _Part, utterance: Utterance, original: Pcm, decoded: Pcm) -> None:
        if self.judge is not None:
            part.scores.append((self.judge.score(original), self.judge.score(decoded)))
        if self.recogniser is None:
            return
        before, after = (spoken_words(self.recogniser.transcribe(pcm)) for pcm in (original, decoded))
        words = before if utterance.words is None else spoken_words(" ".join(utterance.words))
        part.words += len(words)
        part.errors_original += word_errors(words, before)
        part.errors_decoded += word_errors(words, after)

    def summary(self) -> dict[str, Any]:
        parts = self.parts
        scores = [[(sum(pair[i] for pair in part.scores), len(part.scores)) for part in parts] for i in (0, 1)]
        figures: dict[str, Sequence[tuple[float, float]]] = {
            "wer_original": [(part.errors_original, part.words) for part in parts],
            "wer_decoded": [(part.errors_decoded, part.words) for part in parts],
            "wer_increase": [(part.errors_decoded - part.errors_original, part.words) for part in parts],
            "vad_agreement": [(part.agreeing, part.ticks) for part in parts],
            "dnsmos_original": scores[0],
            "dnsmos_decoded": scores[1],
        }
        found = {name: bootstrap(figure, ratio) for name, figure in figures.items()}
        return {
            "seconds": sum(part.samples for part in parts) / SAMPLE_RATE_HZ,
            "recordings": len(parts),
            "words": sum(part.words for part in parts),
            **{name: interval.value for name, interval in found.items()},
            "ci95": {name: [interval.low, interval.high] for name, interval in found.items()},
        }


def _recordings(source: str | Path, options: EvaluationOptions) -> Iterator[tuple[Track, Pcm]]:
    left_s = options.seconds
    for track in list_tracks([source], options.channel):
        if left_s <= 0:
            return
        seconds = min(track.duration_s, left_s, _MAX_RECORDING_S)
        left_s -= seconds
        yield track, track.read(0.0, int(seconds * SAMPLE_RATE_HZ))


def _through(mimi: Mimi, pcm: Pcm, counts: npt.NDArray[np.int64]) -> Pcm:
    """Return what a stream decodes, sample for sample with what it heard; count its codes."""
    stream, size = mimi.stream(), mimi.frame_samples
    padded = np.pad(pcm, (0, -len(pcm) % size))
    books = np.arange(mimi.num_codebooks)
    out = np.empty_like(padded)
    for begin in range(0, len(padded), size):
        codes = stream.encode_step(np.ascontiguousarray(padded[begin : begin + size]))
        counts[books, codes] += 1
        out[begin : begin + size] = stream.decode_step(codes)
    return out[: len(pcm)]


def _activity(pcm: Pcm) -> npt.NDArray[np.bool_]:
    detector = make_detector("speech")
    return np.concatenate([detector.push(pcm), detector.finish()])


def _utterances(track: Track, heard: npt.NDArray[np.bool_], samples: int) -> list[Utterance]:
    """Cut a recording at its longer pauses: between words where they are known, else where no speech is heard."""
    words = _words(track)
    if words is None:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], heard.astype(np.int8), [0]])))
        spans = [(b / 100, e / 100, "") for b, e in edges.reshape(-1, 2).tolist()]
    else:
        spans = [word for word in words if word[1] <= samples / SAMPLE_RATE_HZ]
    groups: list[list[tuple[float, float, str]]] = []
    for span in spans:
        if groups and span[0] - groups[-1][-1][1] < _PAUSE_S and span[1] - groups[-1][0][0] < _LONGEST_S:
            groups[-1].append(span)
        else:
            groups.append([span])
    return [
        Utterance(
            max(0, round((group[0][0] - _MARGIN_S) * SAMPLE_RATE_HZ)),
            min(samples, round(min(group[-1][1] + _MARGIN_S, group[0][0] + 29.0) * SAMPLE_RATE_HZ)),
            None if words is None else tuple(word for _, _, word in group),
        )
        for group in groups
    ]


def _words(track: Track) -> list[tuple[float, float, str]] | None:
    """Return the words of a stream in time order, or None if nobody wrote any."""
    path = track.path.with_suffix(".json")
    if not path.is_file() or track.channel >= len(SPEAKERS):
        return None
    try:
        rows: Sequence[Any] = json.loads(path.read_text(encoding="utf-8")).get("alignments", [])
        found = [
            (float(span[0]), float(span[1]), str(word)) for word, span, who in rows if who == SPEAKERS[track.channel]
        ]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: alignments must be [[word, [start_s, end_s], speaker], ...] ({error})") from error
    return sorted(found) or None


def _codebook_use(counts: npt.NDArray[np.int64]) -> dict[str, list[float]]:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    return {
        "codebook_use": np.round((counts > 0).mean(axis=1), 4).tolist(),
        "perplexity": np.round(np.exp(entropy), 1).tolist(),
    }
