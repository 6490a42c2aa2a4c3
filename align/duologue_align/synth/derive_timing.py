"""Derive the shipped table `timing.json` from who-speaks-when recordings of human telephone conversations.

Run: python -m duologue_align.synth.derive_timing human_turn_timing.npz OUT.json

The input holds one row per IPU (silences <= 0.2 s bridged): conversation, channel, start_s, end_s, is_backchannel
(1, 0, or -1 where nobody annotated the conversation). Only quantiles and rates leave this file.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from duologue.errors import ConfigError

GRID = tuple(round(step / 50, 2) for step in range(51))
"""Shares of the quantiles in the table: every 2 %, the outermost clipped to 0.5 and 99.5 %."""

SHORT_S = 1.0
"""An interruption lasts longer than this, and the interrupted side stays silent at least this long after it yields."""


@dataclass(frozen=True, slots=True, order=True)
class Ipu:
    """One inter-pausal unit: `channel` speaks in [start_s, end_s)."""

    start_s: float
    end_s: float
    channel: int
    is_backchannel: bool


@dataclass(slots=True)
class Samples:
    """Raw values behind the table, by name, seconds or per minute."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, value: float) -> None:
        """Append one value."""
        self.values[name].append(value)


def read_conversations(path: Path) -> Iterator[list[Ipu]]:
    """Yield the annotated conversations as IPUs in order of their start.

    Raises:
        ConfigError: The file lacks one of the arrays.
    """
    with np.load(path) as arrays:
        try:
            columns = [arrays[name] for name in ("conversation", "channel", "start_s", "end_s", "is_backchannel")]
        except KeyError as error:
            raise ConfigError(f"{path}: {error}; expected the arrays of human_turn_timing.npz") from error
    conversation, channel, start_s, end_s, is_backchannel = columns
    for rows in np.split(np.arange(len(conversation)), np.flatnonzero(np.diff(conversation)) + 1):
        if np.all(is_backchannel[rows] >= 0):
            yield sorted(
                Ipu(float(start_s[row]), float(end_s[row]), int(channel[row]), bool(is_backchannel[row] == 1))
                for row in rows
            )


def collect(conversation: Sequence[Ipu], samples: Samples) -> None:
    """Add every figure of one conversation to the samples."""
    talk = [ipu for ipu in conversation if not ipu.is_backchannel]
    for ipu in talk:
        samples.add("ipu_s", ipu.end_s - ipu.start_s)
    _collect_transitions(talk, samples)
    for channel in (0, 1):
        _collect_backchannels(conversation, channel, samples)


def _collect_transitions(talk: Sequence[Ipu], samples: Samples) -> None:
    turn_ipus, turn_start_s = 1, talk[0].start_s if talk else 0.0
    for index, (before, after) in enumerate(pairwise(talk)):
        silence_s = after.start_s - before.end_s
        if after.channel == before.channel:
            samples.add("pause_s", silence_s)
            turn_ipus += 1
            continue
        if after.end_s <= before.end_s:
            continue
        samples.add("turn_fto_s", silence_s)
        samples.add("turn_ipus", turn_ipus)
        if silence_s < 0 and after.end_s - after.start_s > SHORT_S:
            resumed = (later.start_s for later in talk[index + 2 :] if later.channel == before.channel)
            if next(resumed, np.inf) - before.end_s > SHORT_S:
                samples.add("yield_s", -silence_s)
                samples.add("interruption_depth_s", after.start_s - turn_start_s)
        turn_ipus, turn_start_s = 1, after.start_s


def _collect_backchannels(conversation: Sequence[Ipu], channel: int, samples: Samples) -> None:
    own = [ipu for ipu in conversation if ipu.channel == channel and ipu.is_backchannel]
    other = [ipu for ipu in conversation if ipu.channel != channel and not ipu.is_backchannel]
    if not other:
        return
    speech_min = sum(ipu.end_s - ipu.start_s for ipu in other) / 60
    if speech_min >= 1.0:
        samples.add("backchannels_per_speech_min", len(own) / speech_min)
    ends_s = np.array([ipu.end_s for ipu in other])
    for ipu in own:
        offsets_s = ipu.start_s - ends_s
        offset_s = float(offsets_s[np.argmin(np.abs(offsets_s))])
        if abs(offset_s) <= 2.0:
            samples.add("backchannel_offset_s", offset_s)
        samples.add("backchannel_s", ipu.end_s - ipu.start_s)


def summarise(samples: Samples) -> dict[str, object]:
    """Return the table: for each name the count and the quantiles on `GRID`, rounded to 1 ms."""
    shares = np.clip(np.array(GRID), 0.005, 0.995)
    table: dict[str, object] = {"quantile_shares": list(GRID)}
    for name, values in sorted(samples.values.items()):
        quantiles = np.quantile(np.array(values), shares)
        table[name] = {"count": len(values), "quantiles": [round(float(value), 3) for value in quantiles]}
    return table


def main(arguments: Sequence[str]) -> None:
    """Read the recordings named first, write the table named second."""
    if len(arguments) != 2:
        raise ConfigError("usage: python -m duologue_align.synth.derive_timing human_turn_timing.npz OUT.json")
    samples, conversations = Samples(), 0
    for conversation in read_conversations(Path(arguments[0])):
        collect(conversation, samples)
        conversations += 1
    source = (
        f"Switchboard-1 MS98 corrected word alignments and SwDA acts, {conversations} annotated conversations; "
        "IPUs bridge silences up to 0.2 s; see duologue_align.synth.derive_timing for each rule"
    )
    table = {"source": source, **summarise(samples)}
    text = json.dumps(table, indent=1)
    Path(arguments[1]).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
