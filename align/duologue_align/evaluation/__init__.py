"""Evaluation that cannot be fooled: recorded users and users who react, beside agents that understand nothing.

`items` and `fdb` are what is played, `take` is what came of it, `static` plays recordings; `voices`, `person` and
`rivals` make a conversation, `dynamic` holds it; `measures` says what is measured, `part` and `report` how it is told.
"""

from duologue_align.evaluation.contestant import Contestant
from duologue_align.evaluation.dynamic import DynamicOptions, evaluate_dynamic
from duologue_align.evaluation.evaluate import Data, EvaluationOptions, evaluate
from duologue_align.evaluation.items import Item, items_from_segments
from duologue_align.evaluation.part import Part
from duologue_align.evaluation.report import Report
from duologue_align.evaluation.static import StaticOptions, evaluate_static, score_takes
from duologue_align.evaluation.take import Take, make_take, play

__all__ = [
    "Contestant",
    "Data",
    "DynamicOptions",
    "EvaluationOptions",
    "Item",
    "Part",
    "Report",
    "StaticOptions",
    "Take",
    "evaluate",
    "evaluate_dynamic",
    "evaluate_static",
    "items_from_segments",
    "make_take",
    "play",
    "score_takes",
]
