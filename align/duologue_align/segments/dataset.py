"""Mine whole sources into a folder; stop and go on at any time.

OUT/segments.jsonl              one segment a line (segments.parquet too, where pyarrow is installed)
OUT/codes/*.safetensors         Mimi codes of the user sides, int16 [K, T]
OUT/summary.json, index.html    counts, bad files, pace; the picture
OUT/conversations/*.json        a result per conversation, by which an interrupted run goes on
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from duologue.errors import ConfigError
from duologue.replacing import replace_file, replacing
from duologue_align.corpus.conversation import Conversation, Rejected
from duologue_align.corpus.layouts import Layout, list_conversations
from duologue_align.segments.codes import Codec, CodesTask, encode_stretches, place_codes, plan_stretches
from duologue_align.segments.engines import Engine, run_tasks
from duologue_align.segments.mining import MiningTask, Outcome, audio_signature, mine_conversation, read_result
from duologue_align.segments.page import render_page
from duologue_align.segments.reader import MANIFEST
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.segment import Segment, to_row
from duologue_align.segments.selection import Selection
from duologue_align.segments.summary import MiningSummary, Pace, count_axes

PARQUET, PAGE = "segments.parquet", "index.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningOptions:
    """How to mine.

    Attributes:
        layout: Layout of the sources; None guesses.
        rules: What counts as a segment.
        per_axis: Most segments of each set.
        seed: Of the draw among more.
        jobs: Processes.
        engine: "local" or "ray".
        codec: The codec, or None for no codes.
        show_progress: Whether to draw progress bars.
    """

    layout: Layout | None = None
    rules: MiningRules = field(default_factory=MiningRules)
    per_axis: int = 2000
    seed: int = 0
    jobs: int = 1
    engine: Engine = "local"
    codec: Codec | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        if self.per_axis < 1:
            raise ConfigError(f"per_axis is {self.per_axis}; give 1 or more")
        if self.jobs < 1:
            raise ConfigError(f"jobs is {self.jobs}; give 1 or more")


def mine(sources: Sequence[str | Path], out: Path, options: MiningOptions) -> MiningSummary:
    """Mine the segments of some sources.

    Args:
        sources: Folders or manifests.
        out: Folder to create or to continue.
        options: How.

    Raises:
        ConfigError: A source or the folder cannot be used, or an option cannot be.
        MissingExtraError: The engine's package is not installed.
        WeightsError: The codec cannot be read.
    """
    # Workers elsewhere have another working directory.
    conversations, rejected = list_conversations([Path(source).absolute() for source in sources], options.layout)
    signature = ""
    if options.codec is not None:
        options.codec.load()  # what is wrong with it is said before hours of listening
        signature = options.codec.signature()
    _claim(out)
    outcomes, took_s = _mine_all(conversations, out, options)
    rejected += [Rejected(outcome.name, outcome.error) for outcome in outcomes if outcome.error]
    bad = {outcome.name for outcome in outcomes if outcome.error}
    usable = [conversation for conversation in conversations if conversation.name not in bad]
    selection = Selection(per_axis=options.per_axis, seed=options.seed)
    for conversation in usable:
        result = read_result(out, conversation.name)
        assert result is not None
        selection.add(result[0])
    kept = selection.chosen()
    encoded: list[Outcome] = []
    encoding_s = 0.0
    if options.codec is not None:
        tasks = _codes_tasks(kept, usable, out, options, options.codec, signature)
        encoded, encoding_s = _run(encode_stretches, tasks, options, "encode")
        rejected += [Rejected(outcome.name, outcome.error) for outcome in encoded if outcome.error]
        kept = _placed(kept, tasks, {outcome.name for outcome in encoded if outcome.error})
    has_parquet = _write_manifest(out, kept)
    summary = MiningSummary(
        conversations=len(usable),
        hours=sum(outcome.audio_s for outcome in outcomes) / 3600,
        axes=count_axes(selection.found, kept),
        bad=tuple(rejected),
        mining=Pace.of(outcomes, took_s),
        encoding=Pace.of(encoded, encoding_s),
        codec=str(options.codec.weights) if options.codec else None,
        rules=options.rules.to_dict(),
        seed=options.seed,
        per_axis=options.per_axis,
        has_parquet=has_parquet,
    )
    summary.write(out)
    replace_file(out / PAGE, render_page(summary, kept, seed=options.seed).encode())
    return summary


def _mine_all(conversations: Sequence[Conversation], out: Path, options: MiningOptions) -> tuple[list[Outcome], float]:
    tasks = [MiningTask(conversation=item, rules=options.rules, out=out.absolute()) for item in conversations]
    return _run(mine_conversation, tasks, options, "listen")


def _run(function: Any, tasks: Sequence[Any], options: MiningOptions, verb: str) -> tuple[list[Outcome], float]:
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    hours = 0.0
    with tqdm(total=len(tasks), desc=verb, unit="conv", disable=not options.show_progress, file=sys.stderr) as bar:
        for outcome in run_tasks(function, tasks, engine=options.engine, jobs=options.jobs):
            outcomes.append(outcome)
            hours += outcome.processed_s / 3600
            if outcome.error:
                bar.write(f"skipped {outcome.name}: {outcome.error}", file=sys.stderr)
            minutes = (time.perf_counter() - started) / 60
            bar.set_postfix_str(f"{hours / minutes:.2f} h/min", refresh=False)
            bar.update()
    order = {task_name(task): number for number, task in enumerate(tasks)}
    outcomes.sort(key=lambda outcome: order[outcome.name])
    return outcomes, time.perf_counter() - started


def task_name(task: MiningTask | CodesTask) -> str:
    """Return the conversation a task is about."""
    return task.conversation.name if isinstance(task, MiningTask) else task.name


def _codes_tasks(
    kept: Sequence[Segment],
    usable: Sequence[Conversation],
    out: Path,
    options: MiningOptions,
    codec: Codec,
    signature: str,
) -> list[CodesTask]:
    by_name = {conversation.name: conversation for conversation in usable}
    order = sorted(kept, key=lambda segment: segment.conversation)
    return [
        CodesTask(
            name=name,
            user=by_name[name].user,
            agent=by_name[name].agent,
            stretches=plan_stretches(group, options.rules.context_s),
            codec=codec,
            codec_signature=signature,
            audio_signature=audio_signature(by_name[name]),
            out=out.absolute(),
        )
        for name, group in groupby(order, key=lambda segment: segment.conversation)
    ]


def _placed(kept: Sequence[Segment], tasks: Sequence[CodesTask], bad: set[str]) -> list[Segment]:
    stretches = {task.name: task.stretches for task in tasks}
    return [
        place_codes(segment, stretches[segment.conversation]) for segment in kept if segment.conversation not in bad
    ]


def _claim(out: Path) -> None:
    try:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file; give a folder with --out")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot write there ({error.strerror}); give another folder with --out") from error


def _write_manifest(out: Path, kept: Sequence[Segment]) -> bool:
    rows = [to_row(segment) for segment in kept]
    replace_file(out / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows).encode())
    path = out / PARQUET
    path.unlink(missing_ok=True)
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        return False
    if rows:
        with replacing(path) as partial:
            parquet.write_table(pyarrow.Table.from_pylist(rows), partial)
    return bool(rows)
