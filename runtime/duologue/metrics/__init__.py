"""How user and agent interact: speech activity, events, the four axes and their human reference bands."""

from duologue.metrics.meter import InteractivityMeter, MeterSnapshot, measure
from duologue.metrics.types import EVENT_KINDS, Event, HumanBand, InteractivityReport, Measure

__all__ = [
    "EVENT_KINDS",
    "Event",
    "HumanBand",
    "InteractivityMeter",
    "InteractivityReport",
    "Measure",
    "MeterSnapshot",
    "measure",
]
