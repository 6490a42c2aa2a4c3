"""Align a duplex model in one flat file: the readable twin of `duologue_align.rl`, without its comforts.

    python -m duologue_align.recipes.grpo_loop --model BUNDLE --segments MINED --out ADAPTER [--steps 20]

Each step takes one recorded user, lets the model converse with it G times, decodes what it said, rewards its timing,
and makes what did better than the rest of the group more likely. One process, no context before a segment, no judge, no
checkpoints: for those, and for many segments at once, use `duologue-align train`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from duologue.codec import Mimi, MimiConfig
from duologue.config import Sampling
from duologue.engine.torch_inputs import draw_settings
from duologue.metrics.activity import make_detector
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import UNGENERATED
from duologue.model.generate import FrameGenerator, StepInputs
from duologue.model.layout import linear_slots
from duologue.model.lm import LanguageModel
from duologue.model.load import load_model
from duologue.types import FRAME_SAMPLES
from duologue_align.rewards import Reply, RewardPreset, Situation
from duologue_align.segments.reader import read_segments

SAMPLING = Sampling(temperature_text=0.7, temperature_audio=0.8, top_k_text=25, top_k_audio=250)
CLIP, KL, RANK, SCALING = 0.2, 0.01, 16, 2.0


def roll_out(model: LanguageModel, user: Tensor, rows: int, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Converse with one user, many times at once.

    Args:
        model: Who converses.
        user: The user's codes, shape [user_q, T].
        rows: Conversations.
        noise: Of the draws.

    Returns:
        Tokens as the model sees them, shape [B, 1 + n_q, T + 1]; log-probabilities of the text token of each next
        position, [B, T]; the frames that came out, [B, 1 + dep_q, T].
    """
    config, total = model.config, user.shape[1]
    agent, kept_text, kept_audio = 1 + config.dep_q, SAMPLING.kept_text(config), SAMPLING.kept_audio(config)
    generator = FrameGenerator(model, rows, positions=total)
    positions = model.initial_tokens()[None, :, None].repeat(rows, 1, total + 1)
    for stream, delay in enumerate(config.delays[agent:], agent):
        positions[:, stream, delay + 1 : total] = user[stream - agent, 1 : total - delay]
    logprobs, frames = torch.zeros(rows, total), torch.full((rows, agent, total), UNGENERATED)
    for call in range(total):
        gumbel = -torch.empty(rows, kept_text + config.dep_q * kept_audio).exponential_(generator=noise).log()
        step = generator.step(
            StepInputs(
                user_codes=user[:, call].expand(rows, -1),
                forced=torch.full((rows, agent), UNGENERATED),
                noise_text=gumbel[:, :kept_text],
                noise_audio=gumbel[:, kept_text:].reshape(rows, config.dep_q, kept_audio),
                is_live=torch.ones(rows, dtype=torch.bool),
                settings=draw_settings(SAMPLING, config, "cpu"),
            )
        )
        # Up to its delay a stream shows the initial token, whatever was drawn.
        is_shown = torch.tensor(config.delays[:agent]) <= call
        positions[:, :agent, call + 1] = torch.where(is_shown, step.tokens, positions[:, :agent, call + 1])
        logprobs[:, call], frames[:, :, call] = step.logprobs[:, 0], step.frame
    return positions, logprobs, frames


def hear(mimi: Mimi, codes: Tensor) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return when a conversation's agent speaks, in ticks of 10 ms, from its codes, shape [dep_q, T]."""
    stream, detector = mimi.stream(), make_detector("level")
    silence = np.zeros(FRAME_SAMPLES, dtype=np.float32)
    columns = np.ascontiguousarray(codes.T.numpy(), dtype=np.int32)
    pcm = [stream.decode_step(column) if column[0] >= 0 else silence for column in columns]
    return np.concatenate([detector.push(np.concatenate(pcm)), detector.finish()])


def text_logits(model: LanguageModel, positions: Tensor) -> Tensor:
    """Return the logits of the text token of each next position, shape [B, T, text_card]."""
    logits: Tensor = model.text_linear(model.temporal(model.embed(positions[:, :, :-1])))
    return logits


def drawn_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return log-probabilities under the distribution that was sampled, truncated and tempered, shape [B, T]."""
    least = logits.topk(min(SAMPLING.top_k_text, logits.shape[-1]), dim=-1).values[..., -1:]
    is_cut = (logits < least).scatter(-1, tokens[..., None], False)
    scaled = (logits / SAMPLING.temperature_text).masked_fill(is_cut, float("-inf"))
    return torch.log_softmax(scaled, -1).gather(-1, tokens[..., None])[..., 0]


def grpo_loss(policy: Tensor, reference: Tensor, tokens: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """Return the clipped loss with the exact divergence from the frozen model, over the frames of one segment.

    Args:
        policy: Logits, shape [B, T, text_card].
        reference: The frozen model's.
        tokens: What was drawn, shape [B, T].
        old: Log-probabilities when it was drawn.
        advantages: Shape [B].

    Source: arXiv 2606.11167 section 3.2.
    """
    ratio = torch.exp(drawn_logprobs(policy, tokens) - old)
    gains = advantages[:, None]
    surrogate = torch.minimum(ratio * gains, ratio.clamp(1 - CLIP, 1 + CLIP) * gains)
    logp, logq = torch.log_softmax(policy, -1), torch.log_softmax(reference, -1)
    divergence = (logp.exp() * (logp - logq)).sum(-1)
    return -(surrogate - KL * divergence).mean()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop."""
    parser = argparse.ArgumentParser(description="GRPO with LoRA on mined segments, one segment a step.")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--segments", type=Path, required=True, help="what `duologue-align mine` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter")
    parser.add_argument("--reward", default="duologue", help="reward preset")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    options = parser.parse_args(arguments)

    checkpoint = Checkpoint.open(options.model)
    assert checkpoint.mimi_path is not None
    shape = checkpoint.mimi_config_path
    codec = None if shape is None else MimiConfig.from_file(shape)
    mimi = Mimi.load(checkpoint.mimi_path, num_codebooks=checkpoint.config.dep_q, config=codec)
    preset = RewardPreset.load(options.reward)
    segments = [segment for segment in read_segments(options.segments, split="train") if segment.axis in preset.axes]

    base = load_model(checkpoint)
    talker = copy.deepcopy(base)
    names = [name for name in linear_slots(base.config) if name.startswith("transformer.") or name == "text_linear"]
    config = LoraConfig(r=RANK, lora_alpha=int(SCALING * RANK), target_modules=names)
    adapted = get_peft_model(base, config)
    trainable = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    draw, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)

    for step in range(options.steps):
        segment = segments[int(draw.integers(len(segments)))]
        user = torch.from_numpy(segment.user_codes().astype(np.int64))

        # The talker is the policy with its update merged: from the pristine weights each time.
        with torch.no_grad():
            for name in names:
                layer = base.get_submodule(name)
                update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # type: ignore[index, union-attr]
                talker.get_submodule(name).weight.copy_(layer.base_layer.weight + SCALING * update)  # type: ignore[operator, union-attr]
            positions, old, frames = roll_out(talker, user, options.completions, noise)

        situation = Situation.from_segment(segment)
        replies = [Reply(activity=hear(mimi, row[1:])) for row in frames]
        scores = [preset.total(situation, parts) for parts in preset.score_group(situation, replies)]
        rewards = torch.tensor(scores, dtype=torch.float32)
        spread = rewards.std(correction=0)
        row = {"step": step + 1, "axis": segment.axis, "reward": float(rewards.mean()), "spread": float(spread)}
        if spread > 1e-6:
            advantages = (rewards - rewards.mean()) / spread
            # The text token of the position after the last frame never came out, so it earned nothing.
            tokens = positions[:, 0, 1:-1]
            policy = text_logits(base, positions)[:, :-1]
            with torch.no_grad(), adapted.disable_adapter():
                reference = text_logits(base, positions)[:, :-1]
            loss = grpo_loss(policy, reference, tokens, old[:, :-1], advantages)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(trainable, 2.0)
            optimiser.step()
            row |= {"loss": float(loss.detach()), "grad_norm": float(norm)}
        sys.stdout.write(json.dumps(row) + "\n")

    adapted.save_pretrained(str(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
