"""Turn recorded dialogues into shards of tokens with the native streaming codec; stop and go on at any time.

Both channels pass through a fresh codec stream, frame by frame, as a conversation's do, so that training sees what
inference sees. A shard is written when it is complete; a second run makes those that are not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from duologue.codec import Mimi, MimiConfig, MimiStream
from duologue.errors import ConfigError
from duologue.model.config import NO_TOKEN
from duologue.model.tokenizer import Tokenizer
from duologue.types import FRAME_SAMPLES, Pcm
from duologue_align.sft.dialogues import Dialogue, read_manifest
from duologue_align.sft.shards import (
    INDEX,
    MIMI,
    MIMI_CONFIG,
    TOKENIZER,
    CodesIndex,
    Tokens,
    shard_frames,
    write_shard,
)
from duologue_align.sft.text_stream import text_stream

CODEBOOKS = 8
DIALOGUES_PER_SHARD = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """What to encode with what.

    Attributes:
        data: data.jsonl, or its folder.
        codec: Codec weights.
        codec_config: Codec configuration, or None for mimi_config.json beside the weights if it is there, else the
            released codec's.
        tokenizer: SentencePiece model.
        out: Folder of the shards.
    """

    data: Path
    codec: Path
    codec_config: Path | None
    tokenizer: Path
    out: Path

    def mimi_config(self) -> MimiConfig:
        """Return the codec's configuration.

        Raises:
            ConfigError: It cannot be read.
        """
        path = self.codec_config
        if path is None and self.codec.with_name(MIMI_CONFIG).is_file():
            path = self.codec.with_name(MIMI_CONFIG)
        return MimiConfig() if path is None else MimiConfig.from_file(path)


class DialogueEncoder:
    """Codec and tokenizer, ready to encode any number of dialogues."""

    def __init__(self, mimi: Mimi, tokenizer: Tokenizer) -> None:
        self._mimi, self._tokenizer = mimi, tokenizer

    def encode(self, dialogue: Dialogue) -> Tokens:
        """Return the tokens of a dialogue, int16, shape [2 + 2 K, T]: text, agent codes, user codes, the user's text.

        The user's text is laid out like the agent's; no token (-1) throughout where nobody wrote down what users say.

        Raises:
            AudioError: The recording cannot be used.
            ConfigError: Its words cannot be read.
        """
        agent, user = dialogue.channels()
        frames = len(agent) // FRAME_SAMPLES
        text = text_stream(dialogue.words(), frames, self._tokenizer.encode)
        codes = [encode_channel(self._mimi.stream(), channel) for channel in (agent, user)]
        heard = np.full(frames, NO_TOKEN)
        if words := dialogue.words("user"):
            heard = text_stream(words, frames, self._tokenizer.encode)
        return np.concatenate([text[None], *codes, heard[None]]).astype(np.int16)


def encode_channel(stream: MimiStream, pcm: Pcm) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Return the codes, int32 [K, T], of samples [1920 T]."""
    frames = [stream.encode_step(frame) for frame in pcm.reshape(-1, FRAME_SAMPLES)]
    return np.stack(frames, axis=1)


def encode_dialogues(job: EncodeJob, *, jobs: int = 1, show_progress: bool = False) -> CodesIndex:
    """Write the shards that are not there yet, then the index.

    Args:
        job: What to encode.
        jobs: Processes.
        show_progress: Whether to draw a progress bar, in minutes of dialogue.

    Raises:
        ConfigError: `jobs` is below 1, the data cannot be read, or the folder holds shards of other data or of another
            codec or tokenizer.
        WeightsError: Codec or tokenizer cannot be read.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}; give 1 or more")
    dialogues = read_manifest(job.data)
    mimi, tokenizer = _open(job)
    index = CodesIndex(
        codebooks=CODEBOOKS,
        card=mimi.cardinality,
        text_card=len(tokenizer),
        source=_source(job, dialogues),
        dialogues=(),
    )
    if max(index.card, index.text_card) > np.iinfo(np.int16).max:
        raise ConfigError(f"the tokenizer's {index.text_card} pieces or the codec's {index.card} codes exceed int16")
    _claim(job, index)
    groups = _groups(dialogues)
    missing = [number for number, group in enumerate(groups) if not _is_complete(job.out, number, group)]
    minutes = [sum(dialogue.duration_s for dialogue in group) / 60 for group in groups]
    done = sum(minutes) - sum(minutes[number] for number in missing)
    with tqdm(total=round(sum(minutes)), initial=round(done), unit="min", disable=not show_progress) as bar:
        for number in _encode_all(job, groups, missing, jobs):
            done += minutes[number]
            bar.update(round(done) - bar.n)
    return _finish(job.out, index, groups)


def _encode_all(
    job: EncodeJob, groups: Sequence[Sequence[Dialogue]], missing: Sequence[int], jobs: int
) -> Iterator[int]:
    if jobs == 1 or len(missing) < 2:
        for number in missing:
            yield _encode_group(job, number, groups[number])
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    waiting = iter(missing)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # A few at a time, so that an interrupt does not leave a long queue behind.
        running = [pool.submit(_encode_group, job, number, groups[number]) for number in islice(waiting, 2 * jobs)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(_encode_group, job, number, groups[number]) for number in islice(waiting, 1)]


_opened: dict[EncodeJob, DialogueEncoder] = {}


def _encode_group(job: EncodeJob, number: int, group: Sequence[Dialogue]) -> int:
    if job not in _opened:
        _opened.clear()
        _opened[job] = DialogueEncoder(*_open(job))
    encoder = _opened[job]
    write_shard(_shard(job.out, number), {dialogue.name: encoder.encode(dialogue) for dialogue in group})
    return number


def _open(job: EncodeJob) -> tuple[Mimi, Tokenizer]:
    mimi = Mimi.load(job.codec, num_codebooks=CODEBOOKS, config=job.mimi_config())
    return mimi, Tokenizer(job.tokenizer)


def _groups(dialogues: Sequence[Dialogue]) -> list[Sequence[Dialogue]]:
    names = [dialogue.name for dialogue in dialogues]
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two recordings are called {double!r}; shards need different names")
    return [dialogues[begin : begin + DIALOGUES_PER_SHARD] for begin in range(0, len(dialogues), DIALOGUES_PER_SHARD)]


def _shard(out: Path, number: int) -> Path:
    return out / f"shard-{number:05d}.safetensors"


def _is_complete(out: Path, number: int, group: Sequence[Dialogue]) -> bool:
    found = shard_frames(_shard(out, number))
    return found is not None and found.keys() == {dialogue.name for dialogue in group}


def _source(job: EncodeJob, dialogues: Sequence[Dialogue]) -> dict[str, str]:
    settings = repr(job.mimi_config()).encode()
    # Where the data begins identifies it; it may grow, so later rows do not count.
    first = dialogues[0]
    data = f"{first.name} {first.duration_s}".encode() + first.path.with_suffix(".json").read_bytes()
    contents = {"codec": job.codec.read_bytes(), "codec_config": settings, "tokenizer": job.tokenizer.read_bytes()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in {**contents, "data": data}.items()}


def _claim(job: EncodeJob, index: CodesIndex) -> None:
    """Create the folder with copies of codec and tokenizer, or check that it was begun with these same ones."""
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        if (job.out / INDEX).is_file() and any(job.out.glob("shard-*")):
            there = CodesIndex.read(job.out)
            for name, value in index.source.items():
                if there.source.get(name) != value:
                    kind = "other data" if name == "data" else f"another {name}"
                    raise ConfigError(f"{job.out} holds codes of {kind}; give another folder with --out")
            return
        _copy(job.codec, job.out / MIMI)
        (job.out / MIMI_CONFIG).write_text(json.dumps(job.mimi_config().to_dict(), indent=2) + "\n", encoding="utf-8")
        _copy(job.tokenizer, job.out / TOKENIZER)
        index.write(job.out)
    except OSError as error:
        raise ConfigError(f"{job.out}: cannot write there ({error.strerror}); give another folder") from error


def _copy(source: Path, target: Path) -> None:
    if source.resolve() != target.resolve():
        shutil.copyfile(source, target)


def _finish(out: Path, index: CodesIndex, groups: Sequence[Sequence[Dialogue]]) -> CodesIndex:
    rows = []
    for number, group in enumerate(groups):
        frames = shard_frames(_shard(out, number)) or {}
        rows += [(d.name, _shard(out, number).name, frames[d.name]) for d in group]
    finished = CodesIndex(
        codebooks=index.codebooks,
        card=index.card,
        text_card=index.text_card,
        source=index.source,
        dialogues=tuple(rows),
    )
    finished.write(out)
    return finished
