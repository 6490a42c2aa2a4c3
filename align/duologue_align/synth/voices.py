"""The voices: one fixed agent, users for training, users kept for testing; each a warp of the synthesiser's one voice.

A warp changes the vocal tract (formants), the pitch and its range, the pace, the spectral slope and the breath. The
agent is the synthesiser's own voice, unwarped; no user comes near it (its formants or its pitch differ by 8 % or more).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """How to warp the synthesiser's spectral frames.

    Attributes:
        name: Unique name, as recorded in the metadata.
        formants: Factor on all formant frequencies; below 1 a longer vocal tract.
        pitch: Factor on the mean fundamental frequency.
        range: Exponent on the pitch contour around its mean; below 1 flatter.
        pace: Speaking rate, 1.0 is the synthesiser's own.
        tilt_db: Change of level at 12 kHz relative to 0 Hz, linear in between.
        breath_db: Gain of the noise part.
    """

    name: str
    formants: float = 1.0
    pitch: float = 1.0
    range: float = 1.0
    pace: float = 1.0
    tilt_db: float = 0.0
    breath_db: float = 0.0


AGENT = Voice(name="agent")
"""The agent's one voice."""

# fmt: off
TRAIN_USERS = (
    Voice(name="u01", formants=0.86, pitch=0.60, range=0.90, pace=1.00, tilt_db=-2.0, breath_db=0.0),
    Voice(name="u02", formants=0.82, pitch=0.52, range=0.80, pace=0.95, tilt_db=-4.0, breath_db=1.0),
    Voice(name="u03", formants=0.90, pitch=0.68, range=1.00, pace=1.08, tilt_db=1.0, breath_db=0.0),
    Voice(name="u04", formants=0.84, pitch=0.65, range=1.15, pace=1.12, tilt_db=0.0, breath_db=2.0),
    Voice(name="u05", formants=0.92, pitch=0.82, range=0.85, pace=0.92, tilt_db=-3.0, breath_db=3.0),
    Voice(name="u06", formants=1.10, pitch=1.08, range=1.00, pace=1.05, tilt_db=2.0, breath_db=0.0),
    Voice(name="u07", formants=1.06, pitch=1.22, range=1.10, pace=1.00, tilt_db=0.0, breath_db=1.0),
    Voice(name="u08", formants=0.96, pitch=0.88, range=1.20, pace=1.15, tilt_db=3.0, breath_db=-1.0),
    Voice(name="u09", formants=1.13, pitch=1.28, range=0.90, pace=0.95, tilt_db=-2.0, breath_db=0.0),
    Voice(name="u10", formants=0.88, pitch=0.74, range=0.70, pace=1.00, tilt_db=-1.0, breath_db=4.0),
    Voice(name="u11", formants=1.00, pitch=1.16, range=0.80, pace=1.10, tilt_db=-4.0, breath_db=2.0),
    Voice(name="u12", formants=1.04, pitch=0.86, range=1.00, pace=0.90, tilt_db=1.0, breath_db=1.0),
)
"""Users of the train split."""

TEST_USERS = (
    Voice(name="t01", formants=0.84, pitch=0.56, range=1.05, pace=1.04, tilt_db=1.0, breath_db=1.0),
    Voice(name="t02", formants=0.89, pitch=0.78, range=0.95, pace=0.96, tilt_db=-3.0, breath_db=-1.0),
    Voice(name="t03", formants=1.09, pitch=1.15, range=0.85, pace=1.10, tilt_db=-1.0, breath_db=2.0),
    Voice(name="t04", formants=0.94, pitch=0.94, range=0.75, pace=1.00, tilt_db=2.0, breath_db=3.0),
)
"""Users of the test split, never heard in training."""
# fmt: on


def users_of(split: str) -> tuple[Voice, ...]:
    """Return the user voices of "train" or "test"."""
    return TEST_USERS if split == "test" else TRAIN_USERS
