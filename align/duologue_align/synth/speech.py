"""Speak sentences with hibari-tts: warped voices, planned breaks, times of words and phones from its durations.

The network predicts a spectrum per 12.5 ms frame (harmonic level and phase, noise level, free level and phase) and F0.
A voice is a warp of those before the inverse transform: formants by resampling the frequency axis, pitch by scaling F0.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.errors import MissingExtraError
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.synth.pieces import FLOOR_DB, Phone, Piece, Sentence, Word, cut_piece, levels_db
from duologue_align.synth.voices import Voice

F32 = npt.NDArray[np.float32]

FRAME_S = 0.0125
"""Hop of the spectral frames."""
DURATION_FRAMES = 2
"""Spectral frames per unit of predicted duration."""
LEVEL_DB = -20.0
"""Every sentence is scaled to this RMS over its sounding ticks, dB relative to full scale."""
CACHE_SAMPLES = 60_000_000
"""Most samples kept by the cache: 120 MB."""
_PUNCTUATION = frozenset(';:,.!?—…"“”()')
_FINAL = ".!?"
_STRESS = "ˈˌ"


class Synthesiser:
    """The one voice of hibari-tts on one core, warped; sentences marked for reuse are cached."""

    def __init__(self, *, cached_voice: str | None = "agent") -> None:
        self._engine, self._session, self._normalize = _open_engine()
        self._letters = {number: letter for letter, number in self._engine.vocab.items()}
        self._cached_voice = cached_voice
        self._cache: OrderedDict[tuple[Voice, Sentence], list[Piece]] = OrderedDict()
        self._cached_samples = 0

    def speak(self, voice: Voice, sentence: Sentence) -> list[Piece]:
        """Return one piece per stretch between breaks; the same arguments give the same samples."""
        key = (voice, sentence)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        pieces = self._synthesise(voice, sentence)
        if voice.name == self._cached_voice:
            self._keep(key, pieces)
        return pieces

    def _keep(self, key: tuple[Voice, Sentence], pieces: list[Piece]) -> None:
        self._cache[key] = pieces
        self._cached_samples += sum(len(piece.pcm) for piece in pieces)
        while self._cached_samples > CACHE_SAMPLES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_samples -= sum(len(piece.pcm) for piece in dropped)

    def _synthesise(self, voice: Voice, sentence: Sentence) -> list[Piece]:
        sounds = self._sounds(sentence)
        ids, ranges = self._ids(sentence, sounds)
        if len(ids) < 3:
            return []
        feeds = {"ids": np.array([ids], np.int64), "speed": np.array([voice.pace], np.float32)}
        *spectra, durations = self._session.run(None, feeds)
        seed = hashlib.sha256(f"{voice.name}|{' '.join(sentence.words)}".encode()).digest()
        pcm = _vocode(voice, [part[0] for part in spectra], np.random.default_rng(list(seed[:8])))
        edges_s = np.concatenate([[0], np.cumsum(durations.reshape(-1))]) * DURATION_FRAMES * FRAME_S
        sounds_at = time_phones([self._letters.get(number, "") for number in ids], edges_s.tolist())
        phones = [[sounds_at[at] for at in range(begin, end) if at in sounds_at] for begin, end in ranges]
        words = [
            Word(text, spoken[0].start_s, spoken[-1].end_s) if spoken else Word(text, edges_s[begin], edges_s[begin])
            for text, (begin, _), spoken in zip(sentence.words, ranges, phones, strict=True)
        ]
        return _cut_at_breaks(pcm, words, phones, sentence.breaks)

    def _sounds(self, sentence: Sentence) -> list[str]:
        """Return the phonemes of every word, without punctuation."""
        grapheme = self._engine.g2p
        text = " ".join(sentence.words)
        sounds = [""]
        for token in grapheme.phonemize_tokens(grapheme.tokenize(self._normalize(text))):
            sounds[-1] += "".join(sound for sound in token.phonemes or "" if sound not in _PUNCTUATION)
            if token.whitespace:
                sounds.append("")
        if len(sounds) == len(sentence.words):
            return sounds
        # Normalisation joined or split words; word by word the readings lose only their context.
        return [
            "".join(sound for sound in grapheme(word) if sound not in _PUNCTUATION).replace(" ", "")
            for word in sentence.words
        ]

    def _ids(self, sentence: Sentence, sounds: list[str]) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the network's input and for each word its range in it; a comma stands at every planned break."""
        vocabulary = self._engine.vocab
        ids, ranges = [0], []
        for index, (written, sound) in enumerate(zip(sentence.words, sounds, strict=True)):
            begin = len(ids)
            ids += [vocabulary[character] for character in sound.strip() if character in vocabulary]
            ranges.append((begin, len(ids)))
            if index == len(sentence.words) - 1:
                ids.append(vocabulary[written[-1] if written[-1] in _FINAL else "."])
            else:
                ids += [vocabulary[","]] * (index in sentence.breaks) + [vocabulary[" "]]
        return [*ids, 0], ranges


def time_phones(letters: Sequence[str], edges_s: Sequence[float]) -> dict[int, Phone]:
    """Tell when the phones of a sentence sound.

    Letter i sounds between edges i - 1 and i: the durations run one letter ahead of the sound. Words run into each
    other: the first half of a space between them is the end of the phone before it, the second half the start of the
    next. A stress mark is the start of the phone that it precedes. Source: energy above 4.5 kHz in and beside "s", and
    where the silences of commas and full stops fall, in 120 sentences.

    Args:
        letters: The network's input, "" for padding.
        edges_s: Where its durations begin and end, one more than there are letters.

    Returns:
        Phones by their place in `letters`.
    """
    phones: dict[int, Phone] = {}
    begin_s = edges_s[0]
    for at, letter in enumerate(letters[1:], start=1):
        end_s = edges_s[at]
        if letter and letter in _STRESS:
            continue
        if letter == " ":
            end_s = (begin_s + end_s) / 2
            if at - 1 in phones:
                phones[at - 1] = replace(phones[at - 1], end_s=end_s)
        elif letter.isalpha():
            phones[at] = Phone(letter, begin_s, end_s)
        begin_s = end_s
    return phones


def _open_engine() -> tuple[Any, Any, Any]:
    try:
        onnx: Any = import_module("onnx")
        onnxruntime: Any = import_module("onnxruntime")
        hibari: Any = import_module("hibari")
        normalize = import_module("hibari.g2p.normalize").normalize
    except ImportError as error:
        raise MissingExtraError(str(error.name or "hibari-tts"), "synth") from error
    engine = hibari.Hibari()
    model = onnx.load(engine.model_path)
    # The durations are internal to the graph: what its cumulative sum adds up.
    durations = next(node.input[0] for node in model.graph.node if node.op_type == "CumSum")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(durations))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return engine, session, normalize


def _vocode(voice: Voice, spectra: list[F32], rng: np.random.Generator) -> F32:
    dsp: Any = import_module("hibari.dsp")
    harmonic, angle, noise, free, phase, pitch = spectra
    if voice.formants != 1.0:
        bins = np.minimum(np.arange(harmonic.shape[0]) / voice.formants, harmonic.shape[0] - 1.0)
        below = np.minimum(bins.astype(np.intp), harmonic.shape[0] - 2)
        weight = (bins - below).astype(np.float32)[:, None]
        harmonic, noise, free = (
            part[below] * (1 - weight) + part[below + 1] * weight for part in (harmonic, noise, free)
        )
        # Phases do not interpolate across a wrap; the nearest bin's is taken.
        nearest = np.rint(bins).astype(np.intp)
        angle, phase = angle[nearest], phase[nearest]
    tilt = (voice.tilt_db * np.log(10) / 20 * np.linspace(0, 1, harmonic.shape[0], dtype=np.float32))[:, None]
    breath = np.float32(voice.breath_db * np.log(10) / 20)
    pcm = dsp.synth(
        harmonic + tilt, angle, noise + tilt + breath, free + tilt, phase, _bend(pitch, voice.pitch, voice.range), rng
    )
    return np.asarray(pcm, dtype=np.float32)


def _bend(pitch_hz: F32, factor: float, span: float) -> F32:
    voiced = pitch_hz > 40.0
    if not voiced.any():
        return pitch_hz
    mean = np.exp(np.mean(np.log(pitch_hz[voiced])))
    bent = np.where(voiced, factor * mean * (np.maximum(pitch_hz, 1.0) / mean) ** span, 0.0)
    return bent.astype(np.float32)


def _cut_at_breaks(pcm: F32, words: list[Word], phones: list[list[Phone]], breaks: frozenset[int]) -> list[Piece]:
    levels = levels_db(pcm)
    active = levels > levels.max() + FLOOR_DB
    loud = float(np.mean(10 ** (levels[active] / 10)))
    pcm = pcm * np.float32(np.sqrt(10 ** (LEVEL_DB / 10) / max(loud, 1e-9)))
    ticks_per_s = SAMPLE_RATE_HZ // 240
    cuts, edges = [0], [0]
    for index in sorted(breaks):
        first = max(edges[-1] + 1, round((words[index].end_s - 0.05) * ticks_per_s))
        last = max(first + 1, min(len(levels), round((words[index + 1].start_s + 0.05) * ticks_per_s)))
        edges.append(first + int(np.argmin(levels[first:last])))
        cuts.append(index + 1)
    edges.append(len(levels))
    cuts.append(len(words))
    parts = [slice(*ends) for ends in pairwise(cuts)]
    pieces = (
        cut_piece(pcm, active, words[part], list(chain(*phones[part])), *ends)
        for part, ends in zip(parts, pairwise(edges), strict=True)
    )
    return [piece for piece in pieces if piece is not None]
