"""PersonaPlex prompts: a voice, then a role, as frames to prefill before the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from duologue.errors import ConfigError
from duologue.model.config import LMConfig
from duologue.model.voice_file import VoicePrompt

SILENCE_CODES = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)
"""Mimi's codes of silence, the agent's side of a prompt."""
SINE_CODES = (430, 1268, 381, 1611, 1095, 1495, 56, 472)
"""Mimi's codes of a 440 Hz tone at half amplitude, the user's side of a prompt."""
SILENCE_FRAMES = 6
"""Half a second, before and after the role."""
VOICE_LOUDNESS_LUFS = -24.0
"""Loudness that a recorded voice is brought to before it is encoded."""
_TAG = "<system>"
_STREAMS = 8


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What `StepStream.prefill` takes.

    Attributes:
        tokens: Frames, shape [T, 1 + n_q].
        embeddings: Inputs of the first N positions, shape [N, dim], or None.
    """

    tokens: npt.NDArray[np.int64]
    embeddings: npt.NDArray[np.float32] | None


def role_text(role: str) -> str:
    """Return the role between the tags the model was trained with, adding them if missing."""
    text = role.strip()
    is_tagged = text.startswith(_TAG) and text.endswith(_TAG) and len(text) > len(_TAG)
    return text if is_tagged else f"{_TAG} {text} {_TAG}"


def make_prompt(
    config: LMConfig,
    *,
    role_tokens: Sequence[int] = (),
    voice_codes: npt.ArrayLike | None = None,
    voice: VoicePrompt | None = None,
) -> Prompt:
    """Lay out a prompt: voice, silence, role (one token a frame), silence.

    Args:
        config: The model; its codec must be the released one.
        role_tokens: Tokens of `role_text(...)`, () for no role.
        voice_codes: A recorded voice encoded at -24 LUFS, shape [8, N], or None.
        voice: A voice file instead of a recording, or None.

    Raises:
        ConfigError: The model's streams or codebooks are not those the prompt codes belong to, or an argument does
            not fit.

    Source: NVIDIA/personaplex, LMGen.step_system_prompts.
    """
    if config.dep_q != _STREAMS or config.user_q != _STREAMS or config.card <= max(SILENCE_CODES):
        raise ConfigError(
            f"prompts need a model with 8 + 8 codebooks of 2048 codes; this one has {config.dep_q} + {config.user_q} "
            f"of {config.card}"
        )
    if voice is not None and voice_codes is not None:
        raise ConfigError("give a voice as a recording or as a voice file, not both")
    silence = _frames(config, [config.existing_text_padding_id] * SILENCE_FRAMES)
    parts = [silence, _frames(config, _checked_role(config, role_tokens)), silence]
    if voice is not None:
        return Prompt(tokens=np.concatenate([_remembered(config, voice), *parts]), embeddings=voice.embeddings)
    if voice_codes is not None:
        parts.insert(0, _spoken(config, np.asarray(voice_codes)))
    return Prompt(tokens=np.concatenate(parts), embeddings=None)


def _frames(config: LMConfig, text: Sequence[int]) -> npt.NDArray[np.int64]:
    frames = np.empty((len(text), config.num_streams), dtype=np.int64)
    frames[:, 0] = text
    frames[:, 1 : 1 + _STREAMS] = SILENCE_CODES
    frames[:, 1 + _STREAMS :] = SINE_CODES
    return frames


def _checked_role(config: LMConfig, tokens: Sequence[int]) -> Sequence[int]:
    wrong = [token for token in tokens if not 0 <= token < config.text_card]
    if wrong:
        raise ConfigError(f"role token {wrong[0]} is outside the model's {config.text_card} text tokens")
    return tokens


def _spoken(config: LMConfig, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    if codes.ndim != 2 or codes.shape[0] != _STREAMS or codes.dtype.kind not in "iu":
        raise ConfigError(f"voice codes must be integers of shape [{_STREAMS}, N], got {codes.shape} of {codes.dtype}")
    frames = _frames(config, [config.existing_text_padding_id] * codes.shape[1])
    frames[:, 1 : 1 + _STREAMS] = codes.T
    return frames


def _remembered(config: LMConfig, voice: VoicePrompt) -> npt.NDArray[np.int64]:
    """Recover the frames of a voice file that reach beyond its embeddings.

    The file covers positions 0 to N - 1 by embeddings and keeps the tokens of frames up to N, at position
    frame + delay. Earlier frames are never looked at again and stay padding.
    """
    last, columns = len(voice.embeddings), voice.cache.shape[1]
    frames = _frames(config, [config.existing_text_padding_id] * (last + 1))
    for stream, delay in enumerate(config.delays):
        for frame in range(max(0, last - delay), last + 1):
            frames[frame, stream] = voice.cache[stream, (frame + delay) % columns]
    return frames
