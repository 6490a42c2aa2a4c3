"""Settings of an alignment run: one frozen dataclass per table of the TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from duologue.config import Sampling
from duologue.errors import ConfigError
from duologue_align.presets import build, read_tables
from duologue_align.segments.segment import AXES

PRESETS = {name: Path(__file__).with_name(f"{name}.toml") for name in ("duologue", "paper")}
"""Settings that come with the package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What is conversed about.

    Attributes:
        segments: Folder that `duologue-align mine` wrote; a relative path is relative to the working folder.
        test_segments: Folder whose split "test" is compared on at the end, such as mined `synth --split test`; "" for
            that of `segments`.
        longest_s: Longer segments are left out; 0 for no limit.
        answered_interruptions: Whether to leave out interruptions to which the recorded human did not yield or answer.
        context_share: Share of groups that begin before their segment.
        context_s: Longest such beginning at the end of the run.
        context_grows: Whether the longest beginning grows from 0 over the run; else it is `context_s` throughout.
        history: What the agent does before the segment: "free" lets it converse, "recorded" puts the recorded agent's
            words and voice in its mouth.
        silence_s: Silence before everything, for models that open a conversation with a phrase (Moshi: 3 s).

    Source: arXiv 2606.11167 sections 3.2 and 4.3.
    """

    segments: str = ""
    test_segments: str = ""
    longest_s: float = 30.0
    answered_interruptions: bool = True
    context_share: float = 0.5
    context_s: float = 30.0
    context_grows: bool = True
    history: str = "free"
    silence_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSettings:
    """What is paid.

    Attributes:
        preset: Preset of `duologue_align.rewards`: a name or a TOML file.
        judge: Preset of `duologue_align.judge`: a name, a TOML file, or "" for none.
        transcriber: Where the words come from that the rewards read: "" for the inner monologue, else a recogniser,
            "whisper" or "whisper:FOLDER", which also hears the user where nobody wrote down what is said.
        judge_weight: Weight of the judge's advantage beside that of the rules, where they are kept apart.
        normalise: What is standardised within a group: "judge" (the rules' total and the judge apart, then summed),
            "components" (every component apart, summed by its weight in the preset) or "total" (the preset's total).
        std_floor: Least standard deviation to divide by.
        skip_flat: Whether groups in which everyone earned the same are left out of the step.
        batch_normalise: Whether advantages are divided by their root mean square over the step.
        axis_shares: How often segments of an axis are drawn, relative to each other; an axis without an entry counts
            1 if the preset rewards it, 0 leaves an axis out.
        axis_weights: Factor of an axis' advantages; 1 without an entry.
        detector: Detector of the agent's speech: "level" or "speech".
    """

    preset: str = "duologue"
    judge: str = ""
    transcriber: str = ""
    judge_weight: float = 1.0
    normalise: str = "judge"
    std_floor: float = 0.0
    skip_flat: bool = True
    batch_normalise: bool = False
    axis_shares: dict[str, Any] = field(default_factory=dict)
    axis_weights: dict[str, Any] = field(default_factory=dict)
    detector: str = "level"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """The loss.

    Attributes:
        clip_low: The ratio counts down to 1 - clip_low.
        clip_high: The ratio counts up to 1 + clip_high.
        kl: Coefficient of the divergence from the frozen model, at the beginning.
        kl_target: Divergence per token in nats that the coefficient is steered to; 0 keeps the coefficient.
        kl_least: Least coefficient.
        kl_most: Greatest coefficient.
        audio: Weight of the agent's codes beside the text tokens; 0 learns from the text alone, as the paper does.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.01
    kl_target: float = 0.0
    kl_least: float = 1e-4
    kl_most: float = 1.0
    audio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What is trained.

    Attributes:
        rank: Rank of the LoRA updates; 0 trains all weights of the temporal transformer and the text head.
        scaling: Plain factor of the updates, as moshi counts it (peft's alpha / rank).
        text_head: Whether the text head has an update too.
        depth: Whether the depth transformer is trained too; it learns only from `objective.audio`.
    """

    rank: int = 16
    scaling: float = 2.0
    text_head: bool = True
    depth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """AdamW with half a cosine.

    Attributes:
        learning_rate: Peak.
        warmup_share: Share of the run that goes up to it.
        final_share: Learning rate at the end, as a share of the peak.
        first_beta: Decay of the gradient's average.
        second_beta: Decay of its square's.
        weight_decay: On the matrices.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        passes: Optimiser steps on each step's rollouts; every one takes its share of each group.
    """

    learning_rate: float = 1e-4
    warmup_share: float = 0.05
    final_share: float = 0.1
    first_beta: float = 0.9
    second_beta: float = 0.95
    weight_decay: float = 0.0
    clip_norm: float = 2.0
    passes: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Length and habits of the run.

    Attributes:
        steps: Steps in all: each draws `groups` segments, converses, learns.
        groups: Segments of a step, over all processes.
        completions: Rollouts of each segment.
        rows: Rollouts that run at once.
        train_rows: Rollouts in one pass of the update; changes memory, not the step.
        seed: Of everything random.
        dtype: Arithmetic of the rollouts, "float32" or "bfloat16".
        precision: Arithmetic of the update, "float32" or "bfloat16" (mixed).
        recompute: Whether to recompute layers in the backward pass to save memory.
        gap_alarm: Mean k3 divergence between rollout and update from which on a warning is given.
        valid_every: Steps between validations; 0 for none but at the end.
        valid_segments: Dev segments of each axis in a validation.
        test_segments: Test segments of each axis in the comparison at the end; 0 for none. It is the same whatever
            the run was trained on: the rewards "duologue" on all their axes, the detector of the runtime's reports,
            and the limits on segments that `DataSettings` begins with.
        test_judge: Judge of that comparison; "" for the run's own.
        samples: Conversations that a validation writes as WAV.
        save_every: Steps between checkpoints.
        keep: Checkpoints kept.
    """

    steps: int = 100
    groups: int = 8
    completions: int = 8
    rows: int = 128
    train_rows: int = 16
    seed: int = 0
    dtype: str = "float32"
    precision: str = "float32"
    recompute: bool = False
    gap_alarm: float = 1e-3
    valid_every: int = 20
    valid_segments: int = 16
    test_segments: int = 0
    test_judge: str = ""
    samples: int = 2
    save_every: int = 10
    keep: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How rollouts draw tokens; None is as the model asks to be sampled. See `duologue.config.Sampling`."""

    temperature_text: float | None = None
    temperature_audio: float | None = None
    top_k_text: int | None = None
    top_k_audio: int | None = None
    padding_bias: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """What every conversation begins with, for models that take prompts (PersonaPlex).

    Attributes:
        text: Role of the agent; "" for none.
        voice: Recording or voice file; "" for none.
    """

    text: str = ""
    voice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignSettings:
    """All of it.

    Attributes:
        model: Model folder to begin with, `hf://owner/name`, or "" for the default agent.
    """

    model: str = ""
    data: DataSettings = field(default_factory=DataSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)

    def __post_init__(self) -> None:
        """Check what a wrong setting would only show after hours.

        Raises:
            ConfigError: A value is out of range, or two do not fit each other.
        """
        for table, ranges in _RANGES.items():
            for name, (low, high) in ranges.items():
                value = getattr(getattr(self, table), name)
                if not low <= value <= high:
                    raise ConfigError(f"{table}.{name} is {value}; it must lie in [{low}, {high}]")
        for table, names in _CHOICES.items():
            for name, choices in names.items():
                value = getattr(getattr(self, table), name)
                if value not in choices:
                    raise ConfigError(f"{table}.{name} is {value!r}; use {' or '.join(choices)}")
        for name in ("axis_shares", "axis_weights"):
            _check_axes(f"reward.{name}", getattr(self.reward, name))
        if self.adapter.depth and not self.objective.audio:
            raise ConfigError("adapter.depth trains what only the codes' loss reaches; set objective.audio above 0")
        if self.run.completions % self.optimiser.passes:
            raise ConfigError(
                f"run.completions is {self.run.completions}; it must divide by optimiser.passes "
                f"({self.optimiser.passes})"
            )
        _ = self.draws

    @property
    def draws(self) -> Sampling:
        """How tokens are drawn.

        Raises:
            ConfigError: A value is out of range, or a temperature is 0: a greedy agent explores nothing.
        """
        sampling = _sampling(self.sampling, Sampling())
        if not (sampling.temperature_text and sampling.temperature_audio):
            raise ConfigError(
                "sampling.temperature_text and temperature_audio must be above 0: greedy rollouts are alike"
            )
        return sampling

    def sampled_as(self, model: Sampling) -> AlignSettings:
        """Return settings that draw as `model` does where these say nothing."""
        return replace(self, sampling=SamplingSettings(**asdict(_sampling(self.sampling, model))))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> AlignSettings:
        """Build from plain tables.

        Raises:
            ConfigError: A key is unknown, or a value is of another type or out of range.
        """
        return build(cls, tables)

    @classmethod
    def load(cls, config: str | Path = "duologue", changes: Sequence[str] = ()) -> AlignSettings:
        """Read a TOML file.

        Args:
            config: A TOML file, or a name from `PRESETS`.
            changes: Each "table.key=value" with the value in TOML, or "model=FOLDER".

        Raises:
            ConfigError: The file cannot be read, or a value is refused.
        """
        models = [change.partition("=")[2] for change in changes if change.startswith("model=")]
        others = [change for change in changes if not change.startswith("model=")]
        tables = read_tables(PRESETS.get(str(config), Path(config)), others)
        return cls.from_dict(tables | ({"model": models[-1]} if models else {}))


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that two runs do not share, as "table.key"."""
    found = []
    for item in fields(AlignSettings):
        old, new = before.get(item.name), now[item.name]
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            found += [f"{item.name}.{key}" for key in new if old.get(key) != new[key]]
        elif old != new:
            found.append(item.name)
    return found


def _check_axes(name: str, table: Mapping[str, Any]) -> None:
    for axis, value in table.items():
        if axis not in AXES:
            raise ConfigError(f"{name} names the axis {axis!r}; known are {', '.join(AXES)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise ConfigError(f"{name}.{axis} is {value!r}; give a number, 0 or more")


_LARGE = 1e9
_RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "data": {"longest_s": (0, _LARGE), "context_share": (0, 1), "context_s": (0, 3600), "silence_s": (0, 60)},
    "reward": {"std_floor": (0, _LARGE), "judge_weight": (0, _LARGE)},
    "objective": {
        "clip_low": (0, 1),
        "clip_high": (0, _LARGE),
        "kl": (0, _LARGE),
        "kl_target": (0, _LARGE),
        "kl_least": (0, _LARGE),
        "kl_most": (0, _LARGE),
        "audio": (0, _LARGE),
    },
    "adapter": {"rank": (0, 4096), "scaling": (1e-6, 1e6)},
    "optimiser": {
        "learning_rate": (1e-12, 1),
        "warmup_share": (0, 1),
        "final_share": (0, 1),
        "first_beta": (0, 1),
        "second_beta": (0, 1),
        "weight_decay": (0, 10),
        "clip_norm": (0, _LARGE),
        "passes": (1, 1024),
    },
    "run": {
        "steps": (1, _LARGE),
        "groups": (1, _LARGE),
        "completions": (2, 4096),
        "rows": (1, 4096),
        "train_rows": (1, 4096),
        "seed": (0, 2**31),
        "gap_alarm": (0, _LARGE),
        "valid_every": (0, _LARGE),
        "valid_segments": (0, _LARGE),
        "test_segments": (0, _LARGE),
        "samples": (0, 1000),
        "save_every": (1, _LARGE),
        "keep": (1, 1000),
    },
}
_CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {"history": ("free", "recorded")},
    "reward": {"normalise": ("judge", "components", "total"), "detector": ("level", "speech")},
    "run": {"dtype": ("float32", "bfloat16"), "precision": ("float32", "bfloat16")},
}


def _sampling(settings: SamplingSettings, model: Sampling) -> Sampling:
    return replace(model, **{name: value for name, value in asdict(settings).items() if value is not None})
