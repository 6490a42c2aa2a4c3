"""Agent settings: strict in names, types and ranges, from Python, TOML and JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from duologue.config import AgentConfig, Sampling
from duologue.errors import ConfigError


@pytest.mark.parametrize(("name", "text"), [("a.toml", "threads = 2\n"), ("a.json", '{"threads": 2}')])
def test_reads_toml_and_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert AgentConfig.load(tmp_path / name) == AgentConfig(threads=2)


def test_a_list_in_a_file_names_adapters(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('adapters = ["tuned/a", "tuned/b"]\nrecord = "calls"\n')
    assert AgentConfig.load(tmp_path / "a.toml") == AgentConfig(adapters=("tuned/a", "tuned/b"), record="calls")


def test_what_is_not_set_is_the_models_own() -> None:
    own = Sampling(temperature_text=0.9, top_k_audio=100)
    assert AgentConfig().sampling(own) == own
    assert AgentConfig(temperature_text=0, padding_bias=-1.0).sampling(own) == replace(
        own, temperature_text=0, padding_bias=-1.0
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thread": 2}, "unknown setting 'thread'"),
        ({"threads": 0}, "threads"),
        ({"threads": "2"}, "threads"),
        ({"threads": True}, "threads"),
        ({"engine": "tensorrt"}, "choose one of"),
        ({"temperature_text": -1.0}, "temperature_text"),
        ({"top_k_audio": 1.5}, "top_k_audio"),
        ({"text_prompt": 3}, "text_prompt"),
        ({"adapters": "tuned"}, "must be a tuple"),
        ({"adapters": ["tuned", 3]}, "must be a tuple"),
        ({"adapters": [""]}, "must be a tuple"),
        ({"record": 1}, "record"),
    ],
)
def test_refuses_what_it_does_not_know(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AgentConfig.from_dict(values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", b"threads = = 2", "not readable"),
        ("a.json", b"[1, 2]", "must be a table"),
        ("a.toml", b"\xff\xfe", "not readable"),
    ],
)
def test_refuses_a_malformed_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        AgentConfig.load(tmp_path / name)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        AgentConfig.load(tmp_path / "a.toml")
