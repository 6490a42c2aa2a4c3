"""The frame loop on the fake device in simulated time: exactness, drift, stalls, bounded lag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from duologue.audio.canceller import EchoCanceller
from duologue.audio.clock import LagController, RateMeter
from duologue.audio.fake import FakeDevice, FakeTiming, User, play_array
from duologue.audio.files import AudioFile
from duologue.audio.loop import DuplexLoop, LoopFrame, LoopSettings
from duologue.audio.playout import WINDOW_FRAMES, PlayoutMeter
from duologue.audio.port import SharedPort, read_counters
from duologue.errors import ConfigError
from duologue.types import FRAME_SAMPLES, FrameResult

Step = Callable[[np.ndarray], FrameResult]
ONE_CLOCK = FakeTiming()
DEFAULTS = LoopSettings()


def _echo(frame: np.ndarray) -> FrameResult:
    return FrameResult(index=0, pcm=frame, text="", user_codes=np.zeros(8, dtype=np.int32), agent_codes=None)


def _tone(rate_hz: int, level: float = 0.5, hz: float = 440.0) -> User:
    def user(start: int, count: int) -> np.ndarray:
        return (level * np.sin(2 * np.pi * hz * (start + np.arange(count)) / rate_hz)).astype(np.float32)

    return user


def _ns(time_s: float) -> int:
    return 1_000_000_000 + int(1e9 * time_s)


class Simulation:
    """A device, a loop and one simulated clock."""

    def __init__(
        self,
        user: User,
        timing: FakeTiming = ONE_CLOCK,
        *,
        rate_hz: int = 24_000,
        block_ms: float = 20.0,
        step: Step = _echo,
        settings: LoopSettings = DEFAULTS,
        canceller: EchoCanceller | None = None,
    ) -> None:
        self.shared = SharedPort()
        self.port = self.shared.port
        block = round(rate_hz * block_ms / 1e3)
        self.device = FakeDevice(self.port, user, timing, sample_rate_hz=rate_hz, block_samples=block)
        self.loop = DuplexLoop(self.port, step, settings, is_one_clock=timing.is_one_clock, canceller=canceller)
        self.frames: list[LoopFrame] = []
        self.now_s = 0.0

    def run(
        self,
        until_s: float,
        *,
        engine_stalls: tuple[float, float] = (0.0, 0.0),
        late_s: Callable[[float], float] = lambda now_s: 0.0,
    ) -> None:
        """Make the device's calls; replies come `late_s` after the call that completed their frame."""
        while self.device.next_call_s() <= until_s:
            self.now_s = self.device.next_call_s()
            self.device.call(now_ns=_ns(self.now_s))
            if not engine_stalls[0] <= self.now_s < engine_stalls[1]:
                at_s = self.now_s + late_s(self.now_s)
                while self.port.input_fill >= self.loop.samples_to_wait_for and self.device.next_call_s() < at_s:
                    self.device.call(now_ns=_ns(self.device.next_call_s()))
                self.frames += self.loop.pump(_ns(max(at_s, self.now_s)), limit=8)

    @property
    def heard(self) -> np.ndarray:
        return np.concatenate(self.device.heard)

    def close(self) -> None:
        self.loop = self.device = self.port = None  # type: ignore[assignment]
        self.shared.close()


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulation]]:
    made: list[Simulation] = []

    def make(*args: object, **settings: object) -> Simulation:
        made.append(Simulation(*args, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for simulation in made:
        simulation.close()


def test_an_echo_over_one_clock_is_bit_exact_and_late_by_exactly_the_lag(simulate: Callable[..., Simulation]) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, 24_000).astype(np.float32)
    simulation = simulate(play_array(sound), settings=LoopSettings(playout_ms=30))
    simulation.run(2.0)
    delay = round(0.110 * 24_000)
    assert not simulation.heard[:delay].any()
    assert np.array_equal(simulation.heard[delay : delay + len(sound)], sound)
    assert simulation.frames[-1].lag_ms == pytest.approx(110, abs=1e-6)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_other_rates_return_the_tone_at_the_same_lag(simulate: Callable[..., Simulation], rate_hz: int) -> None:
    simulation = simulate(_tone(rate_hz), rate_hz=rate_hz, block_ms=10)
    simulation.run(2.0)
    delay = round(0.120 * rate_hz)
    expected = _tone(rate_hz)(0, rate_hz)
    inner = slice(rate_hz // 10, None)
    assert np.abs(simulation.heard[delay : delay + rate_hz] - expected)[inner].max() < 2e-3
    assert simulation.loop.held_s < 0.004
    assert read_counters(simulation.port).concealed_output_samples == 0


@pytest.mark.parametrize("adapts_playout", [False, True])
@pytest.mark.parametrize("drift_ppm", [-200.0, 200.0])
def test_ten_minutes_of_drift_lose_nothing_and_do_not_click(
    simulate: Callable[..., Simulation], drift_ppm: float, adapts_playout: bool
) -> None:
    rate_hz = 16_000
    timing = FakeTiming(input_ppm=37.0, output_ppm=37.0 + drift_ppm, is_one_clock=False, jitter_ms=0.5)
    settings = LoopSettings(adapts_playout=adapts_playout)
    simulation = simulate(_tone(rate_hz, hz=200), timing, rate_hz=rate_hz, settings=settings)
    # Replies that come later in the second half than in the first, up to 15 ms.
    simulation.run(600.0, late_s=lambda now_s: 0.005 + 0.010 * (now_s > 300) * (now_s % 7 < 1))
    counters = read_counters(simulation.port)
    assert counters.concealed_output_samples == 0
    assert counters.lost_input_samples == 0
    done = simulation.loop.counters
    assert (done.dropped_user, done.cut_agent, done.refused_output) == (0, 0, 0)
    # The first frame puts the two clocks together.
    assert done.inserted < 24
    assert simulation.loop.drift_ppm == pytest.approx(drift_ppm, abs=5)
    # The stamps' jitter shows in single values; a second's mean shows the lag.
    lags_ms = np.convolve([frame.lag_ms for frame in simulation.frames], np.full(12, 1 / 12), mode="valid")
    for half, late_ms in ((slice(750, 3700), 5), (slice(4500, None), 15)):
        # The latest reply, the meter's 6 ms to spare and a block, which is complete before it is called for.
        normal_ms = 80 + late_ms + 6 + 20 if adapts_playout else 120
        assert np.abs(lags_ms[half] - normal_ms).max() < (3 if adapts_playout else 1.5)
    # A click would stand out of the tone's second difference, which the drift does not change.
    second = np.abs(np.diff(simulation.heard[rate_hz:], n=2))
    assert second.max() < 1.05 * 0.5 * (2 * np.pi * 200 / rate_hz) ** 2 + 2e-4


def test_a_short_engine_stall_is_caught_up_without_losing_the_user(simulate: Callable[..., Simulation]) -> None:
    heard_by_agent: list[np.ndarray] = []

    def step(frame: np.ndarray) -> FrameResult:
        heard_by_agent.append(frame)
        return _echo(frame * 0)

    sound = np.random.default_rng(0).uniform(-1, 1, 24_000 * 5).astype(np.float32)
    simulation = simulate(play_array(sound), step=step)
    simulation.run(4.0, engine_stalls=(1.0, 1.35))
    assert np.array_equal(np.concatenate(heard_by_agent), sound[: FRAME_SAMPLES * len(heard_by_agent)])
    assert len(heard_by_agent) == 50
    counters = simulation.loop.counters
    assert counters.dropped_user == 0
    assert counters.cut_agent > 0
    assert simulation.frames[-1].lag_ms < 120 + 41


def test_a_long_engine_stall_drops_the_oldest_audio_and_counts_it(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate(_tone(24_000, level=0.0))
    simulation.run(6.0, engine_stalls=(1.0, 2.5))
    counters = simulation.loop.counters
    assert counters.dropped_user == pytest.approx(24_000 * (1.5 - 0.48), abs=24_000 * 0.1)
    lost = counters.dropped_user + counters.frames * FRAME_SAMPLES
    assert lost == pytest.approx(6.0 * 24_000, abs=FRAME_SAMPLES)
    assert simulation.frames[-1].lag_ms < 120 + 41


def test_loud_speech_is_cut_only_above_the_largest_lag(simulate: Callable[..., Simulation]) -> None:
    mild = simulate(_tone(24_000))
    mild.run(4.0, engine_stalls=(1.0, 1.25))
    assert mild.loop.counters.cut_agent == 0
    assert 120 + 40 < mild.frames[-1].lag_ms < 120 + 240
    hard = simulate(_tone(24_000))
    hard.run(4.0, engine_stalls=(1.0, 1.5))
    assert hard.loop.counters.cut_agent > 0
    assert hard.frames[-1].lag_ms < 120 + 240
    steps = np.abs(np.diff(hard.heard))
    assert steps.max() < 2 * 2 * np.pi * 440 / 24_000


def test_a_device_xrun_is_counted_and_changes_no_lag(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate(_tone(24_000), FakeTiming(stalls=((1.0, 1.1),)))
    simulation.run(3.0)
    callbacks = read_counters(simulation.port).callbacks[0]
    assert callbacks.flagged == 1
    assert callbacks.xruns["input_overflow"] == callbacks.xruns["output_underflow"] == 1
    assert callbacks.late == 1
    assert simulation.frames[-1].lag_ms == pytest.approx(120, abs=1e-6)


@pytest.mark.parametrize("timing", [FakeTiming(echo_gain=0.5), FakeTiming(echo_gain=0.5, stalls=((6.0, 6.2),))])
def test_the_canceller_takes_the_agents_voice_out(
    simulate: Callable[..., Simulation], timing: FakeTiming, demo_user: Path
) -> None:
    pytest.importorskip("pywebrtc_audio", reason="pywebrtc-audio is not installed")
    voice = AudioFile(demo_user).read(24_000)
    frames = iter(voice[: len(voice) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES))

    def talk(frame: np.ndarray) -> FrameResult:
        return _echo(next(frames))

    powers = []
    for canceller in (None, EchoCanceller()):
        frames = iter(voice[: len(voice) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES))
        simulation = simulate(play_array(np.zeros(1, dtype=np.float32)), timing, step=talk, canceller=canceller)
        simulation.run(12.0)
        powers.append(np.mean(np.concatenate([frame.user for frame in simulation.frames[100:]]) ** 2))
    assert 10 * np.log10(powers[0] / powers[1]) > 15
    assert canceller is not None
    assert canceller.reduction_db > 6


class _Listener:
    """Stands where the canceller does and only takes notes."""

    def __init__(self) -> None:
        self.user: list[np.ndarray] = []
        self.agent: list[np.ndarray] = []
        self.delays_ms: list[float] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def process(self, user: np.ndarray, agent: np.ndarray, *, device_delay_ms: float = 0.0) -> np.ndarray:
        self.user.append(user)
        self.agent.append(agent.copy())
        self.delays_ms.append(device_delay_ms)
        return np.zeros_like(user)


@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_the_canceller_is_told_what_the_room_heard_also_after_an_interruption(
    simulate: Callable[..., Simulation], rate_hz: int
) -> None:
    listener, timing = _Listener(), FakeTiming(echo_gain=1.0, echo_delay_ms=0.0)
    sound = _tone(24_000)

    def talk(frame: np.ndarray) -> FrameResult:
        return _echo(sound(FRAME_SAMPLES * len(listener.user), FRAME_SAMPLES))

    user = play_array(np.zeros(1, dtype=np.float32))
    settings = LoopSettings(playout_ms=70)
    simulation = simulate(user, timing, rate_hz=rate_hz, step=talk, canceller=listener, settings=settings)
    simulation.run(1.9)
    silenced_s = simulation.loop.silence_queued()
    assert 0.05 < silenced_s < 0.15
    simulation.run(4.0)
    heard, told = np.concatenate(listener.user), np.concatenate(listener.agent)
    # The fake room returns what it heard one block later.
    heard, told = heard[480:], told[: len(heard) - 480]
    is_silent = np.abs(heard[24_000:]) < 1e-3
    assert is_silent.sum() / 24_000 == pytest.approx(silenced_s, abs=0.02)
    away = np.flatnonzero(np.abs(heard - told) > 0.05)
    # The same but for the 4 ms in which it fades away and those in which it comes back.
    assert len(away) <= 2 * 96
    assert simulation.loop.silence_queued() > 0


def test_the_canceller_begins_anew_with_another_device_and_follows_the_drivers_times(
    simulate: Callable[..., Simulation],
) -> None:
    listener = _Listener()
    simulation = simulate(_tone(24_000), canceller=listener)
    simulation.run(1.0)
    assert set(listener.delays_ms) == {0.0}
    resets = listener.resets
    simulation.port.configure(input_hz=24_000, output_hz=24_000)
    simulation.loop.attach(simulation.port, is_one_clock=True, device_delay_ms=33.0)
    assert listener.resets == resets + 1
    simulation.run(2.0)
    assert listener.delays_ms[-1] == 33.0


@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_the_playout_shrinks_to_what_the_replies_need_and_grows_with_them(
    simulate: Callable[..., Simulation], rate_hz: int
) -> None:
    settings = LoopSettings(playout_ms=60.0, adapts_playout=True)
    simulation = simulate(play_array(np.zeros(1, dtype=np.float32)), rate_hz=rate_hz, block_ms=10, settings=settings)
    simulation.run(20.0, late_s=lambda now_s: 0.012)
    # A frame of 80 ms, replies 12 ms late, 6 ms to spare, none cut for less than 4 ms; the look-ahead of the resampler
    # completes a frame one block later.
    normal_ms = 98 if rate_hz == 24_000 else 108 + 1e3 * simulation.loop.held_s
    assert -1 <= simulation.frames[-1].lag_ms - normal_ms < 4.1
    assert simulation.loop.counters.cut_agent == pytest.approx((140 - normal_ms) * 24, abs=4.1 * 24)
    concealed = read_counters(simulation.port).concealed_output_samples
    assert concealed == 0
    simulation.run(25.0, late_s=lambda now_s: 0.030)
    assert 17 <= simulation.frames[-1].lag_ms - normal_ms < 23
    assert (read_counters(simulation.port).concealed_output_samples - concealed) / rate_hz < 0.013
    simulation.run(45.0, late_s=lambda now_s: 0.012)
    assert -1 <= simulation.frames[-1].lag_ms - normal_ms < 4.1


def test_an_agent_that_never_pauses_is_cut_seldom_and_without_a_click(simulate: Callable[..., Simulation]) -> None:
    settings = LoopSettings(playout_ms=60.0, adapts_playout=True)
    simulation = simulate(_tone(24_000), block_ms=10, settings=settings)
    simulation.run(30.0, late_s=lambda now_s: 0.012)
    assert 97.9 <= simulation.frames[-1].lag_ms <= 102.1
    assert np.abs(np.diff(simulation.heard)).max() < 1.2 * 0.5 * 2 * np.pi * 440 / 24_000
    moves = np.flatnonzero(np.abs(np.diff([frame.lag_ms for frame in simulation.frames])) > 1)
    assert 1 <= len(moves) <= 3
    assert moves.min() >= WINDOW_FRAMES - 1


def test_the_playout_follows_over_two_clocks_without_a_cut(simulate: Callable[..., Simulation]) -> None:
    timing = FakeTiming(input_ppm=-80.0, output_ppm=120.0, is_one_clock=False)
    settings = LoopSettings(playout_ms=60.0, adapts_playout=True)
    simulation = simulate(_tone(24_000, hz=200), timing, block_ms=10, settings=settings)
    simulation.run(40.0, late_s=lambda now_s: 0.010)
    assert np.mean([frame.lag_ms for frame in simulation.frames[-50:]]) == pytest.approx(80 + 16, abs=12)
    assert simulation.loop.counters.cut_agent == 0
    assert read_counters(simulation.port).concealed_output_samples == 0
    second = np.abs(np.diff(simulation.heard[24_000:], n=2))
    assert second.max() < 1.05 * 0.5 * (2 * np.pi * 200 / 24_000) ** 2 + 2e-4


def test_a_stall_is_no_jitter() -> None:
    meter = PlayoutMeter(0.030, max_s=0.48)
    assert meter.add(0.5) == pytest.approx(0.076)
    for _ in range(WINDOW_FRAMES):
        meter.add(0.010)
    assert meter.playout_s == pytest.approx(0.016)


def test_an_engine_that_is_always_too_slow_does_not_lengthen_the_lag_without_end(
    simulate: Callable[..., Simulation],
) -> None:
    settings = LoopSettings(adapts_playout=True)
    simulation = simulate(play_array(np.zeros(1, dtype=np.float32)), settings=settings)
    simulation.run(60.0, late_s=lambda now_s: 0.7)
    assert simulation.loop.target_lag_s == pytest.approx(0.080 + 0.480)
    simulation.run(90.0, late_s=lambda now_s: 0.010)
    assert simulation.frames[-1].lag_ms < 120


def test_a_driver_that_gives_nan_does_not_stop_the_conversation(simulate: Callable[..., Simulation]) -> None:
    simulation = simulate(lambda start, count: np.full(count, np.nan, dtype=np.float32))
    simulation.run(0.5)
    assert not any(frame.user.any() for frame in simulation.frames)


@pytest.mark.parametrize("wrong", [{"playout_ms": -1.0}, {"max_backlog_ms": 10.0}, {"max_lag_ms": 1e6}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        LoopSettings(**wrong)


def test_the_controller_learns_the_drift() -> None:
    controller = LagController(0.12)
    lag_s, speed = 0.12, 1.0
    for _ in range(2000):
        lag_s += 0.08 * (-150e-6 + (speed - 1))
        speed = controller.update(lag_s, 0.08)
    assert lag_s == pytest.approx(0.12, abs=1e-5)
    assert controller.correction_ppm == pytest.approx(150, abs=2)


def test_the_rate_meter_ignores_outliers() -> None:
    meter = RateMeter(48_000)
    assert meter.ppm() is None
    for second in range(60):
        late_s = 0.05 if second % 10 == 0 else 0.0
        meter.add(second * 1.001 + late_s, round(second * 1.001 * 48_000 * (1 + 120e-6)))
    assert meter.ppm() == pytest.approx(120, abs=3)
