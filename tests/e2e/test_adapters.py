"""One base model, an adapter per session: chosen without loading the base again, equal to the merged model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapter_case import CARD, EVERYTHING, write_adapter, write_base
from duologue import AgentConfig, DuplexAgent
from duologue.agent import bundled_agent_facts
from duologue.errors import ConfigError, WeightsError
from duologue.model.checkpoint import Checkpoint
from duologue.talk.choice import AgentLoader, choice_names
from duologue.types import FRAME_SAMPLES


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("adapters") / "base")


@pytest.fixture(scope="module")
def adapters(base: Path) -> tuple[Path, Path]:
    first = write_adapter(base.parent / "polite", base)
    second = write_adapter(base.parent / "brisk", base, form="peft", prefix=EVERYTHING, rank=2, scaling=0.5, seed=2)
    return first, second


def tokens(agent: DuplexAgent, adapter: str | None, frames: int = 20) -> list[list[int]]:
    stream = agent.engine.stream(seed=0, sampling=agent.sampling, adapter=adapter)
    users = np.random.default_rng(0).integers(0, CARD, (frames, 8), dtype=np.int32)
    outputs = [stream.step(user) for user in users]
    return [[output.text_token, *output.agent_codes.tolist()] for output in outputs if output.agent_codes is not None]


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_a_session_with_an_adapter_speaks_as_the_merged_model(
    engine: str, base: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    if engine == "torch":
        pytest.importorskip("torch").set_num_threads(1)
    greedy = {"engine": engine, "temperature_text": 0, "temperature_audio": 0}
    agent = DuplexAgent.load(base, AgentConfig.from_dict({**greedy, "adapters": [str(path) for path in adapters]}))
    spoken = {name: tokens(agent, name) for name in (None, "polite", "brisk")}
    assert len({json.dumps(said) for said in spoken.values()}) == 3
    assert tokens(agent, None) == spoken[None]
    assert spoken[None] == tokens(DuplexAgent.load(base, AgentConfig.from_dict(greedy)), None)
    for path in adapters:
        merged = tmp_path / path.name
        merged.mkdir()
        checkpoint = Checkpoint.open(base, lora=path)
        save_file({name: checkpoint.numpy(name) for name in checkpoint.tensors}, merged / "model.safetensors")
        for part in ("config.json", "mimi.safetensors", "mimi_config.json", "tokenizer.model"):
            (merged / part).symlink_to(base / part)
        assert tokens(DuplexAgent.load(merged, AgentConfig.from_dict(greedy)), None) == spoken[path.name], path.name


def test_sessions_choose_by_name_and_share_everything_else(base: Path, adapters: tuple[Path, Path]) -> None:
    agent = DuplexAgent.load(base, AgentConfig(adapters=tuple(map(str, adapters))))
    frame = np.random.default_rng(0).uniform(-0.1, 0.1, FRAME_SAMPLES).astype(np.float32)
    heard = {}
    for name in (None, "polite", "brisk"):
        with agent.session(seed=1, adapter=name) as session:
            heard[name] = np.concatenate([session.step(frame).pcm for _ in range(6)])
    assert not np.array_equal(heard[None], heard["polite"])
    assert not np.array_equal(heard["brisk"], heard["polite"])
    with pytest.raises(ConfigError, match="no adapter 'rude' is loaded; loaded: polite, brisk"):
        agent.session(adapter="rude")


def test_the_default_agent_converses_aligned_and_is_its_base_by_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "duologue-mini"
    shutil.copytree(base, folder)
    monkeypatch.setattr("duologue.agent.BUNDLED", folder)
    greedy = AgentConfig(temperature_text=0, temperature_audio=0)
    frames = np.random.default_rng(0).uniform(-0.1, 0.1, (6, FRAME_SAMPLES)).astype(np.float32)

    def said(agent: DuplexAgent) -> np.ndarray:
        with agent.session() as session:
            return np.concatenate([session.step(frame).pcm for frame in frames])

    assert DuplexAgent.load(config=greedy).adapter is None
    plain = said(DuplexAgent.load(config=greedy))
    write_adapter(folder / "mini-aligned", folder)
    agent = DuplexAgent.load(config=greedy)
    assert agent.adapter == "mini-aligned"
    assert not np.array_equal(said(agent), plain)
    assert np.array_equal(said(DuplexAgent.load("duologue-mini", greedy)), plain)
    facts = bundled_agent_facts()
    assert "mini-aligned/lora.safetensors" in facts


def test_talk_offers_every_adapter(base: Path, adapters: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue.talk.choice._keep_terminal_clean", lambda: None)
    config = AgentConfig(adapters=(str(adapters[0]),))
    names = choice_names(["a", "echo"], config.adapters)
    assert names == ("a", "a + polite", "echo")
    choice = AgentLoader(names=(str(base), "echo"), config=config)()
    frame = np.full(FRAME_SAMPLES, 0.01, dtype=np.float32)
    heard = []
    for index in range(len(names)):
        with choice.session(seed=5 * len(names) + index) as session:
            heard.append(np.concatenate([session.step(frame).pcm for _ in range(4)]))
    assert not np.array_equal(heard[0], heard[1])
    assert np.array_equal(heard[2], np.tile(frame, 4))


def test_what_is_no_adapter_of_this_model_is_refused(base: Path, adapters: tuple[Path, Path], tmp_path: Path) -> None:
    def load(*paths: Path) -> None:
        DuplexAgent.load(base, AgentConfig(adapters=tuple(map(str, paths))))

    with pytest.raises(WeightsError, match="no adapter at"):
        load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="two adapters are called 'polite'"):
        load(adapters[0], adapters[0])
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    save_file(
        {"transformer.layers.9.gating.linear_in.lora_A.weight": np.zeros((2, 64), np.float32)}, wrong / "a.safetensors"
    )
    with pytest.raises(WeightsError, match="fits no linear layer"):
        load(wrong / "a.safetensors")
    embedding = load_file(base / "model.safetensors")["text_emb.weight"]
    save_file({"text_emb.weight": embedding}, wrong / "lora.safetensors")
    with pytest.raises(ConfigError, match="replaces whole tensors"):
        load(wrong)
