"""A whole supervised run: steps, metrics, validation, samples, checkpoints, and the bundle at the end.

OUT/settings.json        the settings in force
OUT/metrics.jsonl        one object per logged step; "valid" holds a validation
OUT/checkpoints/         step-NNNNNNNNN.safetensors, the newest few
OUT/samples/NNNNNN/      conversations with held-out users, WAV and text
OUT/bundle/              what the runtime loads, written at the end
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from duologue.config import Sampling
from duologue.errors import ConfigError, MissingExtraError
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.load import load_model
from duologue_align.checkpointing import Checkpoints, StopRequest
from duologue_align.sft.bundle import write_bundle
from duologue_align.sft.journal import Journal
from duologue_align.sft.processes import Processes
from duologue_align.sft.samples import write_samples
from duologue_align.sft.settings import SftSettings
from duologue_align.sft.shards import Codes
from duologue_align.sft.trainer import SftTrainer
from duologue_align.sft.validation import held_out_windows, validate
from duologue_align.sft.windows import BatchFeed, WindowBatches, check_fit

_MAY_CHANGE = {
    "run": {"steps", "minutes", "micro_batch", "compile", "recompute", "log_every", "valid_every", "save_every", "keep"}
    | {"samples_every", "samples", "sample_s", "weights_dtype"},
    "sampling": {field.name for field in fields(Sampling)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SftResult:
    """How a run ended.

    Attributes:
        step: Steps done.
        is_finished: Whether it came to its end; else it was stopped and can be resumed.
        bundle: The written bundle, or None when stopped.
        valid: The last validation; empty in all processes but the first.
    """

    step: int
    is_finished: bool
    bundle: Path | None
    valid: dict[str, float]


def train(
    settings: SftSettings,
    data: str | Path,
    out: str | Path,
    *,
    valid: str | Path | None = None,
    device: str = "cpu",
    start: str | Path | None = None,
    is_resumed: bool = False,
    show_progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> SftResult:
    """Train, or go on training.

    Args:
        settings: All of them.
        data: Folder of encoded dialogues.
        out: Folder of the run.
        valid: Encoded held-out dialogues; None holds back a share of `data`.
        device: "cpu" or "cuda".
        start: Model folder to begin with instead of random weights.
        is_resumed: Whether to go on from the newest checkpoint in `out`.
        show_progress: Whether to draw a progress bar.
        tell: Takes lines for the user.

    Raises:
        ConfigError: Data, settings or folder do not fit each other.
        WeightsError: A checkpoint or the model to begin with cannot be read.
    """
    run = _Run(settings, Path(data), Path(out), valid=valid, device=device, start=start, is_resumed=is_resumed)
    try:
        return run.go(show_progress=show_progress, tell=tell or _silence)
    finally:
        run.journal.close()
        run.feed.close()
        run.processes.leave()


class _Run:
    """Everything that the loop works with."""

    def __init__(
        self,
        settings: SftSettings,
        data: Path,
        out: Path,
        *,
        valid: str | Path | None,
        device: str,
        start: str | Path | None,
        is_resumed: bool,
    ) -> None:
        self.settings, self.out = settings, out
        self.processes = Processes.join(device)
        if settings.run.batch % self.processes.count:
            raise ConfigError(f"run.batch is {settings.run.batch}; it must divide by {self.processes.count} processes")
        self.codes = Codes(data)
        index = self.codes.index
        self.config = settings.lm_config(card=index.card, text_card=index.text_card)
        self.held_out = Codes(valid) if valid is not None else self.codes
        check_fit(self.held_out, self.config)
        training, self.held_numbers = split(self.codes, None if valid is not None else settings.run.held_out_share)
        self.batches = WindowBatches(
            self.codes,
            self.config,
            numbers=training,
            length=settings.run.window_frames,
            batch=settings.run.batch,
            seed=settings.run.seed,
        )
        if valid is not None:
            self.held_numbers = list(range(len(self.held_out)))
        self.feed = BatchFeed(self.batches, rank=self.processes.rank, ranks=self.processes.count)
        self.checkpoints = Checkpoints(out / "checkpoints", keep=settings.run.keep)
        saved = self.checkpoints.load_latest() if is_resumed else None
        if not is_resumed and self.checkpoints.found():
            raise ConfigError(f"{out} holds a run; continue it with --resume, or give another --out")
        first = None if start is None or saved is not None else _start(start, self.config)
        place = f"cuda:{self.processes.local_rank}" if device == "cuda" else device
        self.trainer = SftTrainer(settings, self.config, device=place, start=first, processes=self.processes)
        self.seconds = 0.0
        if saved is not None:
            _check_same(settings, saved["settings"], index.source, saved["source"])
            self.trainer.load_state(saved["trainer"])
            self.seconds = saved["seconds"]
        self.valid = dict(saved["valid"]) if saved is not None else {}
        self.windows = held_out_windows(
            self.held_out,
            self.config,
            numbers=self.held_numbers,
            length=settings.run.window_frames,
            count=settings.run.valid_windows,
        )
        self.journal = Journal(out, self.trainer.step, is_writing=self.processes.is_first)
        if self.processes.is_first:
            (out / "settings.json").write_text(json.dumps(settings.to_dict(), indent=1), encoding="utf-8")

    def go(self, *, show_progress: bool, tell: Callable[[str], None]) -> SftResult:
        """Run to the end or to a request to stop."""
        run, trainer = self.settings.run, self.trainer
        if not self.processes.is_first:
            tell = _silence
        weights = sum(parameter.numel() for parameter in trainer.model.parameters())
        minutes = self.codes.index.frames / 12.5 / 60
        tell(
            f"{weights / 1e6:.1f} M weights, {len(self.codes)} dialogues, {minutes:.0f} min; "
            f"{self.batches.steps_per_round:.1f} steps see the data once; {len(self.windows)} windows for validation"
        )
        is_shown = show_progress and self.processes.is_first
        with (
            StopRequest() as stop,
            tqdm(total=run.steps, initial=trainer.step, unit="step", disable=not is_shown) as bar,
        ):
            begun, is_stopped = time.perf_counter() - self.seconds, False
            is_over = self._is_over()
            while not is_over and not is_stopped:
                self._step(bar)
                self.seconds = time.perf_counter() - begun
                is_stopped, is_over = self.processes.any(stop.is_set), self._is_over()
                if trainer.step % run.valid_every == 0 or is_over:
                    self._validate()
                if run.samples_every and trainer.step % run.samples_every == 0:
                    self._sample(tell)
                if is_stopped or is_over or trainer.step % run.save_every == 0:
                    self._save()
        if not is_over:
            tell(f"stopped after step {trainer.step}; continue with --resume")
            return SftResult(step=trainer.step, is_finished=False, bundle=None, valid=self.valid)
        bundle = self._finish()
        found = self.valid.get("loss", math.nan)
        tell(f"{bundle}: valid loss {found:.4f} after {trainer.step} steps, {self.seconds / 60:.1f} min")
        return SftResult(step=trainer.step, is_finished=True, bundle=bundle, valid=self.valid)

    def _step(self, bar: Any) -> None:
        run, trainer = self.settings.run, self.trainer
        before = time.perf_counter()
        row = trainer.train_step(self.feed.take(trainer.step), self._done())
        if not math.isfinite(row["loss"]):
            raise ConfigError(
                f"the loss is {row['loss']} at step {trainer.step}: the training has diverged; "
                f"begin again with a lower optimiser.learning_rate"
            )
        took = time.perf_counter() - before
        bar.update(1)
        step = trainer.step
        row["frames_per_s"] = run.batch * run.window_frames / took
        row["tokens_per_s"] = row["frames_per_s"] * (1 + self.config.dep_q)
        if step % run.log_every == 0:
            bar.set_postfix(loss=f"{row['loss']:.3f}", tok_s=f"{row['tokens_per_s']:.0f}")
            self.journal.write(step, {"step": step, **row, "seconds": round(self.seconds + took, 1)})

    def _done(self) -> float:
        run = self.settings.run
        by_clock = self.seconds / 60 / run.minutes if run.minutes else 0.0
        return min(1.0, max(self.trainer.step / run.steps, by_clock))

    def _is_over(self) -> bool:
        run = self.settings.run
        is_late = bool(run.minutes) and self.seconds >= run.minutes * 60
        return self.trainer.step >= run.steps or (bool(run.minutes) and self.processes.any(is_late))

    def _validate(self) -> None:
        if self.processes.is_first:
            self.valid = validate(
                self.trainer.average.module,
                self.windows,
                self.settings.loss,
                batch=max(1, self.settings.run.micro_batch or self.settings.run.batch // self.processes.count),
                autocast=self.trainer.autocast(),
            )
            self.journal.write(self.trainer.step, {"step": self.trainer.step, "valid": self.valid})
        self.processes.wait()

    def _sample(self, tell: Callable[[str], None]) -> None:
        run = self.settings.run
        if self.processes.is_first and run.samples:
            out = self.out / "samples" / f"{self.trainer.step:06d}"
            numbers = self.held_numbers[: run.samples]
            try:
                write_samples(
                    self.trainer.averaged_model,
                    self.held_out,
                    numbers,
                    out,
                    length_s=run.sample_s,
                    sampling=self.settings.sampling,
                )
            except MissingExtraError as error:
                tell(f"no sample conversations: {error}")
        self.processes.wait()

    def _save(self) -> None:
        if self.processes.is_first:
            tree = {"settings": self.settings.to_dict(), "source": self.codes.index.source, "seconds": self.seconds}
            tree |= {"valid": self.valid, "trainer": self.trainer.state()}
            self.checkpoints.save(self.trainer.step, tree)
        self.processes.wait()

    def _finish(self) -> Path:
        target = self.out / "bundle"
        if self.processes.is_first:
            dtype = self.settings.run.weights_dtype
            write_bundle(
                self.trainer.averaged_model, self.codes.folder, target, dtype=dtype, sampling=self.settings.sampling
            )
        self.processes.wait()
        return target


def split(codes: Codes, held_out_share: float | None) -> tuple[list[int], list[int]]:
    """Divide dialogues by number into those to train on and those held out, the last ones.

    Args:
        codes: The dialogues.
        held_out_share: Share to hold out, at least one; None holds out nothing.

    Raises:
        ConfigError: There is only one dialogue to divide.
    """
    count = len(codes)
    if held_out_share is None:
        return list(range(count)), []
    if count < 2:
        raise ConfigError(f"{codes.folder} holds one dialogue; encode more, or give held-out ones with --valid")
    held = min(count - 1, max(1, round(count * held_out_share)))
    return list(range(count - held)), list(range(count - held, count))


def _silence(line: str) -> None:
    """Tell nobody."""


def _start(folder: str | Path, config: LMConfig) -> Any:
    checkpoint = Checkpoint.open(folder)
    if checkpoint.config != config:
        raise ConfigError(f"{folder} holds a model of another shape than the preset with this data")
    return load_model(checkpoint)


def _check_same(settings: SftSettings, before: dict[str, Any], source: dict[str, str], old: dict[str, str]) -> None:
    now = settings.to_dict()
    for table, values in before.items():
        for key, value in values.items():
            if now[table].get(key) != value and key not in _MAY_CHANGE.get(table, ()):
                raise ConfigError(f"the run was begun with {table}.{key} = {value!r}; --resume cannot change it")
    if source != old:
        raise ConfigError("the run was begun with other data; give the same --data to --resume")
