"""The small untrained bundle: complete, deterministic, whole or absent."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from duologue.codec import Mimi, MimiConfig
from duologue.errors import ConfigError
from duologue.model import Checkpoint
from duologue.model.small_tokenizer import train_small_tokenizer
from duologue.untrained import SMALL_MIMI, random_weights, small_config, write_untrained_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "small"
    write_untrained_bundle(folder, seed=4)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_holds_every_part(bundle: Path) -> None:
    checkpoint = Checkpoint.open(bundle)
    assert checkpoint.config == small_config()
    assert checkpoint.mimi_path is not None
    assert json.loads(checkpoint.mimi_config_path.read_text()) == SMALL_MIMI
    assert checkpoint.tokenizer_path is not None
    assert sum(np.prod(ref.shape) for ref in checkpoint.tensors.values()) < 10_000_000
    mimi = Mimi.load(checkpoint.mimi_path, config=MimiConfig.from_dict(SMALL_MIMI))
    assert mimi.cardinality == checkpoint.config.card
    codes = mimi.stream().encode_step(np.zeros(1920, dtype=np.float32))
    assert codes.shape == (checkpoint.config.user_q,)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint.tokenizer_path))
    assert tokenizer.get_piece_size() == checkpoint.config.text_card


def test_same_seed_same_bytes(bundle: Path, tmp_path: Path) -> None:
    write_untrained_bundle(tmp_path / "again", seed=4)
    assert digests(tmp_path / "again") == digests(bundle)
    write_untrained_bundle(tmp_path / "other", seed=5)
    assert digests(tmp_path / "other")["model.safetensors"] != digests(bundle)["model.safetensors"]


def test_never_overwrites_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_untrained_bundle(folder)
    with pytest.raises(ConfigError, match="codec has 100 codes"):
        write_untrained_bundle(tmp_path / "b", mimi_config={**SMALL_MIMI, "quantizer": {"bins": 100}})
    monkeypatch.setattr("duologue.untrained.train_small_tokenizer", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_untrained_bundle(tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_tokenizer_encodes_any_plain_text() -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=train_small_tokenizer(512))
    text = '<system> Zany, quick "jokes" @ 9% (v2)! <system>'
    pieces = tokenizer.encode(text)
    assert 0 not in pieces
    assert tokenizer.decode(pieces) == text
    assert [tokenizer.is_unknown(0), tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()] == [True, 1, 2, 3]


def test_weights_do_not_depend_on_the_order_of_use() -> None:
    first, second = random_weights(small_config(), seed=1), random_weights(small_config(), seed=1)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
