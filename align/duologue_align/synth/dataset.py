"""Write a data set of dialogues in moshi-finetune's format; stop and go on at any time.

    OUT/dataset.json             settings, shares, licences
    OUT/data.jsonl               {"path", "duration"} per dialogue, paths relative to OUT
    OUT/data_stereo/000000.wav   24 kHz, 16 bit, left = agent, right = user
    OUT/data_stereo/000000.json  {"alignments": [[word, [start_s, end_s], "SPEAKER_MAIN"], ...],
                                  "phones": [[name, [start_s, end_s], "SPEAKER_MAIN" or "SPEAKER_USER"], ...]}
    OUT/facts/000000.json        ground truth: turns, events, activity spans, voices, behaviour, augmentation

Dialogue i depends on (seed, split, i) alone. Its facts are written last, so a dialogue with facts is complete.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from duologue.errors import ConfigError, MissingExtraError
from duologue.replacing import replace_file, replacing
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.synth.dialogue import FAULTY, SPLITS, WELL_BEHAVED_SHARE, duration_s, make_dialogue
from duologue_align.synth.pieces import Speaker
from duologue_align.synth.voices import users_of

_PACKAGES = {
    "hibari": "hibari-tts",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "chitchat_dataset": "chitchat-dataset",
}

FORMAT = 3
"""Version of what a seed means; it changes when the same seed gives other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which data set to write.

    Attributes:
        hours: Hours of dialogue, > 0; the last dialogue completes them.
        seed: >= 0.
        split: "train", or "test" for unseen texts and unseen user voices.
        audio: "wav" or "flac" (about half the size).
        is_clean: Whether the user's channel stays as synthesised, without room, noise, telephone and leakage.
    """

    hours: float
    seed: int = 0
    split: str = "train"
    audio: str = "wav"
    is_clean: bool = False

    def __post_init__(self) -> None:
        if not self.hours > 0:
            raise ConfigError(f"hours is {self.hours}; give a number above 0")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; give 0 or more")
        if self.split not in SPLITS:
            raise ConfigError(f"split is {self.split!r}; give one of {', '.join(SPLITS)}")
        if self.audio not in ("wav", "flac"):
            raise ConfigError(f"audio is {self.audio!r}; give wav or flac")

    @property
    def dialogues(self) -> int:
        """Number of dialogues that make up the hours."""
        left_s, number = self.hours * 3600, 0
        while left_s > 0:
            left_s -= duration_s(self.seed, self.split, number)
            number += 1
        return number


def write_dataset(
    out: Path, config: DatasetConfig, *, jobs: int = 1, speaker: Speaker | None = None, show_progress: bool = True
) -> list[dict[str, Any]]:
    """Write the dialogues that are not there yet, then the manifest; return the manifest's rows.

    Args:
        out: Folder to create or to continue.
        config: What to write.
        jobs: Processes; more than 1 needs the default speaker.
        speaker: Who speaks, for tests; None is the synthesiser.
        show_progress: Whether to draw a progress bar.

    Raises:
        ConfigError: The folder holds another data set or cannot be written, or jobs is below 1.
        MissingExtraError: The synthesiser or the text source is not installed.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; give 1 or more")
    if speaker is None:
        _require_packages()
    _claim(out, config)
    numbers = list(range(config.dialogues))
    missing = [number for number in numbers if not is_complete(out, number, config.audio)]
    done_s = sum(duration_s(config.seed, config.split, number) for number in numbers if number not in set(missing))
    total_s = sum(duration_s(config.seed, config.split, number) for number in numbers)
    with tqdm(total=round(total_s / 60), initial=round(done_s / 60), unit="min", disable=not show_progress) as bar:
        shown_s = done_s
        try:
            for number in _write_all(out, config, missing, jobs, speaker):
                shown_s += duration_s(config.seed, config.split, number)
                bar.update(round(shown_s / 60) - bar.n)
        finally:
            rows = _write_manifest(out, config, numbers)
    return rows


def is_complete(out: Path, number: int, audio: str) -> bool:
    """Tell whether a dialogue is there with all its files."""
    return all(path.is_file() for path in paths_of(out, number, audio))


def paths_of(out: Path, number: int, audio: str) -> tuple[Path, Path, Path]:
    """Return where the audio, the alignments and the facts of a dialogue are."""
    stem = f"{number:06d}"
    return (
        out / "data_stereo" / f"{stem}.{audio}",
        out / "data_stereo" / f"{stem}.json",
        out / "facts" / f"{stem}.json",
    )


def read_facts(out: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the facts of the complete dialogues of a data set, in order.

    Raises:
        ConfigError: There is no data set in the folder.
    """
    files = sorted((out / "facts").glob("*.json"))
    if not files:
        raise ConfigError(f"{out} holds no dialogues; write some with: duologue-align synth --out {out} --hours 0.1")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files[:limit]]


def _write_all(
    out: Path, config: DatasetConfig, missing: list[int], jobs: int, speaker: Speaker | None
) -> Iterator[int]:
    if jobs == 1 or len(missing) <= 1:
        for number in missing:
            yield _write_one(out, config, number, speaker)
        return
    assert speaker is None, "a stand-in speaker lives in one process"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    waiting = iter(missing)
    # An interrupt is the parent's to handle: the workers finish what they hold.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=signal.signal, initargs=quiet) as pool:
        # A few at a time, so that an interrupt does not leave a long queue behind.
        running = [pool.submit(_write_one, out, config, number, None) for number in islice(waiting, 2 * jobs)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(_write_one, out, config, number, None) for number in islice(waiting, 1)]


def _require_packages() -> None:
    """Refuse at once what would otherwise fail inside a worker."""
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "synth")


_speaker: Speaker | None = None


def _default_speaker() -> Speaker:
    global _speaker
    if _speaker is None:
        from duologue_align.synth.speech import Synthesiser

        _speaker = Synthesiser()
    return _speaker


def _write_one(out: Path, config: DatasetConfig, number: int, speaker: Speaker | None) -> int:
    dialogue = make_dialogue(config.seed, config.split, number, speaker or _default_speaker(), is_clean=config.is_clean)
    audio, alignments, facts = paths_of(out, number, config.audio)
    with replacing(audio) as partial:
        soundfile.write(partial, dialogue.stereo, SAMPLE_RATE_HZ, subtype="PCM_16", format=config.audio.upper())
    _write_json(alignments, dialogue.alignments)
    _write_json(facts, dialogue.facts)
    return number


def _claim(out: Path, config: DatasetConfig) -> None:
    """Create the folder, or check that it holds this same data set (the hours may grow)."""
    settings = {key: value for key, value in asdict(config).items() if key != "hours"}
    card = {
        "format": FORMAT,
        **settings,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "channels": ["agent", "user"],
        "well_behaved_share": WELL_BEHAVED_SHARE,
        "faulty": asdict(FAULTY),
        "user_voices": [voice.name for voice in users_of(config.split)],
        "sources": {
            "text": "chitchat-dataset 0.9 (MIT) for the user; the repertoire of duologue_align for the agent",
            "voice": "hibari-tts (Apache-2.0), warped",
            "timing": "quantiles of Switchboard-1 (timing.json)",
        },
    }
    file = out / "dataset.json"
    try:
        if file.is_file():
            there = json.loads(file.read_text(encoding="utf-8"))
            # Data sets from before a choice existed made none.
            differing = [key for key in ("format", *settings) if there.get(key, False) != card[key]]
            if differing:
                found = ", ".join(f"{key} {there.get(key)!r} (now {card[key]!r})" for key in differing)
                raise ConfigError(f"{out} holds another data set: {found}; give another folder with --out")
            return
        for folder in ("data_stereo", "facts"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        _write_json(file, card)
    except OSError as error:
        raise ConfigError(f"{out}: cannot write there ({error.strerror}); give another folder with --out") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file} is no JSON ({error}); remove the folder or give another with --out") from error


def _write_manifest(out: Path, config: DatasetConfig, numbers: list[int]) -> list[dict[str, Any]]:
    rows = [
        {
            "path": paths_of(Path(), number, config.audio)[0].as_posix(),
            "duration": duration_s(config.seed, config.split, number),
        }
        for number in numbers
        if is_complete(out, number, config.audio)
    ]
    replace_file(out / "data.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


def _write_json(path: Path, content: dict[str, Any]) -> None:
    replace_file(path, json.dumps(content, indent=1 if path.name == "dataset.json" else None).encode())
