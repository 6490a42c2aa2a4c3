"""Evaluation on recorded users, who never react: every agent hears every item, beside scripted agents and the human."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from duologue.errors import ConfigError
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.evaluation.contestant import HUMAN, Contestant
from duologue_align.evaluation.ears import Ears, hear_user
from duologue_align.evaluation.fdb import read_take, sample_folders, write_index, write_take
from duologue_align.evaluation.items import Item
from duologue_align.evaluation.measures import Tally, read_figures
from duologue_align.evaluation.part import Part
from duologue_align.evaluation.quality import Quality
from duologue_align.evaluation.take import Take, make_take, play, spoken_spans
from duologue_align.judge.judge import Answer
from duologue_align.policies import POLICIES
from duologue_align.rewards.preset import RewardPreset
from duologue_align.rewards.situation import Reply, spans_to_activity
from duologue_align.segments.mining import digest
from duologue_align.segments.segment import AXES
from duologue_align.statistics import Resampling

FOLDER = "takes"
JUDGED = ("turn", "interruption")
"""Axes on which the reply's words are judged."""
REPLY_EARLY_S = 1.0
"""A reply may begin so long before the user's turn ends."""

Takes = Mapping[str, Sequence[Sequence[Take]]]
"""By contestant: the takes of each item, one per seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """How to play.

    Attributes:
        seeds: Sessions with each item, seeds 0, 1, ...
        lead_s: What the agent hears before the window: the recording as far back as it goes, silence before that.
        per_axis: Most items of each axis; None is all.
        preset: Rewards, by name or file.
    """

    seeds: int = 2
    lead_s: float = 3.0
    per_axis: int | None = 40
    preset: str = "duologue"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; give 1 or more")
        if not 0 <= self.lead_s <= 300:
            raise ConfigError(f"lead is {self.lead_s} s; give 0 to 300")
        if self.per_axis is not None and self.per_axis < 1:
            raise ConfigError(f"per_axis is {self.per_axis}; give 1 or more")


@dataclass(slots=True)
class Work:
    """What is done and where the work is shown; the methods are the steps of `evaluate_static`."""

    options: StaticOptions
    out: Path | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    ears: Ears | None = None

    def take(self, contestant: Contestant, item: Item, seed: int) -> Take:
        """Return the take of an agent, played now unless it lies in the folder already."""
        what = [contestant.signature, seed, self.options.lead_s, item.name, item.situation.ticks]
        signature = digest([*what, self.ears.name] if self.ears else what)
        folder = None
        if self.out is not None:
            folder = self.out / FOLDER / contestant.name / f"seed-{seed}" / self.folders[item.name]
            there = read_take(folder, signature) if contestant.signature else None
            if there is not None:
                return there
        user = item.audio(self.options.lead_s)
        pcm, transcript = play(contestant.agent, user, seed=seed)
        if self.ears is not None:
            transcript = self.ears.transcript(pcm)
        take, agent = make_take(pcm, transcript, lead_s=self.options.lead_s)
        if folder is not None:
            write_take(folder, item, take, user[round(self.options.lead_s * SAMPLE_RATE_HZ) :], agent, signature)
        return take


def choose_items(items: Sequence[Item], per_axis: int | None) -> list[Item]:
    """Return up to `per_axis` items of each axis, drawn by a hash of their names, from many conversations."""
    chosen: list[Item] = []
    for axis in AXES:
        own = sorted((item for item in items if item.axis == axis), key=lambda item: _rank(item.name))
        seen: dict[str, int] = {}
        ranks = {}
        for item in own:
            seen[item.conversation] = ranks[item.name] = seen.get(item.conversation, -1) + 1
        chosen += sorted(own, key=lambda item: ranks[item.name])[:per_axis]
    return chosen


def evaluate_static(
    contestants: Sequence[Contestant],
    items: Sequence[Item],
    options: StaticOptions | None = None,
    *,
    out: Path | None = None,
    quality: Quality | None = None,
    ears: Ears | None = None,
    progress: Any = None,
) -> Part:
    """Play recorded users to agents and measure what they do.

    Args:
        contestants: The agents; the first is compared with everything else.
        items: What is played, of any number of axes.
        options: How.
        out: Where the takes are kept, in Full-Duplex-Bench's layout, and found again; None keeps nothing.
        quality: Judge of the replies, or None.
        ears: Recogniser that tells what the agents said, and the users where nobody wrote it down; None takes the
            agents' inner monologue.
        progress: Called with each iterable of work, such as `tqdm`; None shows nothing.

    Raises:
        ConfigError: There are no items, or an option is refused.
        AudioError: A recording cannot be read.
    """
    options = options or StaticOptions()
    chosen = choose_items(items, options.per_axis)
    if not chosen:
        raise ConfigError("there is nothing to evaluate on: no segment or sample was found")
    if ears is not None:
        chosen = [hear_user(item, ears) if item.axis in JUDGED else item for item in chosen]
    # All items are numbered, not the chosen ones alone: another `per_axis` finds the takes again.
    numbered = choose_items(items, None)
    if out is not None:
        write_index(out / FOLDER, numbered)
    work = Work(options, out, sample_folders(numbered), ears)
    todo = [(c, item, seed) for c in contestants for item in chosen for seed in range(options.seeds)]
    played = {
        (c.name, item.name, seed): work.take(c, item, seed) for c, item, seed in (progress(todo) if progress else todo)
    }
    takes = {c.name: [[played[c.name, i.name, s] for s in range(options.seeds)] for i in chosen] for c in contestants}
    return score_takes(chosen, takes, preset=options.preset, quality=quality)


def score_takes(
    items: Sequence[Item], takes: Takes, *, preset: str = "duologue", quality: Quality | None = None
) -> Part:
    """Measure takes, however they came about, beside the scripted agents and the recorded human.

    Args:
        items: What was played.
        takes: Of each contestant, in the order of the items; the first contestant is compared with everything else.
        preset: Rewards, by name or file.
        quality: Judge of the replies, or None.

    Raises:
        ConfigError: The preset is refused.
    """
    everybody = {**takes, **scripted_takes(items)}
    conversations = sorted({item.conversation for item in items})
    tallies = {name: {conversation: Tally() for conversation in conversations} for name in everybody}
    rewards = RewardPreset.load(preset)
    for index, item in enumerate(items):
        own = [(name, take) for name, all_takes in everybody.items() for take in all_takes[index]]
        for name, take in own:
            tallies[name][item.conversation].add_take(item, take)
        if item.has_reference and item.axis in rewards.axes:
            _reward(rewards, item, own, tallies)
    if quality is not None:
        _judge(items, takes, tallies, quality)
    resampling = Resampling(len(conversations))
    return Part.compare(
        "static",
        {name: read_figures(list(own.values()), resampling) for name, own in tallies.items()},
        counts={axis: sum(item.axis == axis for item in items) for axis in AXES},
        conversations=len(conversations),
    )


def scripted_takes(items: Sequence[Item]) -> dict[str, list[list[Take]]]:
    """Return what the scripted agents do, and what the recorded human did where every item knows it."""
    knows_human = all(item.has_reference for item in items)
    names = {name: HUMAN if name == "human-like" else name for name in POLICIES if name != "human-like" or knows_human}
    return {shown: [[_scripted(name, item)] for item in items] for name, shown in names.items()}


def _scripted(name: str, item: Item) -> Take:
    rng = np.random.default_rng(_rank(item.name))
    return Take(spoken_spans(POLICIES[name](item.situation, rng).activity))


def _reward(
    rewards: RewardPreset, item: Item, own: Sequence[tuple[str, Take]], tallies: Mapping[str, Mapping[str, Tally]]
) -> None:
    # Only the agents have words: with a term on words in it, the others' rewards would not compare with theirs.
    replies = [Reply(activity=spans_to_activity(take.spans_s, item.situation.ticks)) for _, take in own]
    names = list(rewards.axes[item.axis].weights)
    for (name, _), earned in zip(own, rewards.score_group(item.situation, replies), strict=True):
        tally = tallies[name][item.conversation]
        tally.add(item.axis, "reward", rewards.total(item.situation, earned))
        for component, value in zip(names, earned, strict=True):
            tally.add(item.axis, f"reward.{component}", value)


def _judge(items: Sequence[Item], takes: Takes, tallies: Mapping[str, Mapping[str, Tally]], quality: Quality) -> None:
    asked = list(_answers(items, takes))
    scores = quality.score([answer for _, _, answer in asked])
    for (name, item, _), score in zip(asked, scores, strict=True):
        tallies[name][item.conversation].add(item.axis, "judge", score)


def _answers(items: Sequence[Item], takes: Takes) -> Iterator[tuple[str, Item, Answer]]:
    for name, all_takes in takes.items():
        for item, own in zip(items, all_takes, strict=True):
            user = item.user_words()
            for take in own:
                if item.axis in JUDGED and user and take.words is not None:
                    begin_s = item.focus_s[1] - REPLY_EARLY_S
                    reply = " ".join(word.text for word in take.words if word.start_s >= begin_s)
                    yield name, item, Answer(user, reply)


def _rank(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
