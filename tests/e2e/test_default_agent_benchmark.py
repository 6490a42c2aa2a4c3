"""The evaluation of the default agent runs with whatever is installed and says what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import sft_case
from duologue.agent import has_bundled_agent

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "default_agent.py"
KEYS = {
    "codec_wer_increase",
    "answered_within_2s",
    "fto_median_s",
    "pause_takeover_rate",
    "backchannels_per_min",
    "yield_rate_2s",
    "speech_wer_vs_monologue",
    "relevance_p_value",
    "frame_p95_ms",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_agent_is_judged_and_called_untrained_if_it_is(tmp_path: Path) -> None:
    data = sft_case.write_corpus(tmp_path / "test" / "data_stereo", 2)
    manifest = (data / "data.jsonl").read_text().replace('"path": "', '"path": "data_stereo/')
    (tmp_path / "test" / "data.jsonl").write_text(manifest)
    (tmp_path / "test" / "facts").mkdir()
    turns = [{"side": "user", "start_s": 0.2 + k, "end_s": 0.9 + k, "text": f"turn {k}"} for k in range(3)]
    for number in range(2):
        (tmp_path / "test" / "facts" / f"d{number}.json").write_text(json.dumps({"turns": turns}))
    done = run(
        "--data",
        str(tmp_path / "test"),
        "--quick",
        "--seconds",
        "3",
        "--no-asr",
        "--json",
        str(tmp_path / "out" / "r.json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() >= KEYS
    assert result == json.loads((tmp_path / "out" / "r.json").read_text())
    assert result["is_untrained"] != has_bundled_agent()
    assert ("UNTRAINED" in done.stdout) != has_bundled_agent()
    assert result["frame_p95_ms"] > 0
    assert result["degenerate_matches"] == []
    assert len(result["answered_within_2s_ci"]) == 2
    for row in ("agent", "corpus", "silent", "always talking", "two mm-hm", "echo", "wanted"):
        assert f"\n{row} " in done.stdout


def test_missing_data_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    done = run("--data", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "duologue-align synth" in done.stderr
