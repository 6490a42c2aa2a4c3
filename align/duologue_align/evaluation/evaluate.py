"""The whole evaluation: data, agents, judge, both parts, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from duologue.errors import ConfigError, MissingExtraError
from duologue_align.corpus.conversation import Split
from duologue_align.evaluation.contestant import Contestant
from duologue_align.evaluation.dynamic import DynamicOptions, evaluate_dynamic
from duologue_align.evaluation.ears import INNER_MONOLOGUE, Ears
from duologue_align.evaluation.fdb import has_samples, read_samples
from duologue_align.evaluation.items import Item, items_from_segments
from duologue_align.evaluation.quality import Quality
from duologue_align.evaluation.report import Report
from duologue_align.evaluation.static import StaticOptions, evaluate_static
from duologue_align.evaluation.voices import Voice, recorded_voices, synthetic_voices
from duologue_align.segments.reader import MANIFEST, read_segments
from duologue_align.segments.segment import Segment

UserSource = Literal["recorded", "synth"]
SYNTHETIC_VOICES = 8
"""Synthetic users at most; the conversations share them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What agents are evaluated on.

    Attributes:
        label: Where it is from.
        items: Situations with recorded users.
        segments: The mined segments among them, whose users can be made to react.
        rejected: What could not be used, with the reason.
    """

    label: str
    items: Sequence[Item]
    segments: Sequence[Segment] = ()
    rejected: Sequence[tuple[str, str]] = ()

    @classmethod
    def read(cls, folder: Path, split: Split = "test") -> Data:
        """Read a mined folder, or one in Full-Duplex-Bench's layout.

        Args:
            folder: Where.
            split: Which split of a mined folder.

        Raises:
            ConfigError: The folder is neither, or the split is empty.
        """
        if (folder / MANIFEST).is_file():
            segments = read_segments(folder, split=split)
            if not segments:
                raise ConfigError(f"{folder}: the split {split!r} holds no segments; mine more, or choose with --split")
            return cls.of_segments(segments, label=f"{folder}, split {split}")
        if folder.is_dir() and has_samples(folder):
            items, rejected = read_samples(folder)
            return cls(label=str(folder), items=items, rejected=[(item.name, item.reason) for item in rejected])
        raise ConfigError(
            f"{folder}: neither what `duologue-align mine` wrote ({MANIFEST}) nor samples in Full-Duplex-Bench's "
            "layout (ID/input.wav)"
        )

    @classmethod
    def of_segments(cls, segments: Sequence[Segment], *, label: str = "segments") -> Data:
        """Take mined segments."""
        return cls(label=label, items=items_from_segments(segments), segments=segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        static: With recorded users, or None to leave that out.
        dynamic: With simulated users, or None to leave that out.
        user: What the simulated users say: "recorded" or "synth"; None takes what there is.
        judge: Panel that judges the replies, by name or file; None for nobody.
        transcriber: Where the agents' words come from: "inner-monologue", "whisper" or "whisper:FOLDER". A recogniser
            also hears the users where nobody wrote down what they say.
    """

    static: StaticOptions | None = field(default_factory=StaticOptions)
    dynamic: DynamicOptions | None = field(default_factory=DynamicOptions)
    user: UserSource | None = None
    judge: str | None = None
    transcriber: str = INNER_MONOLOGUE


def evaluate(
    contestants: Sequence[Contestant],
    data: Data | None,
    options: EvaluationOptions | None = None,
    *,
    out: Path | None = None,
    progress: Any = None,
) -> Report:
    """Evaluate agents.

    Args:
        contestants: The agent first, then what it is compared with, if anything.
        data: On what; None has synthetic users only.
        options: How.
        out: Folder of the report and of everything that was played; the same call again goes on. None writes nothing.
        progress: Called with each iterable of work, such as `tqdm`; None shows nothing.

    Raises:
        ConfigError: An option is refused, there is nothing to evaluate on, or the folder cannot be written.
        AudioError: A recording cannot be read.
        MissingExtraError: The judge's, the recogniser's or the synthesiser's package is not installed.
    """
    options = options or EvaluationOptions()
    if out is not None:
        _claim(out)
    quality = None if options.judge is None else open_quality(options.judge, out)
    ears = Ears.open(options.transcriber)
    # What is missing for the second part is said before the first one is played.
    voices, partners = _voices(data, options) if options.dynamic is not None else ([], [])
    parts: dict[str, Any] = {}
    if options.static is not None and data is not None:
        parts["static"] = evaluate_static(
            contestants, data.items, options.static, out=out, quality=quality, ears=ears, progress=progress
        )
    if options.dynamic is not None:
        parts["dynamic"] = evaluate_dynamic(
            contestants,
            voices,
            options.dynamic,
            partners=partners,
            out=out,
            quality=quality,
            ears=ears,
            progress=progress,
        )
    if not parts:
        raise ConfigError("there is nothing to evaluate: give data, or leave the dynamic part in")
    report = Report(
        agents={contestant.name: contestant.label for contestant in contestants},
        note=contestants[0].agent.note,
        data="no recordings" if data is None else data.label,
        judge=options.judge or "nobody",
        options=asdict(options),
        rejected=() if data is None else data.rejected,
        **parts,
    )
    if out is not None:
        report.write(out)
    return report


def open_quality(judge: str, out: Path | None) -> Quality:
    """Load a panel of judges; its scores are kept in the folder.

    Raises:
        ConfigError: As `JudgePanel.load`; WeightsError and MissingExtraError likewise.
    """
    from duologue_align.judge.panel import JudgePanel, PanelSettings

    panel = JudgePanel.load(judge)
    # The settings may leave an endpoint's model to the environment; the judges' traits name it.
    name = repr((PanelSettings.load(judge), [traits.name for traits in panel.traits]))
    return Quality(panel, name, None if out is None else out / "judge.json")


def best_judge() -> str | None:
    """Return the default panel if its packages are installed, else None."""
    from duologue_align.judge.panel import JudgePanel

    try:
        JudgePanel.load()
    except MissingExtraError:
        return None
    return "duologue"


def _voices(data: Data | None, options: EvaluationOptions) -> tuple[list[Voice], list[Voice]]:
    assert options.dynamic is not None
    segments = () if data is None else data.segments
    if options.user == "recorded" and not segments:
        raise ConfigError(
            "recorded users need mined segments; give a mined folder, or use synthetic users: --user synth"
        )
    if segments and options.user != "synth":
        voices = recorded_voices(segments)
        # The partner is the next voice, so that nobody talks with itself where there are two.
        return voices, [*voices[1:], voices[0]]
    count = min(SYNTHETIC_VOICES, options.dynamic.conversations)
    seed = options.dynamic.seed
    return synthetic_voices(count, seed=seed), synthetic_voices(2, seed=seed, as_agent=True)


def _claim(out: Path) -> None:
    try:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file; give a folder with --out")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot write there ({error.strerror}); give another folder with --out") from error
