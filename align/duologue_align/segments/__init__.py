"""From recordings to segments: who speaks when, the sets a policy is aligned on, the user's codes, a manifest.

The way of the data: `speech` listens, `sets` finds the segments by `rules`, `mining` does both for one conversation,
`engines` for many, `selection` draws up to N per set, `codes` encodes the user side, `dataset` ties it together,
`reader` gives the segments to whoever comes next.
"""

from duologue_align.segments.reader import read_segments
from duologue_align.segments.segment import AXES, Axis, Segment

__all__ = ["AXES", "Axis", "Segment", "read_segments"]
