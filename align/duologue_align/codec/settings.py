"""Settings of a training run, one frozen dataclass for each table of the preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from duologue.codec.config import MimiConfig
from duologue.errors import ConfigError
from duologue_align.codec.segments import Alteration
from duologue_align.presets import build, read_tables

PRESETS = {name: Path(__file__).with_name(f"{name}.toml") for name in ("mini", "decoder")}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Weights. The first six are shares of the gradient at the waveform, the last two multiply their losses.

    Attributes:
        mel: Distance of log-mel magnitudes.
        stft: Spectral convergence and distance of log magnitudes.
        waveform: Mean absolute difference of samples.
        phases: Distance of compressed complex spectra, of clips of `run.framed_channel`.
        adversarial: Hinge loss against the discriminators, which rest when this weight and the next are 0.
        features: Distance of the discriminators' feature maps.
        commitment: Distance of latents from their codebook entries.
        phones: Cross-entropy of the phone classifier on the semantic codebook.
        mel_windows: Samples per window of the mel scales.
        mel_bands: Bands of each of them.
        stft_windows: Samples per window of the STFT scales.
        phase_windows: Samples per window of the scales whose phases are compared.
        phase_top_hz: Highest frequency of them.
        phase_power: Exponent of their magnitudes.
        gradient_scale: Norm of the balanced gradient at the waveform of one clip.
    """

    mel: float = 4.0
    stft: float = 1.0
    waveform: float = 0.1
    phases: float = 0.0
    adversarial: float = 2.0
    features: float = 3.0
    commitment: float = 1.0
    phones: float = 0.2
    mel_windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    mel_bands: tuple[int, ...] = (160, 80, 40, 20, 10)
    stft_windows: tuple[int, ...] = (1024, 512, 240)
    phase_windows: tuple[int, ...] = (1024, 512, 256)
    phase_top_hz: float = 4000.0
    phase_power: float = 0.7
    gradient_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscriminatorSettings:
    """The judges.

    Attributes:
        start_step: Step from which on they take part.
        windows: Samples per window of the STFT discriminators.
        stft_channels: Their width.
        periods: Periods of the period discriminators.
        period_channels: Their first width; it doubles twice.
        learning_rate: Peak.
        frames: Frames of each clip that they judge; 0 for all.
        every: They take part in every this many steps: they cost several times what the codec does.
    """

    start_step: int = 2000
    every: int = 1
    windows: tuple[int, ...] = (2048, 1024, 512)
    stft_channels: int = 32
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: int = 32
    learning_rate: float = 3e-4
    frames: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerSettings:
    """How the codebooks learn.

    Attributes:
        start_step: Step at which the codebooks are set by k-means; before it nothing is quantised.
        start_vectors: Latents that k-means sees.
        decay: Of the moving averages, once they are old enough: young ones follow the encoder, which still moves fast.
        restart_below: Share of the mean use under which an entry is restarted.
        restart_every: Steps between looks for such entries.
        dropout_share: Share of clips that use only the first n codebooks, n uniform.
        bypass_share: Share of clips that are not quantised.
    """

    start_step: int = 500
    start_vectors: int = 16_384
    decay: float = 0.99
    restart_below: float = 0.1
    restart_every: int = 10
    dropout_share: float = 0.15
    bypass_share: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """AdamW and its schedule.

    Attributes:
        learning_rate: Peak.
        final_share: Of the peak, at the end.
        warmup_steps: Steps of linear rise.
        first_beta: Decay of the gradient's average.
        second_beta: Decay of its square's.
        weight_decay: On the transformers' matrices.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        average_decay: Of the averaged weights, which are what is written.
        layer_scale: First value of the factors on the transformers' branches.
    """

    learning_rate: float = 5e-4
    final_share: float = 0.02
    warmup_steps: int = 500
    first_beta: float = 0.8
    second_beta: float = 0.99
    weight_decay: float = 0.01
    clip_norm: float = 10.0
    average_decay: float = 0.999
    layer_scale: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Length and habits of the run.

    Attributes:
        steps: Steps in all; with minutes, whichever ends first (0 for no limit).
        minutes: Minutes of training in all, over all resumptions (0 for no limit).
        freeze_share: Share of the run from which on the codes stand still and only the decoder learns, so that a
            language model can be trained on them meanwhile.
        batch: Clips per step.
        clip_frames: Frames per clip, 80 ms each.
        lead_frames: Of them, the first that are decoded and not compared: they give the rest a past.
        framed_channel: Channel whose speech begins on frames, as an agent's does: its clips do so too, and only they
            count for `losses.phases`; -1 for none.
        seed: Of the weights, the clips and every draw.
        target: What the semantic codebook learns: "phones", "units" (clusters of cepstra), "none", or "auto" (phones
            where there are any, else units).
        units: Clusters of "units".
        held_out_share: Share of the recordings for validation, when none are given apart.
        valid_clips: Clips of a validation.
        log_every: Steps between lines of metrics.jsonl.
        valid_every: Steps between validations.
        save_every: Steps between checkpoints.
        samples_every: Steps between sets of audio samples.
        precision: What the networks compute in: "float32" or "bfloat16" (weights, losses and the last layer stay in
            float32).
        weights_dtype: Type of the written weights: "float32" or "float16".
    """

    steps: int = 200_000
    minutes: float = 0.0
    freeze_share: float = 1.0
    batch: int = 32
    clip_frames: int = 18
    lead_frames: int = 0
    framed_channel: int = -1
    seed: int = 0
    target: str = "auto"
    units: int = 128
    held_out_share: float = 0.02
    valid_clips: int = 64
    log_every: int = 50
    valid_every: int = 1000
    save_every: int = 1000
    samples_every: int = 5000
    precision: str = "float32"
    weights_dtype: str = "float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecTraining:
    """All of it, one table of the preset each."""

    model: MimiConfig = field(default_factory=MimiConfig)
    data: Alteration = field(default_factory=Alteration)
    losses: LossSettings = field(default_factory=LossSettings)
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        """Check what a wrong preset would only show after hours.

        Raises:
            ConfigError: A value is out of range.
        """
        model, run, losses = self.model, self.run, self.losses
        if run.steps <= 0 and run.minutes <= 0:
            raise ConfigError("a run needs an end: give run.steps or run.minutes")
        if run.target not in ("auto", "phones", "units", "none"):
            raise ConfigError(f"run.target is {run.target!r}; use auto, phones, units or none")
        if run.weights_dtype not in ("float16", "float32"):
            raise ConfigError(f"run.weights_dtype is {run.weights_dtype!r}; use float16 or float32")
        if run.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"run.precision is {run.precision!r}; use float32 or bfloat16")
        if len(losses.mel_windows) != len(losses.mel_bands):
            raise ConfigError("losses.mel_windows and losses.mel_bands must be of one length")
        for name in ("batch", "clip_frames", "log_every", "valid_every", "save_every", "samples_every", "valid_clips"):
            if getattr(run, name) < 1:
                raise ConfigError(f"run.{name} is {getattr(run, name)}; it must be 1 or more")
        if model.d_model != model.dimension or model.frame_samples % model.hop_samples:
            raise ConfigError("model: d_model must equal dimension, and the hop must divide the frame")
        if self.quantizer.start_vectors < model.cardinality:
            raise ConfigError(f"quantizer.start_vectors must be at least the cardinality, {model.cardinality}")
        longest = max(*losses.mel_windows, *losses.stft_windows, *losses.phase_windows)
        if run.lead_frames < 0 or (run.clip_frames - run.lead_frames) * model.frame_samples <= longest:
            raise ConfigError(
                f"run.clip_frames is {run.clip_frames} and run.lead_frames {run.lead_frames}; "
                f"what is left of a clip must be longer than {longest} samples"
            )
        if losses.phases > 0 and run.framed_channel < 0:
            raise ConfigError("losses.phases needs run.framed_channel, the channel whose speech begins on frames")
        if not 0.0 < losses.phase_power <= 1.0 or not 0.0 < losses.phase_top_hz <= model.sample_rate_hz / 2:
            raise ConfigError(
                "losses.phase_power must lie in (0, 1], losses.phase_top_hz between 0 and half the sample rate"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain tables that `from_dict` reads back."""
        plain: dict[str, Any] = asdict(self)
        return plain

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> CodecTraining:
        """Build from plain tables.

        Raises:
            ConfigError: A table or key is unknown, or a value is of another type.
        """
        return build(cls, tables)

    @classmethod
    def load(cls, preset: str | Path = "mini", changes: Sequence[str] = ()) -> CodecTraining:
        """Read a TOML preset and change some of its values.

        Args:
            preset: A name in `PRESETS`, or a file.
            changes: Each "table.key=value" with the value in TOML.

        Raises:
            ConfigError: The file cannot be read, or a value is refused.
        """
        return cls.from_dict(read_tables(PRESETS.get(str(preset), Path(preset)), changes))
