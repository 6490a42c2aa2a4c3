"""The thresholds of mining, with the paper's figures as defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError
from duologue_align.presets import build, read_tables

TABLE = "mining"


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningRules:
    """What counts as a segment of which set.

    IPUs (silences up to 0.2 s bridged), utterances (up to 1.0 s) and what "speaks" means are those of
    `duologue.metrics` and no settings, so that a mined event and a measured one are the same thing.

    Attributes:
        detector: Who finds the speech: "speech" (Silero's network) or "level" (loudness, for clean synthetic audio).
        both_roles: Whether either side is the user once.
        pause_min_s: Least utterance of the user in the set "pause".
        turn_min_s: Least utterances of "turn".
        turn_gap_max_s: Longest gap before the agent's utterance in "turn".
        turn_gap_min_s: Shortest one, negative for an overlap. The paper names none; -1.0 is where
            `duologue.metrics` stops to call it an answer. -inf is the literal reading.
        backchannel_min_s: Least utterance of the user in "backchannel".
        backchannel_max_s: Longest utterance that is a backchannel.
        backchannel_least_s: Shortest utterance that is one; what is shorter (a click, a breath, leakage) is neither a
            backchannel nor in the way of one. The paper names none; 99 % of people's are longer
            (Switchboard: 1 % quantile 0.19 s).
        interruption_min_s: Least of each of the four utterances of "interruption".
        user_backchannel_min_s: Least utterance of the agent in "user_backchannel".
        hold_min_s: Least utterance of the agent in "hold".
        lead_gap_max_s: In those two sets, the window begins with the user's turn before if the agent answered it
            within this time, else with the agent's utterance.
        skip_backchannels: Whether utterances up to backchannel_max_s are overlooked when asking which utterances are
            consecutive ("turn", "interruption"); the paper does not.
        longest_s: Longer windows are left out; the paper has no limit.
        context_s: Seconds of the user's codes kept before a window (the paper's longest context).
        dev_share: Share of the conversations in the dev split.
        test_share: Share of those in the test split.

    Source: arXiv 2606.11167 sections 3.3 and 4.1; "user_backchannel" and "hold" are ours.
    """

    detector: str = "speech"
    both_roles: bool = True
    pause_min_s: float = 4.0
    turn_min_s: float = 5.0
    turn_gap_max_s: float = 0.4
    turn_gap_min_s: float = -1.0
    backchannel_min_s: float = 5.0
    backchannel_max_s: float = 1.0
    backchannel_least_s: float = 0.15
    interruption_min_s: float = 3.0
    user_backchannel_min_s: float = 5.0
    hold_min_s: float = 5.0
    lead_gap_max_s: float = 2.0
    skip_backchannels: bool = False
    longest_s: float = math.inf
    context_s: float = 30.0
    dev_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        if self.detector not in ("speech", "level"):
            raise ConfigError(f"{TABLE}.detector is {self.detector!r}; use speech or level")
        for name, value in asdict(self).items():
            if isinstance(value, float) and math.isnan(value):
                raise ConfigError(f"{TABLE}.{name} is not a number")
            if name != "turn_gap_min_s" and isinstance(value, float) and value < 0:
                raise ConfigError(f"{TABLE}.{name} is {value}; give 0 or more")
        if self.turn_gap_min_s > self.turn_gap_max_s:
            raise ConfigError(f"{TABLE}.turn_gap_min_s is above turn_gap_max_s; no turn could qualify")
        if self.backchannel_least_s > self.backchannel_max_s:
            raise ConfigError(f"{TABLE}.backchannel_least_s is above backchannel_max_s; nothing could be a backchannel")
        if not math.isfinite(self.context_s):
            raise ConfigError(f"{TABLE}.context_s is {self.context_s}; give a finite number of seconds")
        if self.dev_share + self.test_share > 1:
            raise ConfigError(f"{TABLE}.dev_share and test_share are more than 1 together")

    @classmethod
    def load(cls, path: str | Path | None = None, changes: Sequence[str] = ()) -> MiningRules:
        """Read rules from a TOML file with one table, [mining].

        Args:
            path: The file; None takes the defaults.
            changes: Each "mining.key=value", or "key=value".

        Raises:
            ConfigError: The file cannot be read, holds anything unknown, or a value cannot be.
        """
        whole = [change if "." in change.partition("=")[0] else f"{TABLE}.{change}" for change in changes]
        if path is None:
            from importlib import resources

            with resources.as_file(resources.files("duologue_align.segments").joinpath("paper.toml")) as defaults:
                tables = read_tables(defaults, whole)
        else:
            tables = read_tables(path, whole)
        if unknown := sorted(set(tables) - {TABLE}):
            raise ConfigError(f"unknown table [{unknown[0]}]; the rules of mining are in [{TABLE}]")
        return build(cls, tables.get(TABLE, {}), TABLE)

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as plain values; infinities as strings, which JSON has no number for."""
        return {
            name: str(value) if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }
