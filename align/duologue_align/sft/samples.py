"""Sample conversations during training: the averaged model talks with held-out users through the runtime's session."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import soundfile

from duologue import AgentConfig, DuplexAgent, Mimi
from duologue.codec import MimiConfig
from duologue.config import Sampling
from duologue.model.lm import LanguageModel
from duologue.types import FRAME_RATE_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.sft.bundle import write_bundle
from duologue_align.sft.shards import MIMI, MIMI_CONFIG, Codes


def write_samples(
    model: LanguageModel,
    codes: Codes,
    numbers: list[int],
    out: Path,
    *,
    length_s: float,
    sampling: Sampling,
) -> list[Path]:
    """Let a model converse with the users of encoded dialogues.

    Each user is what the codec makes of the user's codes. Writes NAME.wav (left: user, right: agent) and NAME.txt (what
    the agent says, with times) per dialogue.

    Args:
        model: The model.
        codes: The dialogues.
        numbers: Which of them.
        out: Folder, created.
        length_s: Length of each conversation at most.
        sampling: How the model is sampled.

    Returns:
        The recordings.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=out) as work:
        bundle = write_bundle(model, codes.folder, Path(work) / "bundle", sampling=sampling)
        agent = DuplexAgent.load(bundle, AgentConfig())
        return [_converse(agent, codes, number, out, round(length_s * FRAME_RATE_HZ)) for number in numbers]


def decoded_user(codes: Codes, number: int, frames: int) -> Pcm:
    """Return the user of a dialogue as the codec renders it, float32, shape [n, 1920], n <= frames."""
    config = MimiConfig.from_file(codes.folder / MIMI_CONFIG)
    stream = Mimi.load(codes.folder / MIMI, num_codebooks=codes.index.codebooks, config=config).stream()
    tokens = codes.read(number, 0, frames)[1 + codes.index.codebooks : -1].astype(np.int32)
    return np.stack([stream.decode_step(np.ascontiguousarray(column)) for column in tokens.T])


def _converse(agent: DuplexAgent, codes: Codes, number: int, out: Path, frames: int) -> Path:
    name = codes.index.dialogues[number][0]
    user = decoded_user(codes, number, frames)
    with agent.session(seed=number) as session:
        spoken = np.stack([session.step(frame).pcm for frame in user])
        transcript = session.transcript
    path = out / f"{name}.wav"
    stereo = np.stack([user.reshape(-1), spoken.reshape(-1)], axis=1)
    assert stereo.shape == (len(user) * FRAME_SAMPLES, 2)
    soundfile.write(path, np.clip(stereo, -1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")
    lines = [f"{at_s:8.2f} s {piece}\n" for at_s, piece in transcript]
    path.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
    return path
