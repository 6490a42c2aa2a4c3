"""Judges of replies: what an agent answered, given what the user said, as a number that a reward can use.

`judge` says what a judge is; `local_lm`, `similarity` and `endpoint` are three; `guards` finds replies that fool them;
`panel` puts them together by a TOML file; `agreement` measures them on `labelled` replies; `transcriber` has the words.
"""

from duologue_align.judge.guards import Guards
from duologue_align.judge.judge import Ability, Answer, Judge, Traits
from duologue_align.judge.panel import JudgePanel, PanelSettings, Verdict
from duologue_align.judge.transcriber import (
    CallableTranscriber,
    InnerMonologue,
    Speech,
    Transcriber,
    WhisperTranscriber,
    make_transcriber,
)

__all__ = [
    "Ability",
    "Answer",
    "CallableTranscriber",
    "Guards",
    "InnerMonologue",
    "Judge",
    "JudgePanel",
    "PanelSettings",
    "Speech",
    "Traits",
    "Transcriber",
    "Verdict",
    "WhisperTranscriber",
    "make_transcriber",
]
