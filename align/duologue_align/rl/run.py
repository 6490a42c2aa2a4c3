"""A whole alignment run: converse, reward, learn, validate, keep.

OUT/settings.json          the settings in force
OUT/metrics.jsonl          one object per step; "valid" holds a validation
OUT/checkpoints/           step-NNNNNNNNN.safetensors, the newest few
OUT/adapter/               the newest policy, for export: peft's files and moshi's lora.safetensors (or a whole model)
OUT/samples/NNNNNN/        conversations on dev segments: page, WAVs, takes.jsonl
OUT/test.json              the model before and after on test segments, if asked for
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from duologue.errors import ConfigError
from duologue.model.checkpoint import Checkpoint
from duologue.model.load import load_model, parse_dtype
from duologue.replacing import replace_file
from duologue_align.checkpointing import Checkpoints, StopRequest
from duologue_align.corpus.conversation import Split
from duologue_align.evaluation.ears import Ears
from duologue_align.judge.panel import JudgePanel
from duologue_align.rewards import RewardPreset
from duologue_align.rl.adapter import make_trained
from duologue_align.rl.grading import Graded, Grader
from duologue_align.rl.listener import Heard, Listener
from duologue_align.rl.objective import batch_standardise
from duologue_align.rl.rollout import Rollouts, roll_out_all
from duologue_align.rl.sampler import Group, Sampler, read_pool
from duologue_align.rl.samples import write_samples
from duologue_align.rl.scenes import SceneMaker, open_bundle
from duologue_align.rl.settings import AlignSettings, DataSettings, RewardSettings, changed_fields
from duologue_align.rl.trainer import GrpoTrainer, Lesson
from duologue_align.rl.trial import Take, Trial, summarise
from duologue_align.segments.reader import MANIFEST
from duologue_align.sft.journal import Journal
from duologue_align.sft.processes import Processes

_MAY_CHANGE = {
    "model",
    "data.segments",
    "data.test_segments",
    "run.steps",
    "run.rows",
    "run.train_rows",
    "run.recompute",
    "run.gap_alarm",
} | {
    f"run.{name}"
    for name in ("valid_every", "valid_segments", "test_segments", "test_judge", "samples", "save_every", "keep")
}
TEST, TEST_FORMAT = "test.json", 2
TEST_REWARD = "duologue"
"""Rewards by which runs are compared, whatever they were trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignResult:
    """How a run ended.

    Attributes:
        step: Steps done.
        is_finished: Whether it came to its end; else it was stopped and can be resumed.
        adapter: What was learnt, for export.
        valid: The last validation; empty in all processes but the first.
    """

    step: int
    is_finished: bool
    adapter: Path
    valid: dict[str, Any]


def train(
    settings: AlignSettings,
    out: str | Path,
    *,
    device: str = "cpu",
    is_resumed: bool = False,
    threads: int = 1,
    show_progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> AlignResult:
    """Align a model, or go on aligning it.

    Args:
        settings: All of them.
        out: Folder of the run.
        device: "cpu" or "cuda".
        is_resumed: Whether to go on from the newest checkpoint in `out`, if there is one.
        threads: Rollouts decoded at once.
        show_progress: Whether to draw a progress bar.
        tell: Takes lines for the user.

    Raises:
        ConfigError: Model, segments, settings or folder do not fit each other.
        WeightsError: A checkpoint or the model cannot be read.
        MissingExtraError: peft, or a package of the judge, is not installed.
    """
    run = _Run(settings, Path(out), device=device, is_resumed=is_resumed, threads=threads, tell=tell or _silence)
    try:
        return run.go(show_progress=show_progress)
    finally:
        run.close()


class _Run:
    """Everything that the loop works with."""

    def __init__(
        self,
        settings: AlignSettings,
        out: Path,
        *,
        device: str,
        is_resumed: bool,
        threads: int,
        tell: Callable[[str], None],
    ) -> None:
        self.settings, self.out, self.threads = settings, out, threads
        self.processes = Processes.join(device)
        self.tell = tell if self.processes.is_first else _silence
        if settings.run.groups % self.processes.count:
            raise ConfigError(
                f"run.groups is {settings.run.groups}; it must divide by {self.processes.count} processes"
            )
        preset = RewardPreset.load(settings.reward.preset)
        judge = JudgePanel.load(settings.reward.judge) if settings.reward.judge else None
        ears = Ears.open(settings.reward.transcriber) if settings.reward.transcriber else None
        self.grader = Grader(preset, settings.reward, judge, ears)
        data = settings.data
        pool = read_pool(data.segments, "train", self.grader.axes, data, tell=self.tell)
        self.bundle = open_bundle(settings.model, text_prompt=settings.prompt.text, voice_prompt=settings.prompt.voice)
        self.settings = settings = settings.sampled_as(self.bundle.checkpoint.sampling)
        every = [segment for members in pool.values() for segment in members]
        self.maker = SceneMaker(self.bundle, history=data.history, silence_s=data.silence_s, segments=every)
        shares = {axis: share for axis, share in self.grader.axes.items() if axis in pool}
        self.sampler = Sampler(pool, shares, data, steps=settings.run.steps, seed=settings.run.seed)
        self.listener = Listener(
            self.bundle.mimi, self.bundle.tokenizer, detector=settings.reward.detector, ears=ears, threads=threads
        )
        self.trainer = self._make_trainer(device)
        self.trial: Trial | None = None
        self.checkpoints = Checkpoints(out / "checkpoints", keep=settings.run.keep)
        self.signatures = {
            "base": _digest(*_weights_of(self.bundle.checkpoint)),
            "segments": _digest(Path(data.segments) / MANIFEST),
        }
        self.seconds, self.valid = 0.0, dict[str, Any]()
        self._resume(is_resumed)
        self.journal = Journal(out, self.trainer.step, is_writing=self.processes.is_first)
        if self.processes.is_first:
            replace_file(out / "settings.json", json.dumps(settings.to_dict(), indent=1).encode())

    def close(self) -> None:
        """Let go of files, threads and the other processes."""
        if hasattr(self, "journal"):
            self.journal.close()
        self.listener.close()
        self.processes.leave()

    def go(self, *, show_progress: bool) -> AlignResult:
        """Run to the end or to a request to stop."""
        run, trainer = self.settings.run, self.trainer
        count = sum(parameter.numel() for parameter in trainer.trained.parameters())
        self.tell(f"{count / 1e6:.2f} M trained weights; each step {run.groups} segments x {run.completions} rollouts")
        is_shown = show_progress and self.processes.is_first
        begun, is_stopped = time.perf_counter() - self.seconds, False
        with (
            StopRequest() as stop,
            tqdm(total=run.steps, initial=trainer.step, unit="step", disable=not is_shown) as bar,
        ):
            if trainer.step == 0 and run.valid_every:
                self._validate()
            while trainer.step < run.steps and not is_stopped:
                self._step(bar)
                self.seconds = time.perf_counter() - begun
                is_stopped, is_over = self.processes.any(stop.is_set), trainer.step >= run.steps
                if is_over or (run.valid_every and trainer.step % run.valid_every == 0):
                    self._validate()
                if is_stopped or is_over or trainer.step % run.save_every == 0:
                    self._save()
            is_finished = trainer.step >= run.steps
            if is_finished:
                self._test(stop)
        if not is_finished:
            self.tell(f"stopped after step {trainer.step}; continue with --resume")
        return AlignResult(step=trainer.step, is_finished=is_finished, adapter=self.out / "adapter", valid=self.valid)

    def _make_trainer(self, device: str) -> GrpoTrainer:
        run, rank = self.settings.run, self.settings.adapter.rank
        place = f"cuda:{self.processes.local_rank}" if device == "cuda" else device
        # On a GPU the frozen weights are shared between policy and talker; the updates are float32 in any case.
        dtype = run.dtype if device == "cuda" and rank else "float32"
        torch.manual_seed(run.seed)
        model = load_model(self.bundle.checkpoint, device=place, dtype=dtype)
        trained = make_trained(model, self.settings.adapter, dtype=parse_dtype(run.dtype))
        return GrpoTrainer(trained, self.settings, processes=self.processes)

    def _resume(self, is_resumed: bool) -> None:
        saved = self.checkpoints.load_latest() if is_resumed else None
        if not is_resumed and self.checkpoints.found():
            raise ConfigError(f"{self.out} holds a run; continue it with --resume, or give another --out")
        if saved is None:
            return
        changed = set(changed_fields(saved["settings"], _plain(self.settings.to_dict()))) - _MAY_CHANGE
        if changed:
            raise ConfigError(f"the run was begun with another {min(changed)}; --resume cannot change it")
        for name, setting in (("base", "model"), ("segments", "data.segments")):
            if saved["signatures"][name] != self.signatures[name]:
                raise ConfigError(f"the run was begun with another {name}; give the same {setting} to --resume")
        self.trainer.load_state(saved["trainer"])
        self.seconds, self.valid = saved["seconds"], dict(saved["valid"])

    def _step(self, bar: Any) -> None:
        """Take one step and note what it was like."""
        clock, run, step = _Clock(), self.settings.run, self.trainer.step
        places = range(self.processes.rank, run.groups, self.processes.count)
        groups = [self.sampler.group(step, place) for place in places]
        self.trainer.trained.refresh()
        scenes = [self.maker.make(group.segment, group.context_frames) for group in groups]
        clock.lap("prepare")
        rollouts = self._converse(groups, scenes)
        clock.lap("rollout")
        heard = self.listener.hear(rollouts, [scene for scene in scenes for _ in range(run.completions)])
        clock.lap("listen")
        graded = [
            self.grader.grade(group.segment, heard[index * run.completions : (index + 1) * run.completions])
            for index, group in enumerate(groups)
        ]
        clock.lap("grade")
        lesson, flat = self._lesson(rollouts, graded)
        row = self.trainer.learn(lesson)
        clock.lap("learn")
        self._note(row, rollouts, heard, graded, flat, clock)
        bar.update(1)
        bar.set_postfix(reward=f"{row['reward']:.3f}", kl=f"{row['kl']:.4f}")

    def _converse(self, groups: Sequence[Group], scenes: Sequence[Any]) -> Rollouts:
        run = self.settings.run
        every = [scene for scene in scenes for _ in range(run.completions)]
        seeds = [(*group.seed, number) for group in groups for number in range(run.completions)]
        return roll_out_all(self.trainer.trained.talker, every, seeds, self.settings.draws, rows=run.rows)

    def _lesson(self, rollouts: Rollouts, graded: Sequence[Sequence[Graded]]) -> tuple[Lesson, int]:
        settings, device = self.settings, rollouts.positions.device
        found = np.stack([self.grader.advantages(group) for group in graded])
        advantages = torch.from_numpy(found.reshape(-1)).float().to(device)
        is_flat = ~found.any(axis=1)
        if settings.reward.batch_normalise:
            count = self.processes.count * len(advantages)
            mean_square = self.processes.sum(advantages.square().sum()) / count
            advantages = batch_standardise(advantages, mean_square)
        counts = ~is_flat if settings.reward.skip_flat else np.ones_like(is_flat)
        completions = settings.run.completions
        embeddings = None if self.bundle.prompt is None else self.bundle.prompt.embeddings
        lesson = Lesson(
            rollouts=rollouts,
            advantages=advantages,
            counts=torch.from_numpy(np.repeat(counts, completions)).to(device),
            parts=torch.arange(len(advantages), device=device) % completions % settings.optimiser.passes,
            embeddings=None if embeddings is None else torch.from_numpy(embeddings).to(device),
        )
        return lesson, int(is_flat.sum())

    def _note(
        self,
        row: dict[str, Any],
        rollouts: Rollouts,
        heard: Sequence[Heard],
        graded: Sequence[Sequence[Graded]],
        flat: int,
        clock: _Clock,
    ) -> None:
        run = self.settings.run
        every = self.processes.gather([item for group in graded for item in group])
        row |= reward_row(every)
        row["flat_share"] = float(np.mean(self.processes.gather([flat]))) * self.processes.count / run.groups
        row["speech_share"] = float(np.mean(self.processes.gather([float(item.activity.mean()) for item in heard])))
        frames = sum(self.processes.gather([int(rollouts.lengths.sum())]))
        took = sum(clock.laps.values())
        row["frames"] = frames
        row["frames_per_s"] = frames / took
        row["tokens_per_s"] = frames * (1 + self.bundle.config.dep_q) / took
        row["rollout_frames_per_s"] = frames / clock.laps["rollout"]
        row["learn_frames_per_s"] = frames / clock.laps["learn"]
        row["time_s"] = {name: round(spent, 3) for name, spent in clock.laps.items()}
        is_alarm = row["gap_kl"] > run.gap_alarm
        if is_alarm:
            self.tell(
                f"step {self.trainer.step}: rollouts and update disagree by {row['gap_kl']:.2g} nats a token "
                f"(run.gap_alarm is {run.gap_alarm:g}); use run.dtype = 'float32' and run.precision = 'float32'"
            )
        row["gap_alarm"] = int(is_alarm)
        row["seconds"] = round(self.seconds + took, 1)
        self.journal.write(self.trainer.step, {"step": self.trainer.step, **row})
        if (row["actions"] and not math.isfinite(row["kl"])) or not math.isfinite(row["grad_norm"]):
            raise ConfigError(
                f"the divergence is {row['kl']} at step {self.trainer.step}: the training has diverged; begin again "
                "with a lower optimiser.learning_rate or a higher objective.kl"
            )

    def _trial(self, place: str, split: Split, per_axis: int, grader: Grader, data: DataSettings) -> Trial:
        pool = read_pool(place, split, grader.axes, data, tell=self.tell, is_needed=False)
        return Trial(pool, self.maker, per_axis=per_axis, seed=self.settings.run.seed)

    def _measure(self, trial: Trial, listener: Listener, grader: Grader, *, is_frozen: bool = False) -> list[Take]:
        self.trainer.trained.refresh(is_frozen=is_frozen)
        if not self.processes.is_first:
            return []
        talker, rows = self.trainer.trained.talker, self.settings.run.rows
        return trial.run(talker, listener, grader, self.settings.draws, rows=rows)

    def _validate(self) -> None:
        run, step, data = self.settings.run, self.trainer.step, self.settings.data
        if run.valid_segments:
            self.trial = self.trial or self._trial(data.segments, "dev", run.valid_segments, self.grader, data)
            takes = self._measure(self.trial, self.listener, self.grader)
            if self.processes.is_first:
                self.valid = summarise([take.row() for take in takes])
                self.journal.write(step, {"step": step, "valid": _flat(self.valid)})
                folder = self.out / "samples" / f"{step:06d}"
                write_samples(folder, takes, self.valid, step=step, count=run.samples)
        self.processes.wait()

    def _test(self, stop: StopRequest) -> None:
        count, place = self.settings.run.test_segments, self.settings.data.test_segments or self.settings.data.segments
        if not count:
            return
        judge = self.settings.run.test_judge or self.settings.reward.judge
        key = {"test": _digest(Path(place) / MANIFEST), "count": count, "judge": judge, "step": self.trainer.step}
        key |= {"format": TEST_FORMAT, **self.signatures}
        if not self.processes.any(self.processes.is_first and _key_of(self.out / TEST) != key):
            return
        grader = Grader(RewardPreset.load(TEST_REWARD), RewardSettings(), JudgePanel.load(judge) if judge else None)
        trial = self._trial(place, "test", count, grader, DataSettings())
        listener = Listener(self.bundle.mimi, self.bundle.tokenizer, threads=self.threads)
        found: dict[str, Any] = {}
        for name, is_frozen in (("before", True), ("after", False)):
            if self.processes.any(stop.is_set):
                self.tell("stopped before the test was done; --resume makes up for it")
                break
            rows = [take.row() for take in self._measure(trial, listener, grader, is_frozen=is_frozen)]
            found[name] = {"summary": summarise(rows), "takes": rows} if rows else {}
        listener.close()
        if self.processes.is_first and len(found) == 2:
            content = {"key": key, "settings": self.settings.to_dict(), "seconds": self.seconds, **found}
            replace_file(self.out / TEST, json.dumps(content).encode())
        self.processes.wait()

    def _save(self) -> None:
        state = self.trainer.state()
        self.trainer.trained.refresh()
        if self.processes.is_first:
            tree = {"settings": _plain(self.settings.to_dict()), "signatures": self.signatures}
            tree |= {"seconds": self.seconds}
            self.checkpoints.save(self.trainer.step, tree | {"valid": self.valid, "trainer": state})
            self.trainer.trained.save(self.out / "adapter", self.bundle.checkpoint)
        self.processes.wait()


def reward_row(graded: Sequence[Graded]) -> dict[str, Any]:
    """Return the means of a step: "reward" over all, "axis" by axis, "component" by axis and name."""
    axes = dict.fromkeys(item.axis for item in graded)
    totals = {axis: _mean([item.total for item in graded if item.axis == axis]) for axis in axes}
    components = {
        f"{axis}/{name}": _mean([item.components[name] for item in graded if item.axis == axis])
        for axis in axes
        for name in next(item for item in graded if item.axis == axis).components
    }
    return {"reward": _mean([item.total for item in graded]), "axis": totals, "component": components}


class _Clock:
    """Seconds spent on the parts of a step, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a part."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _flat(summary: dict[str, Any]) -> dict[str, Any]:
    found = {axis: item["value"] for axis, item in summary["axes"].items()}
    found |= {name: item["value"] for name, item in summary["rates"].items()}
    return found | {name: summary[name]["value"] for name in ("fto_median_s", "judge", "speech_share")}


def _plain(tables: Any) -> Any:
    return json.loads(json.dumps(tables))


def _weights_of(checkpoint: Checkpoint) -> list[Path]:
    files = {block.path for tensor in checkpoint.tensors.values() for block in tensor.blocks}
    return [*sorted(files), *([checkpoint.lora_path] if checkpoint.lora_path else [])]


def _digest(*paths: Path) -> str:
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return whole.hexdigest()[:16]


def _key_of(test: Path) -> Any:
    """Return what a comparison was made of, or None if there is none to be read."""
    try:
        return json.loads(test.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError):
        return None


def _silence(line: str) -> None:
    """Tell nobody."""
