"""`duologue-align evaluate` from data to report, with the default agent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from duologue.agent import has_bundled_agent
from duologue.audio.files import AudioFile, write_wav
from duologue_align.cli import main
from mine_cases import write_stereo

QUICK = [
    "--quiet",
    "--judge",
    "none",
    "--per-axis",
    "1",
    "--seeds",
    "1",
    "--conversations",
    "2",
    "--seconds",
    "5.2",
    "--lead",
    "0.4",
]


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    write_stereo(folder / "in" / "a.wav")
    rules = ["--set", "detector=level", "--set", "test_share=1", "--set", "dev_share=0", "--set", "longest_s=9"]
    rules += [
        "--set",
        "turn_min_s=4",
        "--set",
        "hold_min_s=99",
        "--set",
        "interruption_min_s=99",
        "--set",
        "user_backchannel_min_s=99",
    ]
    assert main(["mine", str(folder / "in"), "--out", str(folder / "mined"), "--codec", "none", "--quiet", *rules]) == 0
    return folder / "mined"


@pytest.fixture(scope="module")
def evaluated(mined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    bundle = tmp_path_factory.mktemp("base") / "bundle"
    from duologue.untrained import write_untrained_bundle

    write_untrained_bundle(bundle, seed=1)
    assert main(["evaluate", str(mined), "--out", str(out), "--base", str(bundle), *QUICK]) == 0
    return out


def test_the_report_holds_both_parts_with_intervals_and_scripted_agents(evaluated: Path) -> None:
    report = json.loads((evaluated / "report.json").read_text())
    assert report["agents"].keys() == {"agent", "base"}
    assert ("untrained" in report["note"]) != has_bundled_agent()
    for part in ("static", "dynamic"):
        figures = report[part]["figures"]
        assert {"agent", "base", "silent", "always talking", "echo"} <= figures.keys()
        share = figures["silent"]["floor" if part == "dynamic" else "turn"]
        assert share["speech_share" if part == "dynamic" else "answered_rate"] | {"n": 0} == {
            "value": 0.0,
            "ci": [0.0, 0.0],
            "n": 0,
        }
        assert report[part]["minus_agent"].keys() == figures.keys() - {"agent"}
    assert "recorded human" in report["static"]["figures"]
    assert report["static"]["figures"]["recorded human"]["mean"]["reward"]["value"] > 0.7
    assert "simulated person" in report["dynamic"]["figures"]
    page = (evaluated / "report.html").read_text()
    assert "Against what it was aligned from" in page
    assert page.count("<svg") > 8
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "nan" not in page


def test_takes_lie_in_the_layout_of_the_benchmark(evaluated: Path) -> None:
    for task, marker in (("smooth_turn_taking", "turn_taking.json"), ("pause_handling", "pause.json")):
        axis = marker.split("_")[0].removesuffix(".json")
        folders = list((evaluated / "takes" / "agent" / "seed-0" / task).iterdir())
        assert folders
        index = json.loads((evaluated / "takes" / "index.json").read_text())[task]
        for folder in folders:
            assert folder.name.isdigit()
            assert f"-{axis}-" in index[folder.name]
            output, rate = soundfile.read(folder / "output.wav")
            given, _ = soundfile.read(folder / "input.wav")
            assert (len(output), rate) == (len(given), 24_000)
            assert all(len(c["timestamp"]) == 2 for c in json.loads((folder / "output.json").read_text())["chunks"])
            assert json.loads((folder / marker).read_text())[0]["timestamp"]
    stereo, _ = soundfile.read(evaluated / "conversations" / "agent" / "000.wav")
    assert stereo.shape == (65 * 1920, 2)


def test_a_second_run_reuses_what_the_first_one_played(
    evaluated: Path, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(evaluated, tmp_path / "copy")
    before = json.loads((out / "report.json").read_text())

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("played again")

    monkeypatch.setattr("duologue_align.evaluation.static.play", refuse)
    monkeypatch.setattr("duologue_align.evaluation.dynamic.converse", refuse)
    assert main(["evaluate", str(mined), "--out", str(out), *QUICK]) == 0
    after = json.loads((out / "report.json").read_text())
    for part in ("static", "dynamic"):
        assert after[part]["figures"]["agent"] == before[part]["figures"]["agent"]


def test_samples_of_the_benchmark_are_evaluated(
    demo_user: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1", "2"):
        (tmp_path / "in" / name).mkdir(parents=True)
    with AudioFile(demo_user) as file:
        write_wav(tmp_path / "in" / "1" / "input.wav", file.read()[: 4 * 24_000])
    (tmp_path / "in" / "1" / "turn_taking.json").write_text('[{"text": "[TURN-TAKING]", "timestamp": [3.0, 3.4]}]')
    write_wav(tmp_path / "in" / "2" / "input.wav", np.zeros(24_000, dtype=np.float32))
    command = ["evaluate", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--only", "static", "--json", *QUICK]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["static"]["items"]["turn"] == 1
    assert report["rejected"] == [{"name": "2", "reason": "nobody speaks in input.wav"}]
    folder = tmp_path / "out" / "takes" / "agent" / "seed-0" / "smooth_turn_taking" / "1"
    assert {path.name for path in folder.iterdir()} == {"input.wav", "output.wav", "output.json", "turn_taking.json"}


def test_options_of_the_conversations_reach_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    given: list[Any] = []

    def take_down(contestants: Any, data: Any, options: Any, **_: Any) -> None:
        given.append(options)
        raise Enough

    monkeypatch.setattr("duologue_align.evaluation.evaluate.evaluate", take_down)
    command = ["evaluate", "--out", str(tmp_path), "--judge", "none", "--realtime", "--transcriber", "whisper:mine"]
    with pytest.raises(Enough):
        main(command)
    assert given[0].dynamic.realtime
    assert given[0].transcriber == "whisper:mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "neither what `duologue-align mine` wrote"),
        (["--only", "static"], "give data"),
        (["--agent", "nowhere", "--user", "recorded"], "nowhere"),
        (["--user", "recorded"], "--user synth"),
        (["--seconds", "1"], "give 5 to 3600"),
        (["--conversations", "0"], "give 1 or more"),
        (["--judge", "nobody.toml", "--user", "recorded"], "nobody.toml"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = [] if "--judge" in arguments else ["--judge", "none"]
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "out"), "--quiet", *quiet]) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1
