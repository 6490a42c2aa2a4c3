"""What engines share: the delay ring, the noise, the sampling settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lm_cases
from duologue.config import Sampling
from duologue.engine.base import NoiseSource, TokenDelays, checked_frames, finish_step
from duologue.errors import ConfigError, StreamError
from duologue.model.config import UNGENERATED

CONFIG = lm_cases.SHAPES["long_delays"]
AGENT = 1 + CONFIG.dep_q


def numbered(call: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that say which call they come from: the user's frame and what is sampled."""
    return np.full(CONFIG.user_q, call % CONFIG.card), np.full(AGENT, (call + 7) % CONFIG.card)


def test_each_stream_is_shifted_by_its_delay() -> None:
    delays = TokenDelays(CONFIG)
    for call in range(40):
        user, sampled = numbered(call)
        row = delays.begin(user)
        for stream, delay in enumerate(CONFIG.delays):
            if call <= delay:
                expected = CONFIG.card if stream else CONFIG.text_card
            elif stream < AGENT:
                expected = (call - 1 + 7) % CONFIG.card
            else:
                expected = (call - delay) % CONFIG.card
            assert row[stream] == expected, (call, stream)
        frame = delays.commit(sampled)
        if call < CONFIG.max_delay:
            assert frame is None
            continue
        assert frame is not None
        # The frame's tokens were sampled `delay` calls after its text.
        first = call - CONFIG.max_delay
        assert frame.tolist() == [(first + delay + 7) % CONFIG.card for delay in CONFIG.delays[:AGENT]]


def test_forced_frames_come_back_whole() -> None:
    delays, random = TokenDelays(CONFIG), np.random.default_rng(0)
    frames = random.integers(0, CONFIG.card, (30, CONFIG.num_streams))
    returned = []
    for frame in frames:
        delays.begin(frame[AGENT:], agent_frame=frame[:AGENT])
        sampled = np.full(AGENT, CONFIG.card - 1)
        returned.append(delays.commit(sampled))
    # Call n completes frame n + 1 - max_delay, which was forced except for what its last call could still sample.
    for call in range(CONFIG.max_delay, 30):
        expected = frames[call + 1 - CONFIG.max_delay, :AGENT]
        assert np.array_equal(returned[call], expected)


def test_snapshot_restores_the_ring() -> None:
    delays = TokenDelays(CONFIG)
    for call in range(7):
        delays.begin(numbered(call)[0])
        delays.commit(numbered(call)[1])
    snapshot, rows = delays.snapshot(), []
    for _ in range(2):
        delays.restore(snapshot)
        assert delays.calls == 7
        rows.append([delays.begin(numbered(3)[0]), delays.commit(numbered(5)[1])])
    assert np.array_equal(np.concatenate(rows[0]), np.concatenate(rows[1]))
    with pytest.raises(StreamError, match="other delays"):
        TokenDelays(lm_cases.MOSHI_LIKE).restore(snapshot)
    delays.reset()
    assert delays.calls == 0
    assert delays.begin(numbered(0)[0])[0] == CONFIG.text_card


@pytest.mark.parametrize("codes", [[0, 1], [0, 1, 24], [0, 1, -1], [0.0, 1.0, 2.0], [[0, 1, 2]]])
def test_wrong_user_codes_are_refused(codes: Any) -> None:
    with pytest.raises(StreamError, match="user codes must"):
        TokenDelays(CONFIG).begin(np.array(codes))


def test_wrong_forced_tokens_are_refused() -> None:
    delays = TokenDelays(CONFIG)
    with pytest.raises(StreamError, match="forced frame"):
        delays.begin(np.zeros(3, int), agent_frame=[0, 0, 0])
    with pytest.raises(StreamError, match="forced frame"):
        delays.begin(np.zeros(3, int), agent_frame=[0, 0, 0, CONFIG.card + 1])
    with pytest.raises(StreamError, match="forced_text"):
        delays.pending(forced_text=CONFIG.text_card)
    frames = np.zeros((3, CONFIG.num_streams), dtype=np.int64)
    for wrong in (frames[:, 1:], frames.astype(float), frames - 1, frames + CONFIG.card):
        with pytest.raises(StreamError, match="frames must"):
            checked_frames(wrong, None, CONFIG)
    with pytest.raises(StreamError, match="finite"):
        checked_frames(frames, np.full((2, CONFIG.dim), np.nan), CONFIG)
    with pytest.raises(StreamError, match="embeddings must have shape"):
        checked_frames(frames, np.zeros((3, CONFIG.dim)), CONFIG)


def test_pending_shows_what_is_fixed() -> None:
    delays = TokenDelays(CONFIG)
    delays.begin(np.zeros(3, int), agent_frame=[9, 8, 7, 6])
    fixed = [1 + delay == 2 for delay in CONFIG.delays[:AGENT]]
    assert (delays.pending() != UNGENERATED).tolist() == fixed
    assert delays.pending(forced_text=5)[0] == 5


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**40))
def test_noise_is_a_function_of_seed_and_frame(seed: int, frame: int) -> None:
    sampling = Sampling(top_k_text=5, top_k_audio=6)
    first, again = (NoiseSource(seed).draw(frame, sampling, CONFIG) for _ in range(2))
    assert np.array_equal(first.text, again.text)
    assert np.array_equal(first.audio, again.audio)
    assert first.text.shape == (5,)
    assert first.audio.shape == (CONFIG.dep_q, 6)
    assert np.isfinite(first.text).all()
    assert np.isfinite(first.audio).all()
    other = NoiseSource(seed).draw(frame + 1, sampling, CONFIG)
    assert not np.array_equal(first.audio, other.audio)


def test_noise_is_gumbel() -> None:
    sampling = Sampling(top_k_text=0, top_k_audio=0)
    values = np.concatenate([NoiseSource(1).draw(frame, sampling, CONFIG).audio.ravel() for frame in range(2000)])
    assert abs(values.mean() - np.euler_gamma) < 0.02
    assert abs(values.var() - np.pi**2 / 6) < 0.05
    # Lanes of one frame are independent of each other.
    lanes = np.stack([NoiseSource(1).draw(frame, sampling, CONFIG).audio[:2, 0] for frame in range(2000)])
    assert abs(np.corrcoef(lanes.T)[0, 1]) < 0.08


def test_audio_noise_does_not_depend_on_the_text_settings() -> None:
    first = NoiseSource(4).draw(2, Sampling(top_k_text=3), CONFIG)
    second = NoiseSource(4).draw(2, Sampling(top_k_text=30), CONFIG)
    assert np.array_equal(first.audio, second.audio)
    assert np.array_equal(first.text, second.text[:3])


def test_greedy_draws_are_certain() -> None:
    noise = NoiseSource(4).draw(2, Sampling(temperature_text=0), CONFIG)
    assert (noise.text == 0).all()
    assert noise.audio.any()
    assert noise.temperature_text == 1
    assert noise.settle(np.full(4, -1.0, np.float32)).tolist() == [0, -1, -1, -1]


def test_finish_step_marks_what_was_forced() -> None:
    delays = TokenDelays(CONFIG)
    noise = NoiseSource(0).draw(0, Sampling(), CONFIG)
    for call in range(3):
        delays.begin(np.zeros(3, int))
        pending = delays.pending(forced_text=11)
        output = finish_step(
            delays, tokens=np.array([11, 1, 2, 3]), logprobs=np.zeros(4, np.float32), pending=pending, noise=noise
        )
        assert np.isnan(output.logprobs).tolist() == [True, False, False, False]
        assert output.text_token == (CONFIG.existing_text_padding_id if call < CONFIG.max_delay else 11)
        assert (output.agent_codes is None) == (call < CONFIG.max_delay)


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature_text": -0.1},
        {"temperature_audio": float("nan")},
        {"top_k_text": -1},
        {"top_k_audio": 2.5},
        {"padding_bias": float("inf")},
        {"padding_bias": "x"},
        {"temperature_text": "warm"},
        {"temperature_audio": True},
        {"temperature_audio": None},
    ],
)
def test_wrong_sampling_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Sampling(**setting)


@pytest.mark.parametrize("seed", [-1, 1 << 128, 1.5, True, "7"])
def test_wrong_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed"):
        NoiseSource(seed)


def test_kept_counts_are_bounded_by_the_vocabulary() -> None:
    sampling = Sampling(top_k_text=0, top_k_audio=10**6)
    assert (sampling.kept_text(CONFIG), sampling.kept_audio(CONFIG)) == (CONFIG.text_card, CONFIG.card)
