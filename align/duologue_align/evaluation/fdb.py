"""Full-Duplex-Bench v1's file layout: read its samples as items, write takes so that its own scripts can score them.

    ROOT/ID/input.wav, output.wav, output.json, <task>.json

`<task>.json` says what the sample tests: pause.json, turn_taking.json, interrupt.json; a sample with none of them is
one of backchannels. ROOT may also hold a folder per task. The scripts take every entry of ROOT for a sample and skip
samples of backchannels whose ID is no number, so what else we write lies above ROOT. Source: the repository of
Full-Duplex-Bench, v1 (arXiv 2503.04721).
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from duologue.audio.files import AudioFile, write_wav
from duologue.errors import AudioError, ConfigError
from duologue.metrics.activity import make_detector
from duologue.metrics.compat_fdb import JSD_BIN_S
from duologue.metrics.timeline import TICK_S
from duologue.replacing import replace_file
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.corpus.conversation import Line, Rejected
from duologue_align.evaluation.items import Item, with_lead
from duologue_align.evaluation.take import Take, spoken_spans
from duologue_align.evaluation.truth import backchannel_truth
from duologue_align.rewards.situation import Situation
from duologue_align.segments.segment import Axis
from duologue_align.sft.dialogues import SpokenWord

INPUT, OUTPUT, WORDS, TRANSCRIPTION = "input.wav", "output.wav", "output.json", "transcription.json"
INDEX, TRUTH = "index.json", "icc_gt_distribution.json"
TASKS: dict[Axis, str] = {
    "pause": "pause_handling",
    "turn": "smooth_turn_taking",
    "backchannel": "backchannel",
    "interruption": "user_interruption",
    "user_backchannel": "user_backchannel",
    "hold": "hold",
}
"""Folder of each axis; the first four are what the scripts' `--task` takes, the others are ours."""
_MARKERS: dict[str, Axis] = {"pause.json": "pause", "turn_taking.json": "turn", "interrupt.json": "interruption"}


def has_samples(folder: Path) -> bool:
    """Tell whether a folder is laid out like this."""
    return next(folder.glob(f"*/{INPUT}"), None) is not None or next(folder.glob(f"*/*/{INPUT}"), None) is not None


def read_samples(folder: Path) -> tuple[list[Item], list[Rejected]]:
    """Return the samples of a folder as items, and what could not be used."""
    found: list[Item] = []
    rejected: list[Rejected] = []
    for path in sorted([*folder.glob(f"*/{INPUT}"), *folder.glob(f"*/*/{INPUT}")]):
        name = path.parent.relative_to(folder).as_posix()
        try:
            found.append(_read_sample(path.parent, name))
        except (AudioError, ConfigError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            rejected.append(Rejected(name, " ".join(str(error).split())))
    return found, rejected


def sample_folders(items: Sequence[Item]) -> dict[str, Path]:
    """Return where each item lies below a session's folder, by its name.

    Samples of the benchmark keep their ID and the folder above it, if there is one. Others are numbered per task,
    from 1 in the order given.
    """
    folders: dict[str, Path] = {}
    numbers: Counter[Axis] = Counter()
    for item in items:
        if item.source is not None:
            folders[item.name] = Path(item.name) if "/" in item.name else Path(TASKS[item.axis], item.name)
            continue
        numbers[item.axis] += 1
        folders[item.name] = Path(TASKS[item.axis], str(numbers[item.axis]))
    return folders


def write_index(folder: Path, items: Sequence[Item]) -> None:
    """Write what the IDs of `sample_folders` stand for, and when the recorded humans gave backchannels.

    `index.json` is {task: {ID: id of the segment, or name of the sample}}. `icc_gt_distribution.json`, which
    eval_backchannel.py reads from its working folder, is {ID: histogram in bins of 0.2 s}; it is flat where the
    recorded human gave none, and it is not written for the benchmark's own samples, which have theirs.

    Raises:
        OSError: The folder cannot be written.
    """
    folders = sample_folders(items)
    index: dict[str, dict[str, str]] = {}
    truth: dict[str, list[float]] = {}
    for item in items:
        place = folders[item.name]
        index.setdefault(place.parent.as_posix(), {})[place.name] = item.segment or item.name
        if item.axis == "backchannel" and item.has_reference:
            found = backchannel_truth(item)
            bins = math.ceil(item.situation.duration_s / JSD_BIN_S)
            truth[place.name] = [1.0 / bins] * bins if found is None else found.tolist()
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())
    if truth:
        replace_file(folder / TRUTH, json.dumps(truth).encode())


def read_take(folder: Path, signature: str) -> Take | None:
    """Return the take that `write_take` left in a folder, or None if there is none under this signature."""
    try:
        own = json.loads((folder / WORDS).read_text(encoding="utf-8"))["duologue"]
        if own["signature"] != signature or not (folder / OUTPUT).is_file():
            return None
        words = tuple(SpokenWord(text, start_s, end_s) for text, start_s, end_s in own["words"])
        return Take(tuple((start_s, end_s) for start_s, end_s in own["spans_s"]), words)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_take(folder: Path, item: Item, take: Take, user: Pcm, agent: Pcm, signature: str) -> None:
    """Write a sample with what the agent made of it.

    Args:
        folder: Folder of the sample.
        item: What was played.
        take: What the agent did.
        user: The window's samples of the user.
        agent: Those of the agent.
        signature: Digest of what the take depends on; kept beside the words.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if item.source is not None:
        for path in sorted(item.source.iterdir()):
            if path.is_file() and path.name not in (OUTPUT, WORDS):
                shutil.copyfile(path, folder / path.name)
    else:
        write_wav(folder / INPUT, user)
        for name, content in _descriptions(item).items():
            replace_file(folder / name, json.dumps(content).encode())
    write_wav(folder / OUTPUT, agent)
    words = take.words or ()
    # The benchmark cuts the recording where the interruption ends before it listens for words.
    heard = [word for word in words if item.axis != "interruption" or word.start_s >= item.focus_s[1]]
    content = {
        "text": " ".join(word.text for word in heard),
        "chunks": [{"text": word.text, "timestamp": [word.start_s, word.end_s]} for word in heard],
        "duologue": {
            "signature": signature,
            "spans_s": take.spans_s,
            "words": [[word.text, word.start_s, word.end_s] for word in words],
        },
    }
    replace_file(folder / WORDS, json.dumps(content).encode())


def _descriptions(item: Item) -> dict[str, Any]:
    start_s, end_s = item.focus_s
    said = [line for line in item.lines if line.side == "user"]
    rows = [{"text": line.text, "timestamp": [max(0.0, line.start_s), line.end_s]} for line in said]
    found: dict[str, Any] = {TRANSCRIPTION: [{"speaker": 0, "item": rows}]}
    if item.axis == "pause":
        spans = spoken_spans(item.situation.user)
        pauses = [(before[1], after[0]) for before, after in pairwise(spans)]
        found["pause.json"] = [{"text": "[PAUSE]", "timestamp": list(pause)} for pause in pauses]
    elif item.axis == "turn":
        found["turn_taking.json"] = [{"text": "[TURN-TAKING]", "timestamp": [end_s, round(end_s + 0.4, 2)]}]
    elif item.axis == "interruption":
        context = {"context": item.user_words(before_focus=True), "interrupt": item.user_words()}
        found["interrupt.json"] = [{**context, "timestamp": [start_s, end_s]}]
    return found


def _read_sample(folder: Path, name: str) -> Item:
    axis: Axis = next((axis for marker, axis in _MARKERS.items() if (folder / marker).is_file()), "backchannel")
    pcm = _audio(folder / INPUT)
    detector = make_detector("speech")
    user = np.concatenate([detector.push(pcm), detector.finish()])
    sounding = np.flatnonzero(user)
    if not len(sounding):
        raise ConfigError("nobody speaks in input.wav")
    first_s, last_s = float(sounding[0]) * TICK_S, float(sounding[-1] + 1) * TICK_S
    lines = _lines(folder)
    focus_s = (first_s, last_s)
    if axis == "turn":
        end_s = float(_read(folder / "turn_taking.json")[0]["timestamp"][0])
        focus_s = (min(first_s, end_s - 0.1), end_s)
    elif axis == "interruption":
        row = _read(folder / "interrupt.json")[0]
        focus_s = (float(row["timestamp"][0]), float(row["timestamp"][1]))
        lines = (*_spoken(row.get("context"), 0.0, focus_s[0]), *_spoken(row.get("interrupt"), *focus_s))
    return Item(
        name=name,
        conversation=name,
        situation=Situation.from_spans(
            axis=axis,
            duration_s=len(pcm) / SAMPLE_RATE_HZ,
            user_spans_s=spoken_spans(user),
            reference_spans_s=(),
            focus_s=focus_s,
        ),
        has_reference=False,
        lines=lines,
        audio=lambda lead_s: with_lead(_audio(folder / INPUT), lead_s, 0.0),
        source=folder,
    )


def _audio(path: Path) -> Pcm:
    with AudioFile(path, channel=0) as file:
        pcm = file.read()
    return np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))


def _lines(folder: Path) -> tuple[Line, ...]:
    path = folder / TRANSCRIPTION
    if not path.is_file():
        return ()
    content = _read(path)
    # Words are grouped by speaker in some sets and come as one plain list in others.
    rows = [row for group in content for row in group.get("item", [group])]
    return tuple(Line("user", float(r["timestamp"][0]), float(r["timestamp"][1]), str(r["text"]).strip()) for r in rows)


def _spoken(text: str | None, start_s: float, end_s: float) -> Sequence[Line]:
    return [Line("user", start_s, end_s, text)] if text else []


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
