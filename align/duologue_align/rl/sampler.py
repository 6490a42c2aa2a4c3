"""Which segments a step takes and how far before them it begins: a pure function of (seed, step, place in the step)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duologue.errors import ConfigError
from duologue.types import FRAME_RATE_HZ
from duologue_align.corpus.conversation import Split
from duologue_align.rl.settings import DataSettings
from duologue_align.segments.reader import read_segments
from duologue_align.segments.segment import AXES, Axis, Segment

Pool = Mapping[Axis, list[Segment]]
"""Usable segments by axis, in the manifest's order; no axis is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One segment of a step.

    Attributes:
        segment: The segment.
        context_frames: Frames before it to begin with.
        seed: Of its rollouts; each adds its own number.
    """

    segment: Segment
    context_frames: int
    seed: tuple[int, ...]


class Sampler:
    """Draws the groups of every step."""

    def __init__(self, pool: Pool, shares: Mapping[Axis, float], data: DataSettings, *, steps: int, seed: int) -> None:
        self._pool, self._data, self._steps, self._seed = pool, data, steps, seed
        self._axes = list(pool)
        weights = np.array([shares[axis] for axis in self._axes], dtype=np.float64)
        self._chances = weights / weights.sum()

    def group(self, step: int, place: int) -> Group:
        """Return the group at a place of a step, both from 0."""
        draw = np.random.default_rng([self._seed, step, place])
        axis = self._axes[int(draw.choice(len(self._axes), p=self._chances))]
        segment = self._pool[axis][int(draw.integers(len(self._pool[axis])))]
        longest_s = self._data.context_s * (step / self._steps if self._data.context_grows else 1.0)
        has_context, length_s = draw.random() < self._data.context_share, draw.uniform(0, longest_s)
        context = round(length_s * FRAME_RATE_HZ) if has_context else 0
        return Group(
            segment=segment,
            context_frames=min(context, segment.context_frames),
            seed=(self._seed, step, place),
        )


def read_pool(
    folder: str | Path,
    split: Split,
    axes: Iterable[Axis],
    data: DataSettings,
    *,
    tell: Callable[[str], None],
    is_needed: bool = True,
) -> Pool:
    """Return the usable segments of a mined folder.

    Args:
        folder: What `duologue-align mine` wrote.
        split: Which conversations.
        axes: Which sets.
        data: Which segments to leave out.
        tell: Takes a line for the user about sets that are empty.
        is_needed: Whether finding none at all is an error.

    Raises:
        ConfigError: The folder cannot be read, its segments have no codes, or none are left.
    """
    if not str(folder):
        raise ConfigError("data.segments is empty; set it to the folder that `duologue-align mine` wrote")
    wanted = [axis for axis in AXES if axis in set(axes)]
    segments = [segment for segment in read_segments(folder, split=split) if is_usable(segment, data)]
    pool = {axis: [segment for segment in segments if segment.axis == axis] for axis in wanted}
    found = {axis: members for axis, members in pool.items() if members}
    if missing := [axis for axis in wanted if axis not in found]:
        tell(f"{folder}: no usable {split} segments of the sets {', '.join(missing)}")
    if is_needed and not found:
        raise ConfigError(f"{folder}: no usable {split} segments; mine more conversations, or raise data.longest_s")
    for members in found.values():
        if members[0].codes_place is None:
            raise ConfigError(f"{folder}: its segments have no codes; mine again with --codec MODEL")
    return found


def is_usable(segment: Segment, data: DataSettings) -> bool:
    """Tell whether a segment can teach.

    An interruption to which the recorded human did not yield, or which he did not answer, shows nothing to learn.
    """
    if data.longest_s and segment.duration_s > data.longest_s:
        return False
    if segment.axis != "interruption" or not data.answered_interruptions:
        return True
    return {"agent_yielded", "agent_responded"} <= {event.kind for event in segment.events}
