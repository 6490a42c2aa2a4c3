"""Alignment from mined segments to an adapter: one command, stopped and resumed to the bit, refused when it must be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import rl_case  # noqa: E402
from duologue.config import Sampling  # noqa: E402
from duologue.errors import ConfigError  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.model.load import load_model  # noqa: E402
from duologue.types import FRAME_SAMPLES  # noqa: E402
from duologue_align import cli  # noqa: E402
from duologue_align.checkpointing import load_tree  # noqa: E402
from duologue_align.corpus.conversation import Line  # noqa: E402
from duologue_align.recipes import grpo_loop  # noqa: E402
from duologue_align.rl import run as rl_run  # noqa: E402
from duologue_align.rl.listener import Listener  # noqa: E402
from duologue_align.rl.objective import clipped_surrogate, exact_kl, kept_logprobs  # noqa: E402
from duologue_align.rl.rollout import roll_out  # noqa: E402
from duologue_align.rl.scenes import SceneMaker, open_bundle  # noqa: E402
from duologue_align.rl.settings import AlignSettings  # noqa: E402
from duologue_align.segments.reader import read_segments  # noqa: E402
from duologue_align.sft.encode import encode_channel  # noqa: E402
from duologue_align.sft.journal import read_journal  # noqa: E402

TIMES = ("seconds", "time_s", "frames_per_s", "tokens_per_s", "rollout_frames_per_s", "learn_frames_per_s")
SMALL = [
    "run.steps=3",
    "run.groups=2",
    "run.completions=2",
    "run.valid_every=0",
    "run.valid_segments=0",
    "run.save_every=2",
    "data.longest_s=9",
    "data.context_s=2.0",
    "adapter.rank=2",
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("align")
    rl_case.write_segments(folder, rl_case.write_agent(folder / "agent"))
    return folder


def settings_of(case: Path, *changes: str) -> AlignSettings:
    places = [f"model={case / 'agent'}", f"data.segments={json.dumps(str(case / 'mined'))}"]
    return AlignSettings.load("duologue", [*places, *SMALL, *changes])


def timeless(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read_journal(out)]


def test_one_command_aligns_an_agent(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["train", "duologue", "--model", str(case / "agent"), "--segments", str(case / "mined")]
    command += ["--out", str(out), "--device", "cpu", "--threads", "1", "--quiet", "--steps", "1"]
    changes = [*SMALL[1:3], *SMALL[6:], "run.valid_every=1", "run.valid_segments=1", "run.samples=1"]
    for change in [*changes, "run.test_segments=1", "run.gap_alarm=0"]:
        command += ["--set", change]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert "rollouts and update disagree" in printed.err
    result = json.loads(printed.out.splitlines()[-1])
    assert result == {"step": 1, "is_finished": True, "adapter": str(out / "adapter")}

    rows = read_journal(out)
    (row,) = [row for row in rows if "reward" in row]
    assert {"kl", "entropy", "clip_share", "gap_kl", "gap_max", "tokens_per_s", "axis", "component"} <= row.keys()
    assert (row["gap_kl"] < 1e-6, row["gap_alarm"]) == (True, 1)
    assert set(row["time_s"]) == {"prepare", "rollout", "listen", "grade", "learn"}
    assert [row["step"] for row in rows if "valid" in row] == [0, 1]
    folder = out / "samples" / "000001"
    (wav,) = folder.glob("*.wav")
    stereo, rate = soundfile.read(wav)
    assert (stereo.shape[1], rate) == (2, 24_000)
    assert np.abs(stereo).max(axis=0).min() > 0
    assert wav.name in (folder / "index.html").read_text()
    assert "NaN" not in (out / "test.json").read_text() + (folder / "takes.jsonl").read_text()
    test = json.loads((out / "test.json").read_text())
    assert {take["axis"] for take in test["before"]["takes"]} == {take["axis"] for take in test["after"]["takes"]}
    assert Checkpoint.open(case / "agent", lora=out / "adapter" / "lora.safetensors").lora


def test_a_stopped_run_goes_on_to_the_same_end(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the first step; what follows --resume is the uninterrupted run to the bit."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    rl_run.train(settings_of(case), straight)
    learn = rl_run.GrpoTrainer.learn

    def interrupted(trainer: Any, lesson: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return learn(trainer, lesson)

    with monkeypatch.context() as patch:
        patch.setattr(rl_run.GrpoTrainer, "learn", interrupted)
        stopped = rl_run.train(settings_of(case), broken)
    assert (stopped.step, stopped.is_finished) == (1, False)
    with pytest.raises(ConfigError, match="--resume"):
        rl_run.train(settings_of(case), broken)
    with pytest.raises(ConfigError, match=r"objective\.kl"):
        rl_run.train(settings_of(case, "objective.kl=0.5"), broken, is_resumed=True)
    other = rl_case.write_agent(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="another base"):
        rl_run.train(settings_of(case, f"model={other}"), broken, is_resumed=True)
    assert rl_run.train(settings_of(case), broken, is_resumed=True).is_finished
    assert timeless(straight) == timeless(broken)
    ends = [
        load_tree(folder / "checkpoints" / "step-000000003.safetensors")["trainer"] for folder in (straight, broken)
    ]
    for name, tensor in ends[0]["trained"].items():
        assert torch.equal(tensor, ends[1]["trained"][name]), name


@pytest.mark.parametrize("place", ["learn", "test"])
def test_who_stops_at_the_end_keeps_the_run(
    place: str, case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(case, "run.steps=1", "run.test_segments=1")
    owner, name = {"learn": (rl_run.GrpoTrainer, "learn"), "test": (rl_run._Run, "_measure")}[place]
    wrapped = getattr(owner, name)

    def interrupted(*inputs: Any, **options: Any) -> Any:
        if place == "learn" or options.get("is_frozen"):
            os.kill(os.getpid(), signal.SIGTERM)
        return wrapped(*inputs, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        stopped = rl_run.train(settings, tmp_path)
    assert (stopped.step, stopped.is_finished) == (1, True)
    assert (tmp_path / "checkpoints" / "step-000000001.safetensors").is_file()
    assert not (tmp_path / "test.json").exists()
    assert rl_run.train(settings, tmp_path, is_resumed=True).is_finished
    assert (tmp_path / "test.json").is_file()


def test_the_comparison_is_made_again_when_asked_otherwise(case: Path, tmp_path: Path) -> None:
    """Another folder of test segments is used, and an old comparison is not taken for the new one."""
    first = settings_of(case, "run.steps=1", "run.test_segments=1", "reward.detector=speech")
    rl_run.train(first, tmp_path / "run")
    found = tmp_path / "run" / "test.json"
    before = json.loads(found.read_text())
    rl_run.train(first, tmp_path / "run", is_resumed=True)
    assert json.loads(found.read_text()) == before
    shutil.copytree(case / "mined", tmp_path / "mined")
    rows = [json.loads(line) for line in (tmp_path / "mined" / "segments.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row.get("split") != "test" or row["axis"] == "pause"]
    assert len(kept) < len(rows)
    (tmp_path / "mined" / "segments.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    place = f"data.test_segments={json.dumps(str(tmp_path / 'mined'))}"
    rl_run.train(settings_of(case, "run.steps=1", "run.test_segments=1", "reward.detector=speech", place),
                 tmp_path / "run", is_resumed=True)  # fmt: skip
    after = json.loads(found.read_text())
    assert {take["axis"] for take in after["before"]["takes"]} == {"pause"}
    assert len({take["axis"] for take in before["before"]["takes"]}) > 1


_TWO = """
import sys
import torch
from duologue_align.rl.run import train
from duologue_align.rl.settings import AlignSettings

torch.set_num_threads(1)
train(AlignSettings.load("duologue", sys.argv[2:]), sys.argv[1])
"""


def test_two_processes_run_as_one(case: Path, tmp_path: Path) -> None:
    """The whole of `train` under two gloo processes, a validation and the test of the first among them."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed package")
    changes = [f"model={case / 'agent'}", f"data.segments={json.dumps(str(case / 'mined'))}", *SMALL]
    changes += ["run.steps=1", "run.test_segments=1", "data.context_share=0.0"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(tmp_path / "two"), *changes],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    rl_run.train(AlignSettings.load("duologue", changes), tmp_path / "one")
    two, one = ([row for row in read_journal(tmp_path / name) if "reward" in row] for name in ("two", "one"))
    assert [row["frames"] for row in two] == [row["frames"] for row in one]
    for name in ("reward", "kl", "entropy", "grad_norm", "flat_share"):
        assert two[0][name] == pytest.approx(one[0][name], rel=2e-3, abs=1e-6, nan_ok=True), name
    assert (tmp_path / "two" / "test.json").is_file()


def test_a_model_with_prompts_is_trained_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PersonaPlex in small: a voice file and a role stand before every conversation, and no frame of them is learnt."""
    config = replace(rl_case.CONFIG, card=2048)
    agent = rl_case.write_agent(tmp_path / "agent", config=config)
    mined = rl_case.write_segments(tmp_path, agent)
    voice = {
        "embeddings": torch.randn(5, 1, 1, config.dim),
        "cache": torch.full((1, config.num_streams, config.max_delay + 3), 3),
    }
    torch.save(voice, tmp_path / "voice.pt")
    lessons: list[Any] = []
    learn = rl_run.GrpoTrainer.learn
    monkeypatch.setattr(rl_run.GrpoTrainer, "learn", lambda own, lesson: lessons.append(lesson) or learn(own, lesson))
    changes = [f"model={agent}", f"data.segments={json.dumps(str(mined))}", *SMALL, "run.steps=1"]
    changes += ['prompt.text="You are kind."', f"prompt.voice={json.dumps(str(tmp_path / 'voice.pt'))}"]
    settings = AlignSettings.load("duologue", [*changes, "data.context_share=0.0", "reward.skip_flat=false"])
    assert rl_run.train(settings, tmp_path / "run").is_finished
    (lesson,) = lessons
    prompt = open_bundle(str(agent), text_prompt="You are kind.", voice_prompt=str(tmp_path / "voice.pt")).prompt
    assert prompt is not None
    fixed = len(prompt.tokens)
    assert fixed > 5
    torch.testing.assert_close(lesson.embeddings, torch.from_numpy(prompt.embeddings))
    rollouts = lesson.rollouts
    assert torch.equal(rollouts.positions[0, 0, 1:fixed], torch.from_numpy(prompt.tokens[1:fixed, 0]))
    assert not rollouts.is_action[:, 0, : fixed - 1].any()
    assert rollouts.is_action[:, 0, fixed - 1 :].any(1).all()
    (row,) = [row for row in read_journal(tmp_path / "run") if "reward" in row]
    assert row["gap_kl"] < 1e-6, "rollout and update see the same prompt"


def test_what_comes_before_a_segment(case: Path) -> None:
    bundle = open_bundle(str(case / "agent"))
    segments = read_segments(case / "mined", split="train")
    segment = next(s for s in segments if s.context_frames >= 30 and s.pcm("agent", context_s=2.4)[:50_000].any())
    said = Line("agent", segment.start_s - 1.6, segment.start_s - 0.8, "hello you")
    other = replace(segment, id="other", is_swapped=not segment.is_swapped, lines=(replace(said, side="user"),))
    free = SceneMaker(bundle, silence_s=0.8).make(segment, 30)
    assert (free.given.shape[1], free.user.shape[1], free.first) == (0, 40 + segment.frames, 40)
    assert (free.user[:, 10:] == segment.user_codes(context_frames=30)).all()

    given = SceneMaker(bundle, history="recorded", silence_s=0.8, segments=[segment, other]).make(segment, 30)
    assert (given.given.shape[1], given.first) == (40, 40)
    assert (given.given[9:, 10:] == free.user[:, 10:40]).all()
    assert (given.user == free.user[:, 40:]).all()
    pcm = segment.pcm("agent", context_s=2.4)[: 30 * FRAME_SAMPLES]
    assert (given.given[1:9, 10:] == encode_channel(bundle.mimi.stream(), pcm)).all()
    spoken = "".join(bundle.tokenizer.piece(int(token)) for token in given.given[0])
    assert spoken.split() == ["hello", "you"]
    assert given.given[0, : 10 + 10].tolist() == [3] * 19 + [0]
    rollouts = roll_out(load_model(bundle.checkpoint), [given, given], [(1,), (2,)], Sampling())
    assert int(rollouts.is_action[0, 0].sum()) == segment.frames
    heard = Listener(bundle.mimi, bundle.tokenizer).hear(rollouts, [given, given])
    assert [len(item.activity) for item in heard] == [8 * segment.frames] * 2
    assert [len(item.pcm) for item in heard] == [FRAME_SAMPLES * segment.frames] * 2
    mute = rollouts.heard.clone()
    mute[:, 0], mute[:, 1:] = 7, -2
    (silent, _) = Listener(bundle.mimi, bundle.tokenizer).hear(replace(rollouts, heard=mute), [given, given])
    assert bundle.tokenizer.piece(7).strip()
    assert silent.text == "", "words that do not sound are not heard"


def test_the_flat_twin_runs_and_has_the_same_loss(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--model", str(case / "agent"), "--segments", str(case / "mined"), "--out", str(tmp_path / "adapter")]
    assert grpo_loop.main([*places, "--steps", "2", "--completions", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["reward"]) for row in rows)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()

    draw = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 3, 5, 40, generator=draw).mul(2).unbind(0)
    tokens, old = torch.randint(0, 40, (3, 5), generator=draw), torch.randn(3, 5, generator=draw) - 3
    gains = torch.tensor([1.0, -0.5, 0.2])
    found = grpo_loop.grpo_loss(policy, reference, tokens, old, gains)
    flat = kept_logprobs(policy.flatten(0, 1), tokens.flatten(), temperature=0.7, kept=25, padding_bias=torch.zeros(40))
    spread = gains[:, None].expand(3, 5).flatten()
    value = clipped_surrogate(flat, old.flatten(), spread, low=0.2, high=0.2)
    value = value - 0.01 * exact_kl(policy.flatten(0, 1), reference.flatten(0, 1))
    torch.testing.assert_close(found, -value.mean())
