"""One training step of a codec and everything that it changes.

Left out of the published recipes: weight normalisation of the codec (the layers start at unit gain), a teacher network
(the semantic codebook learns phones or acoustic units), and separate passes through the discriminators for their own
update (they and the codec learn from the same pass).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from duologue.errors import ConfigError
from duologue_align.codec.acoustic_units import AcousticUnits
from duologue_align.codec.balancer import GradientBalancer
from duologue_align.codec.discriminators import (
    Discriminators,
    Judgement,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from duologue_align.codec.network import MimiNetwork
from duologue_align.codec.phones import PhoneHead, phone_loss
from duologue_align.codec.quantizer import Dropout, Quantized
from duologue_align.codec.segments import Batch
from duologue_align.codec.settings import CodecTraining
from duologue_align.codec.spectral import MultiScaleMel, MultiScalePhase, MultiScaleStft
from duologue_align.weight_average import WeightAverage

CODING_PARTS = ("encoder", "encoder_transformer", "downsample", "quantizer")
"""Parts of the codec that decide the codes."""


class Student(nn.Module):
    """What is trained: the codec, and the phone classifier that only training uses."""

    def __init__(self, settings: CodecTraining, classes: int) -> None:
        super().__init__()
        self.network = MimiNetwork(settings.model, layer_scale=settings.optimiser.layer_scale)
        self.head = PhoneHead(settings.model.codebook_dim, classes) if classes else None


class CodecTrainer:
    """Networks, optimisers and averages of one run.

    Attributes:
        step: Steps done.
        student: What is trained.
        average: Its average, which is what is written.
        units: Names the target classes from sound, or None where labels come with the clips.
        code_counts: How often each entry was chosen since `forget_codes`, shape [K, cardinality].
        restarted: Entries that were given a new place since then, a scalar.
        is_frozen: Whether the codes are final and only the decoder still learns.
    """

    def __init__(self, settings: CodecTraining, *, classes: int, with_units: bool, device: torch.device) -> None:
        """Build everything from the seed.

        Args:
            settings: All of them.
            classes: Phone classes; 0 teaches the semantic codebook nothing.
            with_units: Whether the classes are acoustic units.
            device: Where to train.
        """
        self.settings, self.device = settings, device
        torch.manual_seed(settings.run.seed)
        model, losses, judges = settings.model, settings.losses, settings.discriminator
        self.student = Student(settings, classes).to(device)
        self.units = AcousticUnits(classes).to(device) if with_units else None
        self.judges = Discriminators(judges.windows, judges.stft_channels, judges.periods, judges.period_channels)
        self.judges.to(device)
        self.average = WeightAverage(self.student, settings.optimiser.average_decay)
        self.mel = MultiScaleMel(model.sample_rate_hz, losses.mel_windows, losses.mel_bands).to(device)
        self.stft = MultiScaleStft(losses.stft_windows).to(device)
        self.phases = MultiScalePhase(
            model.sample_rate_hz, losses.phase_windows, top_hz=losses.phase_top_hz, power=losses.phase_power
        ).to(device)
        names = ("mel", "stft", "waveform", "phases", "adversarial", "features")
        self.balancer = GradientBalancer({name: getattr(losses, name) for name in names})
        self.optimiser = _adamw(self.student, settings.optimiser.learning_rate, settings)
        self.judge_optimiser = _adamw(self.judges, judges.learning_rate, settings)
        self.step = 0
        self.is_frozen = False
        self._latents: list[Tensor] = []
        self._quantized_steps = 0
        self.code_counts = torch.zeros(model.total_codebooks, model.cardinality, device=device)
        self.restarted = torch.zeros((), device=device)

    @property
    def network(self) -> MimiNetwork:
        """The codec in training."""
        return self.student.network

    def train_step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Learn from a batch.

        Args:
            batch: Clips on this device.
            progress: Share of the run that is done, in [0, 1].

        Returns:
            Losses and statistics, scalars on the device.

        Raises:
            ConfigError: The gradient is not finite; the weights are those before the step.
        """
        rng = step_generator(self.settings.run.seed, self.step)
        self._set_rates(progress)
        self.student.train()
        if not self.is_frozen and progress >= self.settings.run.freeze_share and self.network.quantizer.is_started:
            self._freeze()
        latents: Tensor | None = None
        quantized: Quantized | None = None
        with self._autocast():
            if self.is_frozen:
                output = self.network.synthesise(self.network.quantizer.decode(self.network.encode(batch.pcm)))
            else:
                dropout = self._dropout(len(batch.pcm), rng) if self.network.quantizer.is_started else None
                output, latents, quantized = self.network(batch.pcm, dropout)
        output = output.float()
        losses, judge_loss = self._waveform_losses(output, batch, rng)
        gradient, _ = self.balancer.gradient(losses, output)
        if judge_loss is not None:
            self._train_judges(judge_loss)
            losses["judges"] = judge_loss
        direct = self._latent_losses(quantized, batch, losses)
        self.optimiser.zero_grad(set_to_none=True)
        share = self.settings.losses.gradient_scale / len(output)
        pairs = [(output, gradient * share)] + ([(direct, torch.ones_like(direct))] if direct is not None else [])
        torch.autograd.backward([loss for loss, _ in pairs], [grad for _, grad in pairs])
        losses["gradient"] = self._update()
        if latents is not None:
            self._train_codebooks(latents.detach(), quantized, rng)
        self.average.update(self.student, self.step)
        self.step += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def begin_with(self, network: MimiNetwork) -> None:
        """Take over the weights of a trained codec of the same shape."""
        for student in (self.student, self.average.module):
            student.network.load_state_dict(network.state_dict())

    def _freeze(self) -> None:
        """Let the codes stand still: what makes them becomes its average, which is what is written, and stays so."""
        for part in CODING_PARTS:
            self.student.network.get_submodule(part).load_state_dict(
                self.average.module.network.get_submodule(part).state_dict()
            )
            self.student.network.get_submodule(part).requires_grad_(False)
        self.is_frozen = True

    def _waveform_losses(
        self, output: Tensor, batch: Batch, rng: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        lead = self.settings.run.lead_frames * self.settings.model.frame_samples
        ours, theirs = output[:, 0, lead:], batch.pcm[:, 0, lead:]
        functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mel": self.mel,
            "stft": self.stft,
            "waveform": functional.l1_loss,
        }
        losses = {name: loss(ours, theirs) for name, loss in functions.items() if self.balancer.weights[name] > 0}
        if self.balancer.weights["phases"] > 0 and bool(batch.is_framed.any()):
            losses["phases"] = self.phases(ours[batch.is_framed], theirs[batch.is_framed])
        judging = self.settings.discriminator
        is_judged = self.balancer.weights["adversarial"] > 0 or self.balancer.weights["features"] > 0
        if not is_judged or self.step < judging.start_step or self.step % judging.every:
            return losses, None
        real, fake = self._judge(ours, theirs, rng)
        losses["adversarial"] = adversarial_loss(fake)
        losses["features"] = feature_loss(real, fake)
        return losses, discriminator_loss(real, fake)

    def _judge(self, ours: Tensor, theirs: Tensor, rng: torch.Generator) -> tuple[list[Judgement], list[Judgement]]:
        samples = self.settings.discriminator.frames * self.settings.model.frame_samples
        if 0 < samples < ours.shape[-1]:
            begin = int(torch.randint(ours.shape[-1] - samples + 1, (), generator=rng))
            ours, theirs = ours[:, begin : begin + samples], theirs[:, begin : begin + samples]
        with self._autocast():
            return self.judges(theirs), self.judges(ours)

    def _train_judges(self, loss: Tensor) -> None:
        weights = [weight for weight in self.judges.parameters() if weight.requires_grad]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, retain_graph=False), strict=True):
            weight.grad = gradient
        self.judge_optimiser.step()
        self.judge_optimiser.zero_grad(set_to_none=True)

    def _latent_losses(self, quantized: Quantized | None, batch: Batch, losses: dict[str, Tensor]) -> Tensor | None:
        """Add the losses that do not pass through the waveform; return their weighted sum."""
        if quantized is None:
            return None
        weights = self.settings.losses
        losses["commitment"] = quantized.commitment
        total = weights.commitment * quantized.commitment
        if self.student.head is not None and weights.phones > 0:
            labels = batch.labels if self.units is None else self.units(batch.pcm)
            logits = self.student.head(quantized.semantic)
            losses["phones"], losses["phones_right"], losses["phones_right_voiced"] = phone_loss(logits, labels)
            total = total + weights.phones * losses["phones"]
        return total

    def _update(self) -> Tensor:
        limit = self.settings.optimiser.clip_norm
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), limit if limit > 0 else math.inf)
        if not bool(torch.isfinite(norm)):
            raise ConfigError(
                f"step {self.step}: the gradient is not finite; lower optimiser.learning_rate and go on with --resume"
            )
        self.optimiser.step()
        return norm

    def _train_codebooks(self, latents: Tensor, quantized: Quantized | None, rng: torch.Generator) -> None:
        settings = self.settings.quantizer
        if quantized is None:
            self._collect(latents, rng)
            return
        self.code_counts += torch.stack(
            [
                torch.bincount(codes.flatten(), minlength=self.code_counts.shape[1])
                for codes in quantized.codes.unbind(1)
            ]
        )
        self._quantized_steps += 1
        is_due = self.step % settings.restart_every == 0
        self.restarted += self.network.quantizer.learn(
            latents,
            quantized.codes,
            decay=min(settings.decay, 1.0 - 1.0 / (5.0 + 0.25 * float(self._quantized_steps))),
            restart_below=settings.restart_below if is_due else 0.0,
            generator=rng,
        )

    def _collect(self, latents: Tensor, rng: torch.Generator) -> None:
        """Keep the latest latents; once it is time and there are enough, start the codebooks from them."""
        settings = self.settings.quantizer
        self._latents.append(latents.float().transpose(1, 2).flatten(0, 1))
        while sum(map(len, self._latents[1:])) >= settings.start_vectors:
            self._latents.pop(0)
        if self.step + 1 >= settings.start_step and sum(map(len, self._latents)) >= settings.start_vectors:
            pool = torch.cat(self._latents)
            self.network.quantizer.start(pool, rng, per_step=latents.shape[0] * latents.shape[-1])
            self.average.copy_from(self.student, "network.quantizer")
            self._latents = []

    def _dropout(self, batch: int, rng: torch.Generator) -> Dropout:
        settings, count = self.settings.quantizer, self.settings.model.total_codebooks
        drawn = torch.rand(2, batch, generator=rng)
        some = torch.randint(1, count + 1, (batch,), generator=rng)
        kept = torch.where(drawn[0] < settings.dropout_share, some, count)
        return Dropout(kept=kept.to(self.device), is_bypassed=(drawn[1] < settings.bypass_share).to(self.device))

    def _set_rates(self, progress: float) -> None:
        settings = self.settings.optimiser
        rise = min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        fall = settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        peaks = settings.learning_rate, self.settings.discriminator.learning_rate
        for optimiser, peak in zip((self.optimiser, self.judge_optimiser), peaks, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * rise * fall

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.run.precision == "bfloat16")

    def forget_codes(self) -> None:
        """Start counting the use of the codebooks anew."""
        self.code_counts.zero_()
        self.restarted.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "step": self.step,
            "is_frozen": self.is_frozen,
            "student": self.student.state_dict(),
            "average": self.average.module.state_dict(),
            "judges": self.judges.state_dict(),
            "units": None if self.units is None else self.units.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "judge_optimiser": self.judge_optimiser.state_dict(),
            "balancer": self.balancer.state_dict(),
            "latents": list(self._latents),
            "quantized_steps": self._quantized_steps,
            "code_counts": self.code_counts,
            "restarted": self.restarted,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.average.module.load_state_dict(state["average"])
        if state["is_frozen"]:
            self._freeze()
        self.judges.load_state_dict(state["judges"])
        if self.units is not None:
            self.units.load_state_dict(state["units"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.judge_optimiser.load_state_dict(state["judge_optimiser"])
        self.balancer.load_state_dict(state["balancer"])
        self._latents = [latents.to(self.device) for latents in state["latents"]]
        self._quantized_steps = state["quantized_steps"]
        self.code_counts.copy_(state["code_counts"])
        self.restarted.copy_(state["restarted"])


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of one step's draws: they depend on nothing else, so resuming needs no generator's state."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _adamw(module: nn.Module, rate: float, settings: CodecTraining) -> torch.optim.AdamW:
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in module.named_parameters():
        (decayed if ".transformer." in name and weight.ndim == 2 else others).append(weight)
    groups = [
        {"params": decayed, "weight_decay": settings.optimiser.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    betas = (settings.optimiser.first_beta, settings.optimiser.second_beta)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=betas, fused=True)
