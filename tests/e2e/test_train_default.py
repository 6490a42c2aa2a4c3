"""What makes the default agent: the driver's commands exist, stages are skipped when done, the card tells all."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from adapter_case import write_base
from duologue_align.cli import _build_parser
from duologue_align.sft.outcome import WANTED

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "align" / "train_default.sh"
CARD = ROOT / "benchmarks" / "model_card.py"


def commands() -> list[list[str]]:
    printed = subprocess.run([DRIVER, "--dry-run", "OUT"], capture_output=True, text=True, check=True).stdout
    return [shlex.split(line) for line in printed.splitlines()]


def test_every_command_of_the_driver_is_one_that_exists() -> None:
    found = commands()
    aligner = [command[1:] for command in found if command[0] == "duologue-align"]
    names = [arguments[0] for arguments in aligner]
    order = [
        "synth",
        "synth",
        "synth",
        "synth",
        "train-codec",
        "train-codec",
        "tokenizer",
        "encode",
        "encode",
        "sft",
        "export",
        "eval-codec",
        "eval-codec",
        "eval-codec",
        "synth",
        "mine",
        "train",
        "export",
    ]
    assert names == order
    for arguments in aligner:
        _build_parser().parse_args(arguments)
    scripts = [command[1] for command in found if command[0] == "python"]
    assert scripts == ["benchmarks/default_agent.py", "benchmarks/default_agent.py", "benchmarks/model_card.py"]
    for command in found:
        if command[0] == "python":
            script = [sys.executable, str(ROOT / command[1]), *command[2:]]
            done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
            assert "unrecognized" not in done.stderr


def test_a_stage_that_is_done_is_skipped_and_one_that_fails_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "duologue-align"
    fake.write_text('#!/bin/sh\necho "$1" >> "$CALLS"\n[ "$1" != tokenizer ]\n')
    fake.chmod(0o755)
    copy = tmp_path / "align" / "train_default.sh"
    copy.parent.mkdir()
    copy.write_text(DRIVER.read_text())
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    for _ in range(2):
        done = subprocess.run(["bash", copy, "out"], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0
    calls = (tmp_path / "calls").read_text().split()
    assert calls == ["synth"] * 4 + ["train-codec"] * 2 + ["tokenizer"] * 2
    assert "train-codec: done" in done.stdout
    assert "h on one core" in done.stdout


def results(**changes: Any) -> dict[str, Any]:
    figures = {name: 0.5 for name in WANTED} | {f"{name}_ci": [0.4, 0.6] for name in WANTED}
    others = {name: dict.fromkeys(WANTED, 0.1) for name in ("corpus", "silent")}
    return {
        **figures,
        "met": {name: name != "yield_rate_2s" for name in WANTED},
        "others": others,
        "degenerate_matches": [],
        "is_untrained": False,
        "users": 40,
        "seconds": 120.0,
        "seeds": [0, 1, 2],
        "date": "2026-11-23",
        "git": "abc1234",
        "relevance_gain": 0.0312,
        "relevance_turns": 812,
        "relevance_p_value": None,
        "frame_p50_ms": 9.0,
        "frame_p95_ms": 12.5,
        "calls": {"call.wav": dict.fromkeys(WANTED, 0.25)},
        **changes,
    }


def write_card(tmp_path: Path, agent: dict[str, Any], base: dict[str, Any] | None = None) -> str:
    bundle = tmp_path / "bundle"
    if not bundle.is_dir():
        write_base(bundle)
    columns = ("wer_original", "wer_decoded", "wer_increase", "vad_agreement", "dnsmos_original", "dnsmos_decoded")
    voice = {"seconds": 600.0, **dict.fromkeys(columns, 0.125), "ci95": {column: [0.1, 0.15] for column in columns}}
    (tmp_path / "agent.json").write_text(json.dumps(agent))
    codec = {"sets": {"agent": voice, "unseen": voice}, "codebook_use": [0.75, 1.0]}
    (tmp_path / "codec.json").write_text(json.dumps(codec))
    for name, row in (("codec_run", {"minutes": 600.0}), ("sft_run", {"seconds": 9000.0})):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 20000, **row}) + "\n")
    arguments = ["--bundle", bundle, "--agent", tmp_path / "agent.json", "--codec", tmp_path / "codec.json"]
    arguments += [
        "--codec-run",
        tmp_path / "codec_run",
        "--sft-run",
        tmp_path / "sft_run",
        "--history",
        "In two stages.",
    ]
    if base is not None:
        (tmp_path / "base.json").write_text(json.dumps(base))
        arguments += ["--base", tmp_path / "base.json"]
    subprocess.run([sys.executable, CARD, *arguments], check=True, capture_output=True)
    return (bundle / "MODEL_CARD.md").read_text()


def test_the_card_tells_what_alignment_changed(tmp_path: Path) -> None:
    card = write_card(tmp_path, results(), results(answered_within_2s=0.25))
    assert "| what | value | 95 % CI | wanted | met | before alignment |" in card
    assert "| share of user turns answered within 2 s | 0.50 | 0.40 to 0.60 | 0.85 to 1 | yes | 0.25 | 0.10 |" in card


def test_the_card_tells_data_cost_behaviour_limits_and_hashes(tmp_path: Path) -> None:
    card = write_card(tmp_path, results())
    assert "chitchat-dataset" in card
    assert "In 60% of the dialogues the agent behaves well" in card
    assert "the codec 20000 steps in 10.0 h, the language model 20000 steps in 2.5 h. In two stages." in card
    assert "duologue-align sft duologue-mini" in card
    assert "| share of user turns answered within 2 s | 0.50 | 0.40 to 0.60 | 0.85 to 1 | yes | 0.10 | 0.10 |" in card
    assert "misses what was wanted of it here: share of interruptions to which it yields within 2 s." in card
    assert "0.125 [0.100, 0.150]" in card
    assert "Entries used by agent, unseen: 75%, 100%" in card
    assert "* Its codec misses what was wanted: wer increase of agent 0.125, at most 0.05." in card
    assert "* Its codec misses what was wanted: dnsmos decoded of agent 0.125, at least 2.7." in card
    assert "wanted: wer increase of unseen" not in card
    assert "(p = -)" in card
    assert "call.wav" in card
    digest = hashlib.sha256((tmp_path / "bundle" / "model.safetensors").read_bytes()).hexdigest()
    assert f"{digest}  model.safetensors" in card
    assert "{" not in card
    worse = write_card(tmp_path, results(is_untrained=True, degenerate_matches=["silent"], calls={}))
    assert "These weights are untrained." in worse
    assert "An agent that understands nothing does as well: silent." in worse


def test_a_result_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, CARD, "--bundle", tmp_path, "--agent", tmp_path / "none.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--json" in done.stderr
