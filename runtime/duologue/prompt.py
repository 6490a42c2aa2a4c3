"""Prompts of an agent, made once from its settings: a role as text, a voice as a recording or a PersonaPlex file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from duologue.audio.files import AudioFile
from duologue.codec import Mimi
from duologue.errors import AudioError, MissingExtraError
from duologue.model.config import LMConfig
from duologue.model.personaplex import VOICE_LOUDNESS_LUFS, Prompt, make_prompt, role_text
from duologue.model.tokenizer import Tokenizer
from duologue.model.voice_file import VoicePrompt, read_voice
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Codes, Pcm

MAX_VOICE_S = 60.0
"""Longest recording taken as a voice; PersonaPlex's own voices are about 4 s."""


def load_prompt(
    config: LMConfig, tokenizer: Tokenizer, mimi: Mimi, *, text_prompt: str | None, voice_prompt: str | None
) -> Prompt | None:
    """Return what every session of the agent prefills, or None when there is nothing to say.

    Args:
        config: The model.
        tokenizer: Its text tokenizer.
        mimi: Its codec.
        text_prompt: Role of the agent.
        voice_prompt: A `.pt` voice file, or a recording of the voice.

    Raises:
        ConfigError: If the model does not take prompts.
        AudioError: If the recording cannot be used.
        WeightsError: If the voice file cannot be used.
        MissingExtraError: If a recording is given and pyloudnorm is not installed.
    """
    if text_prompt is None and voice_prompt is None:
        return None
    voice: VoicePrompt | None = None
    codes: npt.NDArray[np.int32] | None = None
    if voice_prompt is not None and Path(voice_prompt).suffix == ".pt":
        voice = read_voice(voice_prompt, config)
    elif voice_prompt is not None:
        codes = _encode_voice(Path(voice_prompt), mimi)
    role = tokenizer.encode(role_text(text_prompt)) if text_prompt else []
    return make_prompt(config, role_tokens=role, voice_codes=codes, voice=voice)


def _encode_voice(path: Path, mimi: Mimi) -> npt.NDArray[np.int32]:
    with AudioFile(path) as recording:
        if recording.duration_s > MAX_VOICE_S:
            raise AudioError(f"{path}: {recording.duration_s:.0f} s is too long for a voice; cut it to a few seconds")
        pcm = _at_prompt_loudness(recording.read(), path)
    whole = len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES
    stream = mimi.stream()
    frames: list[Codes] = [stream.encode_step(frame) for frame in pcm[:whole].reshape(-1, FRAME_SAMPLES)]
    return np.stack(frames, axis=1)


def _at_prompt_loudness(pcm: Pcm, path: Path) -> Pcm:
    try:
        import pyloudnorm
    except ImportError as error:
        raise MissingExtraError("pyloudnorm", "voice") from error
    meter = pyloudnorm.Meter(SAMPLE_RATE_HZ)
    if len(pcm) <= meter.block_size * SAMPLE_RATE_HZ:
        raise AudioError(f"{path}: too short for a voice; give a few seconds of speech")
    loudness = float(meter.integrated_loudness(pcm))
    if not np.isfinite(loudness):
        raise AudioError(f"{path}: silent; give a few seconds of speech")
    return np.asarray(pcm * 10 ** ((VOICE_LOUDNESS_LUFS - loudness) / 20), dtype=np.float32)
