"""Human bands: recomputed from the timing data, and the four agents that must fall outside them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from duologue.metrics.bands import BANDS
from duologue.metrics.degenerate import DEGENERATE_AGENTS, render_speech
from duologue.metrics.meter import measure
from duologue.metrics.types import HumanBand, InteractivityReport, Measure

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def derivation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("human_bands", ROOT / "benchmarks" / "human_bands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bands_follow_from_the_timing_data(derivation: ModuleType, shared_dir: Path) -> None:
    derived = derivation.derive_bands(shared_dir / "data" / "human_turn_timing.npz", every=10)
    assert set(derived) == set(BANDS)
    for name, found in derived.items():
        band = BANDS[name]
        # A tenth of the conversations: within a sampling error of the whole, relative to the band's width.
        tolerance = 0.08 * (band.high - band.low) + 0.011
        assert found == pytest.approx((band.low, band.median, band.high), abs=tolerance), name


def test_duration_bands_are_the_published_quantiles(shared_dir: Path) -> None:
    quantiles = json.loads((shared_dir / "data" / "swb_quantiles.json").read_text())
    for name in ("ipu", "pause", "gap", "fto"):
        low, median, high = (quantiles[name][percent] for percent in ("5", "50", "95"))
        assert BANDS[f"{name}_s"] == HumanBand(low=low, median=median, high=high)


def test_every_band_is_ordered() -> None:
    assert all(band.low <= band.median <= band.high for band in BANDS.values())


USER_SPANS = [
    *[(1.0, 3.0), (3.5, 6.0)],
    *[(10.0, 14.0), (14.6, 17.0)],
    *[(21.0, 21.4), (25.0, 29.0)],
    *[(33.0, 35.0), (35.4, 38.0)],
    *[(42.0, 46.0), (50.0, 53.0)],
]


@pytest.fixture(scope="module")
def reports() -> dict[str, InteractivityReport]:
    user = render_speech(USER_SPANS, 60)
    return {
        name: measure(user, speak(user), 24_000, user_detector="level") for name, speak in DEGENERATE_AGENTS.items()
    }


def is_outside(measured: Measure) -> bool:
    assert measured.value is not None
    assert measured.band is not None
    return not measured.band.low <= measured.value <= measured.band.high


def test_the_silent_agent_misses_every_turn(reports: dict[str, InteractivityReport]) -> None:
    report = reports["silent"]
    assert report.turn.missed_rate.value == 1.0
    assert is_outside(report.turn.missed_rate)
    assert is_outside(report.turn.answered_rate)
    assert is_outside(report.backchannel.per_user_speech_min)


def test_the_agent_that_always_talks_fails_every_axis(reports: dict[str, InteractivityReport]) -> None:
    report = reports["always talking"]
    assert report.pause.takeover_rate.value == 1.0
    assert report.turn.talked_over_rate.value == 1.0
    assert report.turn.answered_rate.value == 0.0
    assert report.interruption.yield_rate.value == 0.0
    assert is_outside(report.floor.overlap_share)
    assert is_outside(report.backchannel.per_user_speech_min)
    # It is the one axis on which ignoring the user is right.
    assert report.selectivity.selectivity.value == 1.0


def test_two_mm_hm_miss_nearly_every_turn(reports: dict[str, InteractivityReport]) -> None:
    report = reports["two mm-hm"]
    assert report.turn.missed_rate.value == pytest.approx(4 / 6, abs=1e-4)
    assert is_outside(report.turn.missed_rate)
    assert is_outside(report.turn.answered_rate)
    assert report.turn.brief_answer_rate.value == 1.0
    assert report.pause.takeover_rate.value == 0.0


def test_the_echo_takes_pauses_and_talks_over_turns(reports: dict[str, InteractivityReport]) -> None:
    report = reports["echo"]
    assert report.pause.takeover_rate.value == 1.0
    assert report.turn.talked_over_rate.value == 1.0
    assert is_outside(report.floor.overlap_share)
    assert is_outside(report.turn.answered_rate)


def test_a_real_person_lies_inside_the_bands(shared_dir: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    folder = shared_dir / "data" / "real_calls"
    (user, rate_hz), (agent, _) = (
        soundfile.read(folder / f"call49_{side}.wav", dtype="float32") for side in ("caller", "agent")
    )
    report = measure(user, agent, rate_hz, agent_detector="speech")
    for measured in (
        report.pause.takeover_rate,
        report.turn.answered_rate,
        report.turn.missed_rate,
        report.turn.talked_over_rate,
        report.backchannel.per_user_speech_min,
        report.interruption.yield_rate,
        report.selectivity.selectivity,
        report.floor.overlap_share,
    ):
        assert measured.count >= 5
        assert not is_outside(measured)
