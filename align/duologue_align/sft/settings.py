"""Settings of a supervised run: one frozen dataclass per table of the preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from duologue.config import Sampling
from duologue.errors import ConfigError
from duologue.model.checkpoint import generation_keys
from duologue.model.config import LMConfig
from duologue_align.presets import build, read_tables
from duologue_align.sft.loss import LossWeights

PRESETS = {"duologue-mini": Path(__file__).with_name("duologue_mini.toml")}
"""Presets that come with the package."""

_STREAM_KEYS = ("card", "text_card")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """AdamW, its schedule and the average of the weights.

    Attributes:
        learning_rate: Peak.
        schedule: "cosine" (linear warm-up, half a cosine down) or "onecycle" (cosine up from 1/25 and down).
        warmup_share: Share of the run that goes up.
        final_share: Learning rate at the end, as a share of the peak.
        first_beta: Decay of the gradient's average.
        second_beta: Decay of its square's.
        weight_decay: On the matrices of linear layers.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        average_decay: Of the averaged weights, which are what is validated and written.
    """

    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_share: float = 0.05
    final_share: float = 0.05
    first_beta: float = 0.9
    second_beta: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    average_decay: float = 0.999


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Length and habits of the run.

    Attributes:
        steps: Steps in all; with minutes, whichever ends first.
        minutes: Minutes of training over all resumptions; 0 for no limit. With a limit the schedule follows the clock,
            so that two runs differ.
        batch: Windows per step, over all processes.
        micro_batch: Windows per pass; 0 for the whole batch. Changes memory, not the loss.
        window_frames: Frames predicted in a window, 80 ms each.
        silent_share: Share of the frames without agent speech whose codes are learnt from; the rest are left out, which
            saves most of their computation.
        seed: Of the weights and the order of the windows.
        held_out_share: Share of the dialogues for validation when no others are given.
        valid_windows: Windows of a validation.
        precision: "float32", or "bfloat16" for mixed precision; "auto" is bfloat16 on a GPU.
        compile: Whether to compile the network, on a GPU only.
        recompute: Whether to recompute layers in the backward pass to save memory.
        log_every: Steps between lines of metrics.jsonl.
        valid_every: Steps between validations.
        save_every: Steps between checkpoints.
        keep: Checkpoints kept.
        samples_every: Steps between sample conversations; 0 for none.
        samples: Conversations at a time.
        sample_s: Length of each.
        weights_dtype: Type of the written weights: "float32" or "bfloat16".
    """

    steps: int = 20_000
    minutes: float = 0.0
    batch: int = 16
    micro_batch: int = 0
    window_frames: int = 500
    silent_share: float = 1.0
    seed: int = 0
    held_out_share: float = 0.02
    valid_windows: int = 64
    precision: str = "auto"
    compile: bool = False
    recompute: bool = False
    log_every: int = 20
    valid_every: int = 500
    save_every: int = 500
    keep: int = 2
    samples_every: int = 2000
    samples: int = 2
    sample_s: float = 60.0
    weights_dtype: str = "bfloat16"


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings:
    """All of it.

    Attributes:
        model: Keys of config.json but `card` and `text_card`, which the encoded data fix.
        loss: Weights of the loss.
        optimiser: The optimiser.
        run: The run.
        sampling: How the model is to be sampled, written into its config.json.
    """

    model: dict[str, Any] = field(default_factory=dict)
    loss: LossWeights = field(default_factory=LossWeights)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        """Check what a wrong preset would only show after hours.

        Raises:
            ConfigError: A value is out of range.
        """
        for key in _STREAM_KEYS:
            if key in self.model:
                raise ConfigError(f"model.{key} is fixed by the encoded data; remove it from the preset")
        _check_run(self.run)
        _check_optimiser(self.optimiser)
        generation_keys(self.sampling)

    def lm_config(self, *, card: int, text_card: int) -> LMConfig:
        """Return the shape of the model for data of given cardinalities.

        Raises:
            ConfigError: The table `model` is not a shape.
        """
        return LMConfig.from_dict({**self.model, "card": card, "text_card": text_card})

    def to_dict(self) -> dict[str, Any]:
        """Return plain tables."""
        plain: dict[str, Any] = asdict(self)
        return plain

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> SftSettings:
        """Build from plain tables.

        Raises:
            ConfigError: A table or key is unknown, or a value is of another type or out of range.
        """
        return build(cls, tables)

    @classmethod
    def load(cls, preset: str | Path = "duologue-mini", changes: Sequence[str] = ()) -> SftSettings:
        """Read a preset.

        Args:
            preset: A TOML file, or a name from `PRESETS`.
            changes: Each "table.key=value" with the value in TOML.

        Raises:
            ConfigError: The preset cannot be read, or a value is refused.
        """
        return cls.from_dict(read_tables(PRESETS.get(str(preset), Path(preset)), changes))


def _check_run(run: RunSettings) -> None:
    for name in ("steps", "batch", "window_frames", "valid_windows", "log_every", "valid_every", "save_every", "keep"):
        if getattr(run, name) < 1:
            raise ConfigError(f"run.{name} is {getattr(run, name)}; it must be 1 or more")
    for name in ("minutes", "micro_batch", "samples_every", "samples", "sample_s", "seed"):
        if getattr(run, name) < 0:
            raise ConfigError(f"run.{name} is {getattr(run, name)}; it must be 0 or more")
    if run.precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"run.precision is {run.precision!r}; use auto, float32 or bfloat16")
    if run.weights_dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"run.weights_dtype is {run.weights_dtype!r}; use float32 or bfloat16")
    if not 0 < run.silent_share <= 1:
        raise ConfigError(f"run.silent_share is {run.silent_share}; it must lie above 0, up to 1")
    if not 0 < run.held_out_share < 1:
        raise ConfigError(f"run.held_out_share is {run.held_out_share}; it must lie between 0 and 1")


def _check_optimiser(optimiser: OptimiserSettings) -> None:
    if optimiser.schedule not in ("cosine", "onecycle"):
        raise ConfigError(f"optimiser.schedule is {optimiser.schedule!r}; use cosine or onecycle")
    if not optimiser.learning_rate > 0:
        raise ConfigError(f"optimiser.learning_rate is {optimiser.learning_rate}; it must be above 0")
    for name in ("warmup_share", "final_share", "first_beta", "second_beta", "average_decay"):
        if not 0 <= getattr(optimiser, name) <= 1:
            raise ConfigError(f"optimiser.{name} is {getattr(optimiser, name)}; it must lie in [0, 1]")
