"""Role and voice prompts through the agent, on a small model with the released codec's 2048 codes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue import AgentConfig, DuplexAgent
from duologue.errors import AudioError, ConfigError
from duologue.types import FRAME_SAMPLES
from duologue.untrained import SMALL_MIMI, small_config, write_untrained_bundle

pytest.importorskip("pyloudnorm", reason="a recorded voice needs the extra: voice")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompted") / "bundle"
    mimi = copy.deepcopy(SMALL_MIMI)
    mimi["quantizer"]["bins"] = 2048
    write_untrained_bundle(folder, seed=0, config=replace(small_config(), card=2048), mimi_config=mimi)
    return folder


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory, demo_user: Path) -> Path:
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    pcm, rate_hz = soundfile.read(demo_user, dtype="float32")
    soundfile.write(path, pcm[rate_hz : 3 * rate_hz], rate_hz)
    return path


def _texts(agent: DuplexAgent, frames: int = 40) -> list[tuple[str, bytes]]:
    noise = np.random.default_rng(0).normal(0, 0.1, (frames, FRAME_SAMPLES)).astype(np.float32)
    with agent.session(seed=0) as session:
        return [(result.text, result.pcm.tobytes()) for result in map(session.step, noise)]


def test_a_prompt_changes_the_conversation_and_engines_agree(bundle: Path, voice: Path) -> None:
    config = AgentConfig(text_prompt="You enjoy having a good conversation.", voice_prompt=str(voice))
    prompted = DuplexAgent.load(bundle, config)
    first = _texts(prompted)
    assert _texts(prompted) == first
    assert _texts(DuplexAgent.load(bundle)) != first
    assert _texts(DuplexAgent.load(bundle, replace(config, text_prompt="You teach chess."))) != first
    assert _texts(DuplexAgent.load(bundle, replace(config, voice_prompt=None))) != first
    pytest.importorskip("torch")
    assert _texts(DuplexAgent.load(bundle, replace(config, engine="torch"))) == first


def test_the_first_frame_after_a_prompt_already_speaks(bundle: Path) -> None:
    agent = DuplexAgent.load(bundle, AgentConfig(text_prompt="You teach chess."))
    with agent.session() as session:
        assert session.step(np.zeros(FRAME_SAMPLES, dtype=np.float32)).agent_codes is not None


def test_bad_prompts_are_refused(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(48_000), 24_000)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 24_000)
    soundfile.write(tmp_path / "long.wav", np.zeros(24_000 * 61), 24_000)
    for name, message in (("silent", "silent"), ("short", "too short"), ("long", "too long"), ("missing", "no such")):
        with pytest.raises(AudioError, match=message):
            DuplexAgent.load(bundle, AgentConfig(voice_prompt=str(tmp_path / f"{name}.wav")))
    with pytest.raises(ConfigError, match="prompts need a model"):
        DuplexAgent.load(config=AgentConfig(text_prompt="You teach chess."))
