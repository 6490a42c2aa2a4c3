"""One optimiser step of the supervised stage, and everything that it changes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from duologue.model.config import NO_TOKEN, LMConfig
from duologue.model.lm import LanguageModel
from duologue_align.checkpointing import Tree, random_state, set_random_state
from duologue_align.sft.initial import initialise
from duologue_align.sft.loss import cross_entropy, target_weights, thin_silence, total_loss, weighted_loss
from duologue_align.sft.processes import Processes
from duologue_align.sft.schedule import learning_rate
from duologue_align.sft.settings import SftSettings
from duologue_align.weight_average import WeightAverage


class TeacherForcing(nn.Module):
    """A language model that scores given conversations."""

    def __init__(self, model: LanguageModel, *, is_thinned: bool = False) -> None:
        """Wrap a model; `is_thinned` says that the audio of many frames is no target, and saves their computation."""
        super().__init__()
        self.model = model
        self.is_thinned = is_thinned

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every target.

        Args:
            tokens: What conversations look like at model positions, shape [B, 1 + n_q, T + 1]; see `windows`.
            targets: Text and agent codes at positions 1..T, shape [B, 1 + dep_q, T]; no token where there is nothing
                to learn. When thinned, a frame has all of its codes as targets or none.

        Returns:
            Cross-entropies of text and agent codes at positions 1..T, shape [B, 1 + dep_q, T].

        Source: moshi 0.2.13 LMModel.forward, with the delays applied beforehand.
        """
        hidden = self.model.temporal(self.model.embed(tokens[:, :, :-1]))
        following = tokens[:, : 1 + self.model.config.dep_q, 1:]
        text = cross_entropy(self.model.text_linear(hidden), targets[:, 0])
        if not self.is_thinned:
            audio = cross_entropy(self.model.depth_sequence(hidden, following), targets[:, 1:])
            return torch.cat([text[:, None], audio], dim=1)
        kept = (targets[:, 1:] > NO_TOKEN).any(dim=1)
        frames = [x.transpose(1, 2)[kept].T[None] for x in (following, targets[:, 1:])]
        audio = targets.new_zeros(targets[:, 1:].shape, dtype=torch.float32).transpose(1, 2)
        audio[kept] = cross_entropy(self.model.depth_sequence(hidden[kept][None], frames[0]), frames[1])[0].T
        return torch.cat([text[:, None], audio.transpose(1, 2)], dim=1)


class SftTrainer:
    """Model, optimiser and averaged weights of one run.

    Attributes:
        step: Steps done.
        frames: Frames trained on.
        model: What is trained.
        average: Its average.
    """

    def __init__(
        self,
        settings: SftSettings,
        config: LMConfig,
        *,
        device: str | torch.device = "cpu",
        start: LanguageModel | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Build everything from the seed.

        Args:
            settings: All of them.
            config: Shape of the model.
            device: Where to train.
            start: Weights to begin with instead of random ones.
            processes: The processes that share the batch; None for this one alone.
        """
        self.settings, self.device = settings, torch.device(device)
        self.processes = processes or Processes.alone()
        torch.manual_seed(settings.run.seed)
        if start is None:
            start = LanguageModel(config)
            initialise(start, settings.run.seed)
        self.model = start.float().to(self.device).train().requires_grad_(True)
        self.model.transformer.checkpointing = self.model.depformer.checkpointing = settings.run.recompute
        self.average: WeightAverage[LanguageModel] = WeightAverage(self.model, settings.optimiser.average_decay)
        self.optimiser = _adamw(self.model, settings)
        teacher_forcing = TeacherForcing(self.model, is_thinned=settings.run.silent_share < 1.0)
        self._module = self.processes.shared(teacher_forcing)
        self._score = self._module
        if settings.run.compile and self.device.type == "cuda":
            self._score = torch.compile(self._module)  # type: ignore[assignment]
        self.step = 0
        self.frames = 0

    def train_step(self, batch: npt.NDArray[Any], done: float) -> dict[str, float]:
        """Take one step.

        Args:
            batch: This process's windows, int64, shape [B, 1 + n_q, T + 1].
            done: Share of the run that is done, for the learning rate.

        Returns:
            "loss", "text_loss", "audio_loss", "grad_norm" and "learning_rate", over all processes.
        """
        tokens = torch.from_numpy(batch).to(self.device, non_blocking=True)
        rate = learning_rate(done, self.settings.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        sums = self._accumulate(tokens)
        norm = self._clip()
        self.optimiser.step()
        self.average.update(self.model, self.step)
        self.step += 1
        self.frames += tokens.shape[0] * (tokens.shape[2] - 1) * self.processes.count
        text, audio, text_weight, audio_weight = self.processes.sum(sums).tolist()
        losses = {"text_loss": text / max(text_weight, 1e-9), "audio_loss": audio / max(audio_weight, 1e-9)}
        weights = self.settings.loss
        total = weights.text * losses["text_loss"] + weights.audio * losses["audio_loss"]
        return {"loss": total, **losses, "grad_norm": float(norm), "learning_rate": rate}

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of mixed precision, if the run uses it."""
        precision = self.settings.run.precision
        if precision == "bfloat16" or (precision == "auto" and self.device.type == "cuda"):
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def state(self) -> Tree:
        """Return everything that a later step depends on."""
        return {
            "step": self.step,
            "frames": self.frames,
            "model": self.model.state_dict(),
            "average": self.average.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": random_state(),
        }

    def load_state(self, state: Tree) -> None:
        """Go back to what `state` gave; what follows is the same, on a CPU to the bit."""
        self.model.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        set_random_state(state["random"])
        self.step, self.frames = state["step"], state["frames"]

    def _accumulate(self, tokens: Tensor) -> Tensor:
        """Add up the gradients of the batch, part by part; return the weighted sums and the sums of the weights."""
        config, weights = self.model.config, self.settings.loss
        targets = tokens[:, : 1 + config.dep_q, 1:]
        if self.settings.run.silent_share < 1.0:
            targets = thin_silence(targets, config, self.settings.run.silent_share)
        of_text, of_audio = target_weights(targets, config, weights)
        whole = self.processes.sum(torch.stack([of_text.sum(), of_audio.sum()]))
        size = self.settings.run.micro_batch or len(tokens)
        sums = torch.zeros(4, device=self.device)
        for begin in range(0, len(tokens), size):
            part = slice(begin, begin + size)
            is_last = begin + size >= len(tokens)
            with self.processes.sharing(self._module, is_last=is_last):
                with self.autocast():
                    losses = self._score(tokens[part], targets[part])
                found = weighted_loss(losses, of_text[part], of_audio[part])
                # The processes' gradients are averaged; the loss is a sum.
                loss = total_loss(found, whole[0], whole[1], weights) * self.processes.count
                loss.backward()  # type: ignore[no-untyped-call]
            sums += torch.stack([found.text, found.audio, found.text_weight, found.audio_weight]).detach()
        return sums

    def _clip(self) -> Tensor:
        limit = self.settings.optimiser.clip_norm or float("inf")
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit)


def _adamw(model: LanguageModel, settings: SftSettings) -> torch.optim.AdamW:
    matrices = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    decayed = set(matrices)
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [p for n, p in parameters.items() if n in decayed], "weight_decay": settings.optimiser.weight_decay},
        {"params": [p for n, p in parameters.items() if n not in decayed], "weight_decay": 0.0},
    ]
    optimiser = settings.optimiser
    betas = (optimiser.first_beta, optimiser.second_beta)
    return torch.optim.AdamW(groups, lr=optimiser.learning_rate, betas=betas, eps=1e-8, fused=True)
