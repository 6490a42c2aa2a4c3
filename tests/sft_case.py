"""A tiny corpus, codec, tokenizer and preset on which the supervised stage runs in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.codec import MimiConfig
from duologue.codec.untrained import write_untrained_mimi
from duologue.types import SAMPLE_RATE_HZ

MIMI: dict[str, Any] = {
    "sample_rate": 24000,
    "frame_rate": 12.5,
    "channels": 1,
    "seanet": {"dimension": 32, "n_filters": 4},
    "quantizer": {"dimension": 16, "n_q": 8, "bins": 64, "input_dimension": 32, "output_dimension": 32},
    "transformer": {
        "d_model": 32,
        "num_heads": 2,
        "num_layers": 1,
        "dim_feedforward": 64,
        "input_dimension": 32,
        "output_dimensions": [32],
    },
}
PIECES = 120
WORDS = [
    "hello",
    "how",
    "are",
    "you",
    "today",
    "fine",
    "thanks",
    "what",
    "about",
    "the",
    "weather",
    "it",
    "rains",
    "here",
]

PRESET = """
[model]
dim = 32
num_heads = 2
num_layers = 2
hidden_scale = 3.0
n_q = 16
dep_q = 8
delays = [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
context = 40
gating = "silu"
norm = "rms_norm_f32"
positional_embedding = "rope"
depformer_dim = 16
depformer_num_heads = 2
depformer_num_layers = 1
depformer_dim_feedforward = 48
depformer_gating = "silu"
depformer_pos_emb = "none"
depformer_multi_linear = true
depformer_weights_per_step = true
depformer_weights_per_step_schedule = [0, 1, 2, 2, 2, 2, 2, 2]

[optimiser]
learning_rate = 5e-3
warmup_share = 0.1
average_decay = 0.9

[run]
steps = 6
batch = 4
window_frames = 24
valid_windows = 3
log_every = 1
valid_every = 3
save_every = 2
samples_every = 0
weights_dtype = "float32"
"""


def write_corpus(folder: Path, dialogues: int = 3, *, seconds: float = 5.0) -> Path:
    """Write dialogues in moshi-finetune's format: voice-like buzzes, the agent's wherever it has a word."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(dialogues):
        draw = np.random.default_rng(number)
        length = seconds + 0.7 * number
        times = np.arange(round(length * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        words, start = [], 0.3
        agent, user = np.zeros(len(times)), 0.02 * draw.standard_normal(len(times))
        while start < length - 0.4:
            end = start + float(draw.uniform(0.15, 0.35))
            words.append([WORDS[int(draw.integers(len(WORDS)))], [round(start, 3), round(end, 3)], "SPEAKER_MAIN"])
            is_on = (times >= start) & (times < end)
            agent += is_on * np.sin(2 * np.pi * draw.uniform(110, 180) * times) * 0.3
            start = end + float(draw.choice([0.0, 0.1, 0.8]))
        user += np.sin(2 * np.pi * 210 * times) * (np.sin(times * 2) > 0.3) * 0.2
        stem = folder / f"d{number}"
        stereo = np.stack([agent, user], axis=1).astype(np.float32)
        soundfile.write(stem.with_suffix(".wav"), stereo, SAMPLE_RATE_HZ, subtype="PCM_16")
        # The words of every other user are written down.
        heard = [[WORDS[0], [1.0, 1.4], "SPEAKER_USER"]] if number % 2 else []
        stem.with_suffix(".json").write_text(json.dumps({"alignments": words + heard}))
        rows.append(json.dumps({"path": stem.with_suffix(".wav").name, "duration": length}))
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def write_codec(folder: Path, *, seed: int = 0) -> Path:
    """Write an untrained codec with its configuration; return the weights' path."""
    folder.mkdir(parents=True, exist_ok=True)
    config = MimiConfig.from_dict(MIMI)
    write_untrained_mimi(folder / "mimi.safetensors", config, seed=seed)
    (folder / "mimi_config.json").write_text(json.dumps(config.to_dict()))
    return folder / "mimi.safetensors"


def write_codes(folder: Path, dialogues: int = 3, *, seconds: float = 5.0) -> Path:
    """Write everything up to the encoded dialogues; return their folder."""
    from duologue_align.sft.dialogues import read_manifest
    from duologue_align.sft.encode import EncodeJob, encode_dialogues
    from duologue_align.sft.tokenizer import spoken_lines, train_tokenizer

    data = write_corpus(folder / "data", dialogues, seconds=seconds)
    codec = write_codec(folder / "codec")
    (folder / "tokenizer.model").write_bytes(train_tokenizer(spoken_lines(read_manifest(data)), pieces=PIECES))
    job = EncodeJob(
        data=data, codec=codec, codec_config=None, tokenizer=folder / "tokenizer.model", out=folder / "codes"
    )
    encode_dialogues(job)
    (folder / "preset.toml").write_text(PRESET)
    return folder / "codes"
