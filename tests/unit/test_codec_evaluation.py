"""The evaluation's own arithmetic, with listeners whose answers are known."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")
pytest.importorskip("duologue._native")

from duologue.codec import MimiConfig
from duologue.codec.untrained import write_untrained_mimi
from duologue.errors import ConfigError, MissingExtraError
from duologue.types import Pcm
from duologue_align.cli import main
from duologue_align.codec import evaluate
from duologue_align.codec.evaluate import EvaluationOptions, evaluate_codec, table
from duologue_align.codec.word_errors import spoken_words, word_errors

SHAPE = MimiConfig(
    n_filters=8, dimension=32, d_model=32, num_heads=2, num_layers=1, dim_feedforward=32, codebook_dim=16,
    cardinality=64, total_codebooks=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec")
    write_untrained_mimi(folder / "mimi.safetensors", SHAPE, seed=0)
    (folder / "mimi_config.json").write_text(json.dumps(SHAPE.to_dict()))
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, demo_user: Path) -> Path:
    """Ten seconds of speech as the agent of a dialogue, with made-up words in two utterances."""
    folder = tmp_path_factory.mktemp("calls")
    pcm = soundfile.read(demo_user, dtype="float32")[0][:240_000]
    soundfile.write(folder / "one.wav", np.stack([pcm, 0 * pcm], axis=1), 24_000)
    words = [["Hello,", [1.0, 1.4]], ["there.", [1.5, 1.9]], ["Good", [4.0, 4.2]], ["day", [4.3, 4.6]]]
    content = {"alignments": [[word, span, "SPEAKER_MAIN"] for word, span in words]}
    (folder / "one.json").write_text(json.dumps(content))
    return folder


class LoudnessListener:
    """Hears "hello there" or "good bye", and nothing at all when it is too quiet; scores how loud it is."""

    def __init__(self, *, threads: int = 1) -> None:
        self.calls: list[int] = []

    def transcribe(self, pcm: Pcm) -> str:
        self.calls.append(len(pcm))
        if len(self.calls) % 2 == 0:
            return "hello"
        return "Hello, there!" if len(self.calls) == 1 else "Good bye"

    def score(self, pcm: Pcm) -> float:
        return float(np.abs(pcm).max())


def test_words_are_compared_as_spoken() -> None:
    assert spoken_words("Okay, I'm 3 years OLD - gonna [laughs] leave.") == [
        "okay", "im", "three", "years", "old", "going", "to", "leave",
    ]  # fmt: skip
    assert spoken_words("Mm-hm. ok") == ["mm", "hm", "okay"]
    assert spoken_words(" . ") == []


@pytest.mark.parametrize(
    ("reference", "found", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a b c", "a x c d", 2),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a b", "b a", 2),
    ],
)
def test_word_errors_are_the_least_changes(reference: str, found: str, errors: int) -> None:
    assert word_errors(reference.split(), found.split()) == errors


def test_rates_are_over_the_words_of_the_alignments(
    codec: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "Recogniser", LoudnessListener)
    monkeypatch.setattr(evaluate, "QualityJudge", LoudnessListener)
    result = evaluate_codec(codec, {"agent": calls}, EvaluationOptions(channel=0, save=tmp_path))
    row = result["sets"]["agent"]
    assert row["words"] == 4
    assert row["wer_original"] == 1 / 4
    assert row["wer_decoded"] == 3 / 4
    assert row["wer_increase"] == 1 / 2
    assert row["seconds"] == 10.0
    assert row["recordings"] == 1
    assert row["ci95"]["wer_increase"] == [1 / 2, 1 / 2], "one recording alone cannot vary"
    assert 0 <= row["vad_agreement"] <= 1
    assert row["dnsmos_original"] > 0.01
    assert row["dnsmos_original"] != row["dnsmos_decoded"]
    assert len(result["codebook_use"]) == 8
    assert all(1 / 64 <= share <= 1 for share in result["codebook_use"])
    decoded = soundfile.read(tmp_path / "agent" / "one_0.wav")[0]
    assert len(decoded) == 240_000
    assert "agent" in table(result)
    assert json.loads(json.dumps(result)) == result


def test_a_perfect_codec_agrees_with_itself(codec: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_through", lambda mimi, pcm, counts: pcm)
    options = EvaluationOptions(channel=0, with_asr=False, with_quality=False, seconds=5.0)
    row = evaluate_codec(codec, {"calls": calls}, options)["sets"]["calls"]
    assert row["vad_agreement"] == 1.0
    assert row["seconds"] == 5.0
    assert row["wer_decoded"] is None
    silent = evaluate_codec(codec, {"calls": calls}, EvaluationOptions(channel=1, with_asr=False, with_quality=False))
    assert silent["sets"]["calls"]["vad_agreement"] == 1.0


def test_the_command_prints_a_table_and_one_json_line(
    codec: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval-codec", str(codec), "--data", f"calls={calls}", "--no-asr", "--no-quality", "--seconds", "4"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("set")
    assert json.loads(lines[-1])["sets"]["calls"]["seconds"] == 4.0


def test_missing_packages_and_sets_are_named(codec: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="speechmos is not installed"):
        evaluate_codec(codec, {"calls": calls}, EvaluationOptions(with_asr=False))
    with pytest.raises(ConfigError, match="has a channel 5"):
        evaluate_codec(codec, {"calls": calls}, EvaluationOptions(with_asr=False, with_quality=False, channel=5))
