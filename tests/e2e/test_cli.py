"""The command line: exit codes, one-line errors, JSON, and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from adapter_case import CARD, write_base
from duologue import DuplexAgent
from duologue.agent import has_bundled_agent
from duologue.cli import main


@pytest.fixture
def short_user(tmp_path: Path, demo_user: Path) -> Path:
    sound, rate_hz = soundfile.read(demo_user, dtype="float32")
    path = tmp_path / "user.wav"
    soundfile.write(path, sound[: 4 * rate_hz], rate_hz)
    return path


@pytest.mark.parametrize("command", [("run",), ("demo", "--user")])
def test_any_recording_gives_the_card_and_the_files(
    command: tuple[str, ...], short_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(short_user), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert ("untrained" in printed) != has_bundled_agent()
    assert re.search(r"A frame took \d+\.\d of 80 ms \(p95\); peak memory \d+ MB", printed)
    assert "Written:" in printed
    assert (tmp_path / "out" / "report.html").is_file()
    assert soundfile.info(tmp_path / "out" / "conversation.wav").channels == 2


def test_json_is_the_only_output(short_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(short_user), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "out" / "report.json").read_text())
    assert printed.err == ""


def test_metrics_of_a_written_conversation_equal_the_live_report(
    short_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["run", str(short_user), "--out", str(out), "--json"]) == 0
    live = json.loads(capsys.readouterr().out)
    wav = str(out / "conversation.wav")
    assert main(["metrics", wav, wav, "--user-channel", "0", "--agent-channel", "1", "--json"]) == 0
    offline = json.loads(capsys.readouterr().out)
    assert offline["turn"] == live["turn"]
    assert offline["user"] == live["user"]


def test_info_names_the_instruction_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["isa"] in facts["isa_available"]
    assert facts["default_agent"]["name"].startswith("duologue-mini" if has_bundled_agent() else "untrained")
    assert main(["info"]) == 0


def test_a_trained_agent_in_the_package_is_the_default_and_named_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_base(tmp_path / "duologue-mini")
    monkeypatch.setattr("duologue.agent.BUNDLED", folder)
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["default_agent"]
    assert list(facts) == ["name", "mimi.safetensors", "model.safetensors", "tokenizer.model"]
    assert facts["model.safetensors"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    agent = DuplexAgent.load()
    assert agent.note == ""
    assert agent.mimi.cardinality == CARD


def _nan(path: Path) -> None:
    pcm = np.zeros(24_000, dtype=np.float32)
    pcm[20_000] = np.nan
    soundfile.write(path, pcm, 24_000, subtype="FLOAT")


BAD_INPUTS = {
    "missing": (lambda path: None, 3, "no such file"),
    "not audio": (lambda path: path.write_text("hello"), 3, "not a readable recording"),
    "empty file": (lambda path: path.write_bytes(b""), 3, "not a readable recording"),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), 24_000), 3, "empty"),
    "wrong rate": (lambda path: soundfile.write(path, np.zeros(2_000), 1_000), 3, "out of range"),
    "stereo": (lambda path: soundfile.write(path, np.zeros((2_000, 2)), 24_000), 3, "choose one of them"),
    "NaN": (_nan, 3, "is nan"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_recordings(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, code, message = BAD_INPUTS[case]
    make(tmp_path / "in.wav")
    assert main(["run", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out")]) == code
    _expect_one_line(capsys, message)
    assert [path.name for path in tmp_path.iterdir() if path.name != "in.wav"] == []


def test_bad_model_folder(short_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    for agent in (tmp_path / "model", tmp_path / "nowhere"):
        assert main(["run", str(short_user), "--out", str(tmp_path / "out"), "--agent", str(agent)]) in (2, 3)
        _expect_one_line(capsys, str(agent))
    assert not (tmp_path / "out").exists()


def test_bad_settings(short_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text("thread = 2")
    arguments = ["run", str(short_user), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--config", str(tmp_path / "a.toml")]) == 2
    _expect_one_line(capsys, "unknown setting 'thread'")
    assert main([*arguments, "--threads", "0"]) == 2
    _expect_one_line(capsys, "threads")
    assert main([*arguments, "--seed", "-1"]) == 2
    _expect_one_line(capsys, "seed")
    assert not (tmp_path / "out").exists()


def test_output_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m duologue.cli info | true",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_terminal_without_utf8_still_shows_the_card(short_user: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "duologue.cli", "metrics", str(short_user), str(short_user)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unwritable_place_is_named_before_the_work(short_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", str(short_user), str(short_user), "--out", "/proc/out"]) == 2
    _expect_one_line(capsys, "/proc/out: cannot write there")


def test_module_run_has_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "duologue.cli", "run", "nothing.wav", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def _expect_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("duologue: error: ")
    assert error.count("\n") == 1
