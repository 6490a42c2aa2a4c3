"""One step: rollouts scored again by the policy, the clipped loss, the optimiser."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from duologue.config import Sampling
from duologue.model.lm import LanguageModel
from duologue_align.checkpointing import Tree
from duologue_align.rl.adapter import Trained, whole
from duologue_align.rl.objective import (
    adapted_beta,
    clipped_surrogate,
    entropy,
    exact_kl,
    is_clipped,
    kept_logprobs,
    token_mean,
)
from duologue_align.rl.rollout import Rollouts
from duologue_align.rl.settings import AlignSettings
from duologue_align.sft.processes import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a step learns from.

    Attributes:
        rollouts: Of this process.
        advantages: Of each row, shape [B].
        counts: Whether a row counts, shape [B]; others are left out.
        parts: Pass of the optimiser that each row belongs to, shape [B].
        embeddings: Inputs that replace those of the first N positions of all rows, shape [N, dim], or None.
    """

    rollouts: Rollouts
    advantages: Tensor
    counts: Tensor
    parts: Tensor
    embeddings: Tensor | None = None


class Scorer(nn.Module):
    """A language model that looks at rollouts from the side."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, positions: Tensor, is_text: Tensor, is_audio: Tensor | None, embeddings: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits of the tokens that count.

        Args:
            positions: Shape [B, 1 + n_q, T + 1].
            is_text: Text tokens that count, of positions 1..T, shape [B, T]; M in all.
            is_audio: Frames whose codes count, shape [B, T]; F in all. None leaves the depth transformer out.
            embeddings: Inputs of the first positions, shape [N, dim], or None.

        Returns:
            Text logits, shape [M, text_card], and code logits, shape [F, dep_q, card], or None.
        """
        embedded = self.model.embed(positions[:, :, :-1])
        if embeddings is not None:
            kept = embeddings[: embedded.shape[1]].to(embedded).expand(len(embedded), -1, -1)
            embedded = torch.cat([kept, embedded[:, kept.shape[1] :]], dim=1)
        hidden = self.model.temporal(embedded)
        text_logits = self.model.text_linear(hidden[is_text])
        if is_audio is None:
            return text_logits, None
        following = positions[:, : 1 + self.model.config.dep_q, 1:].transpose(1, 2)[is_audio]
        return text_logits, self.model.depth_sequence(hidden[is_audio][:, None], following[:, :, None])[:, :, 0]


class GrpoTrainer:
    """Policy, optimiser and coefficient of one run.

    Attributes:
        trained: The policy with its frozen reference and its talker.
        step: Steps done.
        beta: Coefficient of the divergence.
    """

    def __init__(self, trained: Trained, settings: AlignSettings, *, processes: Processes | None = None) -> None:
        self.trained, self.settings = trained, settings
        self.processes = processes or Processes.alone()
        self.step, self.beta = 0, settings.objective.kl
        self._draws: Sampling = settings.draws
        trained.model.transformer.checkpointing = settings.run.recompute
        scorer = Scorer(trained.model)
        self._is_sharded = self.processes.count > 1 and not settings.adapter.rank
        self._scorer = shard(scorer) if self._is_sharded else self.processes.shared(scorer)
        self._frozen = scorer
        optimiser = settings.optimiser
        self.optimiser = torch.optim.AdamW(
            trained.parameters(),
            lr=optimiser.learning_rate,
            betas=(optimiser.first_beta, optimiser.second_beta),
            weight_decay=optimiser.weight_decay,
        )
        bias = torch.zeros(trained.model.config.text_card, device=trained.model.device)
        bias[trained.model.config.existing_text_padding_id] = self._draws.padding_bias
        self._bias = bias

    def learn(self, lesson: Lesson) -> dict[str, float]:
        """Take the optimiser's passes over a step's rollouts.

        Returns:
            "kl", "entropy", "clip_share", "grad_norm", "learning_rate", "beta"; "gap_kl" and "gap_max", how far the
            rollouts' log-probabilities are from the policy's before its first update; all over all processes, and the
            first three of rows that count, nan without any.
        """
        rate = self._set_rate()
        sums, gap = torch.zeros(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        norms = []
        for number in range(self.settings.optimiser.passes):
            found, before = self._pass(lesson, number)
            sums += found[:4].cpu()
            if number == 0:
                gap = before.cpu()
            norms.append(float(found[4]))
        self.step += 1
        count, kl, ent, clipped = self._over_processes(sums)
        gap_count, gap_kl = self._over_processes(gap[:2])
        mean_kl = kl / count if count else math.nan
        objective = self.settings.objective
        if count:
            self.beta = adapted_beta(
                self.beta, mean_kl, target=objective.kl_target, least=objective.kl_least, most=objective.kl_most
            )
        return {
            "kl": mean_kl,
            "entropy": ent / count if count else math.nan,
            "clip_share": clipped / count if count else math.nan,
            "gap_kl": gap_kl / gap_count if gap_count else math.nan,
            "gap_max": self.processes.largest(float(gap[2])),
            "grad_norm": float(np.mean(norms)),
            "learning_rate": rate,
            "beta": self.beta,
            "actions": count,
        }

    def state(self) -> Tree:
        """Return everything that a later step depends on."""
        return {
            "step": self.step,
            "beta": self.beta,
            "trained": self.trained.state(),
            "optimiser": self._optimiser_state(),
        }

    def load_state(self, state: Tree) -> None:
        """Go back to what `state` gave; what follows is the same, on a CPU to the bit."""
        self.step, self.beta = state["step"], state["beta"]
        self.trained.load_state(state["trained"])
        if self._is_sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

            options = StateDictOptions(full_state_dict=True)
            set_optimizer_state_dict(self._scorer, self.optimiser, state["optimiser"], options=options)
        else:
            self.optimiser.load_state_dict(state["optimiser"])

    def _optimiser_state(self) -> Tree:
        if not self._is_sharded:
            return self.optimiser.state_dict()
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        return get_optimizer_state_dict(self._scorer, self.optimiser, options=StateDictOptions(full_state_dict=True))

    def _pass(self, lesson: Lesson, number: int) -> tuple[Tensor, Tensor]:
        """Take one optimiser step on the rows of one pass; return the sums of its tokens, and of the gap."""
        rollouts, settings = lesson.rollouts, self.settings
        is_mine = lesson.parts == number
        counts = lesson.counts & is_mine
        total = float(self.processes.sum(counts.sum()))
        sums, gap = torch.zeros(5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        if not total:
            return sums, gap
        # Every process must come to the exchange of gradients, with as many passes where weights are gathered for each.
        rows = torch.nonzero(is_mine if self._is_sharded or not bool(counts.any()) else counts)[:, 0]
        rows = rows[torch.argsort(rollouts.lengths[rows], descending=True, stable=True)]
        if not self._is_sharded and not bool(counts.any()):
            rows = rows[-1:]
        parts = torch.split(rows, settings.run.train_rows)
        self.optimiser.zero_grad(set_to_none=True)
        for index, part in enumerate(parts):
            weights = counts[part].float() * (self.processes.count / total)
            with self.processes.sharing(self._scorer, is_last=index == len(parts) - 1):
                loss, found, off = self._score(rollouts.rows(part), lesson.advantages[part], weights, lesson.embeddings)
                loss.backward()  # type: ignore[no-untyped-call]
            sums[:4] += found.cpu()
            gap[:2] += off[:2].cpu()
            gap[2] = max(float(gap[2]), float(off[2]))
        limit = settings.optimiser.clip_norm or float("inf")
        sums[4] = float(whole(nn.utils.clip_grad_norm_(self.trained.parameters(), limit)))
        self.optimiser.step()
        return sums, gap

    def _score(
        self, rollouts: Rollouts, advantages: Tensor, weights: Tensor, embeddings: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of some rows, sums over tokens that count (count, KL, entropy, clipped), and the gap's."""
        objective, positions = self.settings.objective, rollouts.positions
        is_text = rollouts.is_action[:, 0]
        is_audio = rollouts.is_action[:, 1:].all(1) if objective.audio else None
        with self.autocast():
            text_logits, audio_logits = self._scorer(positions, is_text, is_audio, embeddings)
        with torch.no_grad(), self.autocast(), self.trained.reference() as frozen:
            frozen_text, frozen_audio = self._look(frozen, positions, is_text, is_audio, embeddings)
        tokens, old = positions[:, 0, 1:][is_text], rollouts.logprobs[:, 0][is_text]
        logprobs = kept_logprobs(
            text_logits,
            tokens,
            temperature=self._draws.temperature_text,
            kept=self._draws.kept_text(self.trained.model.config),
            padding_bias=self._bias,
        )
        gains = advantages[:, None].expand(is_text.shape)[is_text].float()
        limits = {"low": objective.clip_low, "high": objective.clip_high}
        divergence = exact_kl(text_logits, frozen_text)
        value = clipped_surrogate(logprobs, old, gains, **limits) - self.beta * divergence
        rows = token_mean(_spread(value, is_text), is_text)
        if is_audio is not None and audio_logits is not None and frozen_audio is not None:
            rows = rows + objective.audio * self._audio_value(
                rollouts, is_audio, audio_logits, frozen_audio, advantages
            )
        loss = -(rows * weights).sum()
        with torch.no_grad():
            off = (logprobs - old).double()
            clipped = is_clipped(logprobs, old, gains, **limits)
            counted = torch.stack(
                [torch.ones_like(off), divergence.double(), entropy(text_logits).double(), clipped.double()]
            )
            is_counted = (weights > 0)[:, None].expand(is_text.shape)[is_text]
            largest = off.abs().amax() if len(off) else off.sum()
            gap = torch.stack([torch.ones_like(off).sum(), (off.exp() - 1 - off).sum(), largest])
        return loss, counted[:, is_counted].sum(1), gap

    def _audio_value(
        self, rollouts: Rollouts, is_audio: Tensor, logits: Tensor, frozen: Tensor, advantages: Tensor
    ) -> Tensor:
        """Return the same objective over the agent's codes, each frame the mean of its codebooks, shape [B]."""
        objective, codebooks = self.settings.objective, logits.shape[1]
        codes = rollouts.positions[:, 1 : 1 + codebooks, 1:].transpose(1, 2)[is_audio].flatten()
        old = rollouts.logprobs[:, 1:].transpose(1, 2)[is_audio].flatten()
        flat = logits.flatten(0, 1)
        logprobs = kept_logprobs(
            flat,
            codes,
            temperature=self._draws.temperature_audio,
            kept=self._draws.kept_audio(self.trained.model.config),
            padding_bias=torch.zeros(flat.shape[1], device=flat.device),
        )
        gains = advantages[:, None].expand(is_audio.shape)[is_audio].float().repeat_interleave(codebooks)
        value = clipped_surrogate(logprobs, old, gains, low=objective.clip_low, high=objective.clip_high)
        value = value - self.beta * exact_kl(flat, frozen.flatten(0, 1))
        return token_mean(_spread(value.view(-1, codebooks).mean(1), is_audio), is_audio)

    def _look(self, frozen: LanguageModel, *inputs: Any) -> tuple[Tensor, Tensor | None]:
        if frozen is self._frozen.model:
            seen: tuple[Tensor, Tensor | None] = self._frozen(*inputs)
            return seen
        seen = Scorer(frozen)(*inputs)
        return seen

    def _set_rate(self) -> float:
        rate = learning_rate(self.step, self.settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of mixed precision, if the run uses it."""
        if self.settings.run.precision == "bfloat16":
            return torch.autocast(self.trained.model.device.type, torch.bfloat16)
        return nullcontext()

    def _over_processes(self, sums: Tensor) -> list[float]:
        device = self.trained.model.device
        return self.processes.sum(sums.to(device)).tolist()


def learning_rate(step: int, settings: AlignSettings) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine down to `final_share`."""
    optimiser, done = settings.optimiser, step / settings.run.steps
    if done < optimiser.warmup_share:
        return optimiser.learning_rate * (step + 1) / (1 + optimiser.warmup_share * settings.run.steps)
    fallen = min(1.0, (done - optimiser.warmup_share) / max(1e-9, 1 - optimiser.warmup_share))
    end = optimiser.final_share
    return optimiser.learning_rate * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * fallen)))


def shard(scorer: Scorer) -> nn.Module:
    """Spread a model's weights over the processes, layer by layer.

    Source: torch.distributed.fsdp.fully_shard (FSDP2).
    """
    from torch.distributed.fsdp import fully_shard

    for layer in [*scorer.model.transformer.layers, *scorer.model.depformer.layers]:
        fully_shard(layer)
    fully_shard(scorer)
    return scorer


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put the values of the masked places back, shape [B, T]; 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
