import numpy as np
import pytest

from duologue_align.synth.augment import NOISES, Augmentation, augment, draw_augmentation, noise_loop, room_response

RATE = 24_000


def _speech(seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def _level_db(pcm: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(pcm.astype(np.float64) ** 2) + 1e-20))


def _band_db(pcm: np.ndarray, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(pcm)) ** 2
    frequency = np.fft.rfftfreq(len(pcm), 1 / RATE)
    return float(10 * np.log10(power[(frequency >= low_hz) & (frequency < high_hz)].mean() + 1e-12))


def _run(settings: Augmentation, user: np.ndarray, agent: np.ndarray | None = None) -> np.ndarray:
    return augment(user, np.zeros_like(user) if agent is None else agent, settings, np.random.default_rng(1))


def test_nothing_but_level_leaves_the_samples_alone() -> None:
    speech = _speech()
    assert np.allclose(_run(Augmentation(level_db=-26.0), speech), speech * 10 ** (-6 / 20), atol=1e-6)


@pytest.mark.parametrize("is_mu_law", [False, True])
def test_a_telephone_passes_its_band_and_nothing_else(is_mu_law: bool) -> None:
    heard = _run(Augmentation(level_db=-20.0, channel="telephone", is_mu_law=is_mu_law), _speech())
    assert _band_db(heard, 500, 3000) - _band_db(heard, 4500, 11_000) > 40
    assert _band_db(heard, 500, 3000) - _band_db(heard, 20, 150) > 25
    assert _band_db(heard, 500, 3000) == pytest.approx(_band_db(_speech(), 500, 3000), abs=0.5)


def test_mu_law_adds_its_quantisation_noise() -> None:
    clean = _run(Augmentation(level_db=-20.0, channel="telephone"), _speech())
    coarse = _run(Augmentation(level_db=-20.0, channel="telephone", is_mu_law=True), _speech())
    assert 25 < _level_db(clean) - _level_db(coarse - clean) < 45


@pytest.mark.parametrize("noise", NOISES)
def test_noise_has_the_asked_level(noise: str) -> None:
    silence = np.zeros(20 * RATE, dtype=np.float32)
    heard = _run(Augmentation(level_db=-20.0, noise=noise, snr_db=10.0), silence)
    assert _level_db(heard) == pytest.approx(-30.0, abs=1.0)
    assert _level_db(noise_loop(noise)) == pytest.approx(0.0, abs=0.01)


def test_the_agent_leaks_at_its_level_after_its_delay() -> None:
    agent = np.zeros(RATE, dtype=np.float32)
    agent[1000] = 0.5
    settings = Augmentation(level_db=-20.0, leakage_db=-40.0, leakage_delay_s=0.1)
    heard = _run(settings, np.zeros(RATE, dtype=np.float32), agent)
    assert np.flatnonzero(heard).tolist() == [3400]
    assert heard[3400] == pytest.approx(0.005)


def test_a_room_keeps_onset_and_energy_and_adds_a_tail() -> None:
    response = room_response(0.4, 6.0, np.random.default_rng(0))
    assert np.argmax(np.abs(response)) == 0
    assert np.sum(response**2) == pytest.approx(1.0, rel=1e-4)
    assert 10 * np.log10(response[0] ** 2 / np.sum(response[1:] ** 2)) == pytest.approx(6.0, abs=0.1)
    click = np.zeros(RATE, dtype=np.float32)
    click[4800] = 0.5
    heard = _run(Augmentation(level_db=-20.0, reverberation_s=0.4, direct_db=6.0), click)
    assert np.argmax(np.abs(heard)) == 4800
    assert np.abs(heard[:4790]).max() < 1e-5
    assert _level_db(heard[5000:7000]) > _level_db(heard[11_000:13_000]) + 20


def test_settings_cover_every_channel_and_are_drawn_from_the_seed() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng) for _ in range(200)]
    assert {settings.channel for settings in drawn} == {"wide", "small", "telephone"}
    assert {settings.noise for settings in drawn} == {*NOISES, None}
    assert drawn[0] == draw_augmentation(np.random.default_rng(0))
    loud = [_run(settings, _speech(1.0), _speech(1.0, seed=1)) for settings in drawn[:20]]
    assert all(np.isfinite(pcm).all() and np.abs(pcm).max() <= 1.0 for pcm in loud)
