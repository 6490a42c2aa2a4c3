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
from duologue_align.sft.loss import (
    cross_entropy,
    split_streams,
    stream_sums,
    target_weights,
    text_cross_entropy,
    thin_silence,
    total_loss,
)
from duologue_align.sft.processes import Processes
from duologue_align.sft.schedule import learning_rate
from duologue_align.sft.settings import SftSettings
from duologue_align.weight_average import WeightAverage


class TeacherForcing(nn.Module):
    """A language model that scores given conversations, with what only training has.

    Attributes:
        model: The language model.
        listening: Tells the user's words from the temporal transformer's output; None where they are not learnt.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        is_thinned: bool = False,
        is_listening: bool = False,
        decision_temperature: float = 1.0,
    ) -> None:
        """Wrap a model.

        Args:
            model: What is wrapped.
            is_thinned: The audio of many frames is no target; their computation is saved.
            is_listening: The user's words are learnt as well.
            decision_temperature: As in `LossWeights`.
        """
        super().__init__()
        self.decision_temperature = decision_temperature
        self.model = model
        self.is_thinned = is_thinned
        config = model.config
        self.listening = nn.Linear(config.dim, config.text_card, bias=False) if is_listening else None

    def targets(self, tokens: Tensor) -> Tensor:
        """Return what is predicted in windows of `window_tokens`, shape [B, 1 + dep_q, T], listening [B, 2 + dep_q, T].

        The last row of a window is no stream of the model's.
        """
        agent = tokens[:, : 1 + self.model.config.dep_q, 1:]
        return agent if self.listening is None else torch.cat([agent, tokens[:, -1:, 1:]], dim=1)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of every target.

        Args:
            tokens: What conversations look like at model positions, shape [B, 1 + n_q or more, T + 1]; see `windows`.
            targets: As `targets` returns them; no token where there is nothing to learn. When thinned, a frame has all
                of its codes as targets or none.

        Returns:
            Cross-entropies, in the shape of the targets.

        Source: moshi 0.2.13 LMModel.forward, with the delays applied beforehand.
        """
        hidden = self.model.temporal(self.model.embed(tokens[:, :, :-1]))
        text, audio, heard = split_streams(targets, self.model.config)
        logits = self.model.text_linear(hidden)[:, None]
        losses = [text_cross_entropy(logits, text, self.model.config, self.decision_temperature)]
        losses.append(self._audio(hidden, tokens[:, : 1 + self.model.config.dep_q, 1:], audio))
        if self.listening is not None:
            losses.append(cross_entropy(self.listening(hidden)[:, None], heard))
        return torch.cat(losses, dim=1)

    def _audio(self, hidden: Tensor, following: Tensor, targets: Tensor) -> Tensor:
        if not self.is_thinned:
            return cross_entropy(self.model.depth_sequence(hidden, following), targets)
        kept = (targets > NO_TOKEN).any(dim=1)
        frames = [x.transpose(1, 2)[kept].T[None] for x in (following, targets)]
        losses = targets.new_zeros(targets.shape, dtype=torch.float32).transpose(1, 2)
        losses[kept] = cross_entropy(self.model.depth_sequence(hidden[kept][None], frames[0]), frames[1])[0].T
        return losses.transpose(1, 2)


class SftTrainer:
    """Model, optimiser and averaged weights of one run.

    Attributes:
        step: Steps done.
        frames: Frames trained on.
        scorer: What is trained.
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
        start.transformer.checkpointing = start.depformer.checkpointing = settings.run.recompute
        scorer = TeacherForcing(
            start.float(),
            is_thinned=settings.run.silent_share < 1.0,
            is_listening=settings.loss.listening > 0,
            decision_temperature=settings.loss.decision_temperature,
        )
        self.scorer = scorer.to(self.device).train().requires_grad_(True)
        self.average: WeightAverage[TeacherForcing] = WeightAverage(self.scorer, settings.optimiser.average_decay)
        self.optimiser = _adamw(self.scorer, settings)
        self._module = self.processes.shared(self.scorer)
        self._score = self._module
        if settings.run.compile and self.device.type == "cuda":
            self._score = torch.compile(self._module)  # type: ignore[assignment]
        self.step = 0
        self.frames = 0

    @property
    def model(self) -> LanguageModel:
        """The language model in training."""
        return self.scorer.model

    @property
    def averaged_model(self) -> LanguageModel:
        """The average of the language model, which is what counts."""
        return self.average.module.model

    def train_step(self, batch: npt.NDArray[Any], done: float) -> dict[str, float]:
        """Take one step.

        Args:
            batch: This process's windows, int64, shape [B, 2 + n_q, T + 1]; see `window_tokens`.
            done: Share of the run that is done, for the learning rate.

        Returns:
            "loss", "text_loss", "audio_loss", "grad_norm", "learning_rate" and, where the user's words are learnt,
            "listening_loss", over all processes.
        """
        tokens = torch.from_numpy(batch).to(self.device, non_blocking=True)
        rate = learning_rate(done, self.settings.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        sums = self._accumulate(tokens)
        norm = self._clip()
        self.optimiser.step()
        self.average.update(self.scorer, self.step)
        self.step += 1
        self.frames += tokens.shape[0] * (tokens.shape[2] - 1) * self.processes.count
        sums = self.processes.sum(sums)
        means = sums[0] / sums[1].clamp(min=1e-9)
        losses = dict(zip(("text_loss", "audio_loss", "listening_loss"), means.tolist(), strict=True))
        if self.scorer.listening is None:
            del losses["listening_loss"]
        total = float(total_loss(sums[0], sums[1], self.settings.loss))
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
            "scorer": self.scorer.state_dict(),
            "average": self.average.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": random_state(),
        }

    def load_state(self, state: Tree) -> None:
        """Go back to what `state` gave; what follows is the same, on a CPU to the bit."""
        self.scorer.load_state_dict(state["scorer"])
        self.average.module.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        set_random_state(state["random"])
        self.step, self.frames = state["step"], state["frames"]

    def _accumulate(self, tokens: Tensor) -> Tensor:
        """Add up the gradients of the batch, part by part; return weighted sums and sums of weights, shape [2, 3]."""
        config, weights = self.model.config, self.settings.loss
        targets = self.scorer.targets(tokens)
        if self.settings.run.silent_share < 1.0:
            targets = thin_silence(targets, config, self.settings.run.silent_share)
        counts = target_weights(targets, config, weights)
        own = stream_sums(counts, config)
        whole = self.processes.sum(own)
        size = self.settings.run.micro_batch or len(tokens)
        sums = torch.stack([torch.zeros_like(own), own])
        for begin in range(0, len(tokens), size):
            part = slice(begin, begin + size)
            is_last = begin + size >= len(tokens)
            with self.processes.sharing(self._module, is_last=is_last):
                with self.autocast():
                    losses = self._score(tokens[part], targets[part])
                found = stream_sums(losses * counts[part], config)
                # The processes' gradients are averaged; the loss is a sum.
                loss = total_loss(found, whole, weights) * self.processes.count
                loss.backward()  # type: ignore[no-untyped-call]
            sums[0] += found.detach()
        return sums

    def _clip(self) -> Tensor:
        limit = self.settings.optimiser.clip_norm or float("inf")
        return nn.utils.clip_grad_norm_(self.scorer.parameters(), limit)


def _adamw(model: nn.Module, settings: SftSettings) -> torch.optim.AdamW:
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
