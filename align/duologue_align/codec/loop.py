"""Run a training from the first clip to the last checkpoint, or on from where one stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from duologue.audio.files import write_wav
from duologue.errors import ConfigError
from duologue_align.checkpointing import StopRequest
from duologue_align.codec.network import evaluating
from duologue_align.codec.phones import UNKNOWN, PhoneInventory, collect_inventory, phone_loss
from duologue_align.codec.recordings import Track, list_tracks, split_tracks
from duologue_align.codec.run_folder import RunFolder
from duologue_align.codec.segments import Batch, Prefetcher, Segments
from duologue_align.codec.settings import CodecTraining
from duologue_align.codec.trainer import CodecTrainer
from duologue_align.codec.weights import load_mimi, save_mimi

_VALID_SEED = 1_000_003
_VALID_BATCH = 8
_SAMPLES = 4
_SAVE_SECONDS = 600.0
_FREE = {
    "discriminator.every",
    "discriminator.start_step",
    "losses.adversarial",
    "losses.features",
    "losses.mel",
    "losses.phases",
    "losses.stft",
    "losses.waveform",
    "run.freeze_share",
    "run.log_every",
    "run.minutes",
    "run.samples_every",
    "run.save_every",
    "run.steps",
    "run.valid_every",
    "run.weights_dtype",
}
"""Settings that a resumed run may change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Where a run reads, writes and computes.

    Attributes:
        data: Sources of training recordings.
        out: Folder of the run.
        valid: Sources of held-out recordings; none takes a share of the training's.
        channel: The only channel to learn from and to validate on; None takes all.
        init: Folder of a codec whose shape and weights a new run begins with.
        resume: Go on from the checkpoint in `out`, if there is one.
        device: "cpu" or "cuda".
        threads: Cores of torch on the CPU.
        workers: Threads that make clips.
        compile: Compile the codec's halves (CUDA).
        show_progress: Whether to draw a progress bar.
    """

    data: Sequence[str | Path]
    out: str | Path
    valid: Sequence[str | Path] = ()
    channel: int | None = None
    init: str | Path | None = None
    resume: bool = False
    device: str = "cpu"
    threads: int = 1
    workers: int = 1
    compile: bool = False
    show_progress: bool = True


def train_codec(settings: CodecTraining, options: RunOptions) -> dict[str, Any]:
    """Train until the budget ends or SIGTERM or SIGINT comes; leave a checkpoint and weights that load in moshi.

    Args:
        settings: What to train. When resuming, only the length, the intervals, the type of the written weights, the
            weights of losses of the waveform and when discriminators take part may differ from the run's own.
        options: Where.

    Returns:
        The last validation, with step, minutes, and whether the budget was used up.

    Raises:
        ConfigError: A setting cannot be, the folder holds another run, or training diverges.
        AudioError: A recording cannot be read.
        WeightsError: The checkpoint, or the codec to begin with, cannot be read.
    """
    return _Run(settings, options).go()


class _Run:
    def __init__(self, settings: CodecTraining, options: RunOptions) -> None:
        begin = None if options.init is None else load_mimi(options.init)
        if begin is not None:
            settings = replace(settings, model=begin.config)
        self.settings, self.options = settings, options
        self.device = _device(options)
        self.folder = RunFolder(options.out)
        train, valid = _tracks(settings, options)
        state = self._saved_state()
        if state is None and begin is None and settings.run.freeze_share <= 0:
            raise ConfigError("run.freeze_share is 0, but nothing is trained yet; give --init, or raise it")
        self.inventory = _inventory(settings, train) if state is None else _inventory_of(state)
        target = settings.run.target if self.inventory or settings.run.target != "auto" else "units"
        classes = len(self.inventory) if self.inventory else (settings.run.units if target == "units" else 0)
        self.trainer = CodecTrainer(settings, classes=classes, with_units=target == "units", device=self.device)
        seed, frames = settings.run.seed, settings.run.clip_frames
        framed = settings.run.framed_channel
        self.clips = Segments(
            train,
            frames=frames,
            seed=seed,
            inventory=self.inventory,
            alteration=settings.data,
            framed_channel=framed,
        )
        self.held_out = Segments(
            valid, frames=frames, seed=_VALID_SEED, inventory=self.inventory, framed_channel=framed
        )
        self.elapsed_s = 0.0
        self.last_valid: dict[str, Any] = {}
        self._latest: dict[str, torch.Tensor] = {}
        if state is not None:
            self.trainer.load_state_dict(state["trainer"])
            self.elapsed_s, self.last_valid = state["elapsed_s"], state["last_valid"]
            self.folder.cut_log(self.trainer.step)
        else:
            if begin is not None:
                self.trainer.begin_with(begin)
            if self.trainer.units is not None:
                self._start_units()
        if options.compile:
            self.trainer.network.encoder.compile()
            self.trainer.network.decoder.compile()

    def _saved_state(self) -> dict[str, Any] | None:
        if not self.folder.has_checkpoint:
            return None
        if not self.options.resume:
            raise ConfigError(f"{self.folder.path} holds a run; go on with --resume or give another --out")
        state = self.folder.load()
        saved, asked = state["settings"], self.settings.to_dict()
        for table, values in asked.items():
            for key, value in values.items():
                if saved[table].get(key) != value and f"{table}.{key}" not in _FREE:
                    raise ConfigError(f"{table}.{key} is {value!r} but the run has {saved[table].get(key)!r}; keep it")
        return state

    def _start_units(self) -> None:
        assert self.trainer.units is not None
        generator = torch.Generator().manual_seed(self.settings.run.seed)
        numbers = range(max(16, 2 * self.settings.run.units // self.settings.run.clip_frames))
        self.trainer.units.start(self.clips.batch(numbers).pcm.to(self.device), generator)

    def go(self) -> dict[str, Any]:
        run, trainer = self.settings.run, self.trainer
        first = trainer.step * run.batch
        begun = saved_at = time.monotonic()
        before_s = self.elapsed_s
        if not self.last_valid:
            self._validate()
        with (
            StopRequest() as stop,
            self._bar() as bar,
            Prefetcher(self.clips, run.batch, first_item=first, workers=self.options.workers) as batches,
        ):
            for batch in batches:
                if stop.is_set or self._progress() >= 1.0:
                    break
                was_frozen = trainer.is_frozen
                losses = trainer.train_step(batch.to(self.device), self._progress())
                self.elapsed_s = before_s + time.monotonic() - begun
                self._after_step(losses, bar)
                is_newly_frozen = trainer.is_frozen and not was_frozen
                if is_newly_frozen or trainer.step % run.save_every == 0 or time.monotonic() - saved_at > _SAVE_SECONDS:
                    self._save()
                    saved_at = time.monotonic()
        is_done = self._progress() >= 1.0
        if is_done and self.last_valid.get("step") != trainer.step:
            self._validate()
        self._save()
        return self.last_valid | {
            "step": trainer.step,
            "minutes": round(self.elapsed_s / 60, 3),
            "is_done": is_done,
            "weights": str(self.folder.path),
        }

    def _progress(self) -> float:
        run = self.settings.run
        by_steps = self.trainer.step / run.steps if run.steps else 0.0
        return max(by_steps, self.elapsed_s / (60 * run.minutes) if run.minutes else 0.0)

    def _after_step(self, losses: dict[str, torch.Tensor], bar: tqdm[Any]) -> None:
        run, step = self.settings.run, self.trainer.step
        # Some losses are not computed in every step; the log has the latest of each.
        self._latest |= losses
        if step % run.log_every == 0:
            row = {name: round(float(value), 5) for name, value in self._latest.items()}
            self._latest = {}
            rate = self.trainer.optimiser.param_groups[0]["lr"]
            self.folder.log({"step": step, "minutes": round(self.elapsed_s / 60, 3), "rate": round(rate, 8), **row})
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("mel", "phones") if name in row}, refresh=False)
        if step % run.valid_every == 0:
            self._validate()
        if step % run.samples_every == 0:
            self._write_samples()
        share = self._progress()
        bar.set_description(f"step {step}", refresh=False)
        bar.update(min(1.0, share) * 1000 - bar.n)

    def _validate(self) -> None:
        trainer, sums = self.trainer, {"mel": 0.0, "stft": 0.0}
        student, network = trainer.average.module, trainer.average.module.network
        right = voiced = known = voiced_known = 0.0
        for batch in self._valid_batches():
            with evaluating(student):
                codes = network.encode(batch.pcm) if network.quantizer.is_started else None
                output = network(batch.pcm, None)[0] if codes is None else network.decode(codes)
                share = len(batch.pcm) / self.settings.run.valid_clips
                sums["mel"] += share * float(trainer.mel(output[:, 0], batch.pcm[:, 0]))
                sums["stft"] += share * float(trainer.stft(output[:, 0], batch.pcm[:, 0]))
                if codes is None or student.head is None:
                    continue
                labels = batch.labels if trainer.units is None else trainer.units(batch.pcm)
                semantic = network.quantizer.rvq_first.codebooks[0].lookup(codes[:, 0]).transpose(1, 2)
                _, share_right, share_voiced = phone_loss(student.head(semantic), labels)
                right += float(share_right * (labels != UNKNOWN).sum())
                known += float((labels != UNKNOWN).sum())
                voiced += float(share_voiced * (labels > 0).sum())
                voiced_known += float((labels > 0).sum())
        counts = trainer.code_counts
        used = (counts > 0).float().mean(dim=1)
        shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        perplexity = torch.special.entr(shares).sum(dim=1).exp()
        row: dict[str, Any] = {"step": trainer.step, "minutes": round(self.elapsed_s / 60, 3)}
        row |= {f"valid_{name}": round(value, 5) for name, value in sums.items()}
        if known:
            row |= {"valid_phones_right": round(right / known, 4)}
            row |= {"valid_phones_right_voiced": round(voiced / max(voiced_known, 1.0), 4)}
        row |= {"restarted": int(trainer.restarted), "codes_used": [round(share, 3) for share in used.tolist()]}
        self.last_valid = row | {"perplexity": [round(value, 1) for value in perplexity.tolist()]}
        self.folder.log(self.last_valid)
        trainer.forget_codes()

    def _valid_batches(self) -> Iterator[Batch]:
        count = self.settings.run.valid_clips
        for begin in range(0, count, _VALID_BATCH):
            yield self.held_out.batch(range(begin, min(count, begin + _VALID_BATCH))).to(self.device)

    def _write_samples(self) -> None:
        network = self.trainer.average.module.network
        if not network.quantizer.is_started:
            return
        folder = self.folder.path / "samples" / f"step_{self.trainer.step:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        pcm = self.held_out.batch(range(_SAMPLES)).pcm.to(self.device)
        with evaluating(network):
            decoded = network.decode(network.encode(pcm))
        for number in range(_SAMPLES):
            write_wav(folder / f"{number}_recorded.wav", pcm[number, 0].cpu().numpy())
            write_wav(folder / f"{number}_decoded.wav", decoded[number, 0].float().clamp(-1, 1).cpu().numpy())

    def _save(self) -> None:
        names = None if self.inventory is None else self.inventory.names[1:]
        self.folder.save(
            self.trainer.step,
            {
                "settings": self.settings.to_dict(),
                "phones": names,
                "trainer": self.trainer.state_dict(),
                "elapsed_s": self.elapsed_s,
                "last_valid": self.last_valid,
            },
        )
        network = self.trainer.average.module.network
        if network.quantizer.is_started:
            save_mimi(network, self.folder.path, dtype=self.settings.run.weights_dtype)

    def _bar(self) -> tqdm[Any]:
        form = "{desc} |{bar}| {percentage:3.1f}% [{elapsed}<{remaining}{postfix}]"
        return tqdm(
            total=1000, bar_format=form, disable=not self.options.show_progress, file=sys.stderr, smoothing=0.05
        )


def _device(options: RunOptions) -> torch.device:
    if options.device not in ("cpu", "cuda"):
        raise ConfigError(f"device is {options.device!r}; use cpu or cuda")
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("device is cuda but torch sees no CUDA device; use --device cpu")
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    torch.set_num_threads(options.threads)
    return torch.device(options.device)


def _tracks(settings: CodecTraining, options: RunOptions) -> tuple[list[Track], list[Track]]:
    tracks = list_tracks(options.data, options.channel)
    if options.valid:
        return tracks, list_tracks(options.valid, options.channel)
    return split_tracks(tracks, settings.run.held_out_share)


def _inventory(settings: CodecTraining, tracks: Sequence[Track]) -> PhoneInventory | None:
    if settings.run.target not in ("auto", "phones"):
        return None
    found = collect_inventory(track.phones() for track in tracks)
    if found is None and settings.run.target == "phones":
        raise ConfigError("run.target is phones but no alignment file has any; write them or use run.target=units")
    return found


def _inventory_of(state: dict[str, Any]) -> PhoneInventory | None:
    return None if state["phones"] is None else PhoneInventory(state["phones"])
