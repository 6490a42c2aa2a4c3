"""The click loop over a loudspeaker that its own microphone hears, in simulated and in real time."""

from __future__ import annotations

import time
from importlib.util import find_spec

import numpy as np
import pytest

from duologue.audio.device import StreamInfo
from duologue.audio.loop import DuplexLoop, LoopSettings
from duologue.audio.port import SharedPort
from duologue.errors import ConfigError, DeviceError
from duologue.profile.clicks import PERIOD_FRAMES, ClickLoop, click
from duologue.profile.device import DeviceProbe
from duologue.profile.loopback import LoopbackSpec, loopback_device
from duologue.types import FRAME_SAMPLES, FrameResult
from profile_sample import FakeClock


def _simulated(*, delay_blocks: int, block_samples: int, rate_hz: int = 24_000, seconds: float = 3.0) -> ClickLoop:
    shared = SharedPort()
    try:
        clicks = ClickLoop()
        device = loopback_device(
            shared.port, delay_blocks=delay_blocks, block_samples=block_samples, sample_rate_hz=rate_hz
        )
        loop = DuplexLoop(shared.port, clicks, LoopSettings(), is_one_clock=True)
        while (now_s := device.next_call_s()) <= seconds:
            device.call(now_ns=1_000_000_000 + int(1e9 * now_s))
            loop.pump(1_000_000_000 + int(1e9 * now_s), limit=8)
        del device, loop
    finally:
        shared.close()
    return clicks


@pytest.mark.parametrize(("delay_blocks", "block_samples"), [(1, 240), (2, 480), (3, 100), (7, 480)])
def test_the_delay_is_found_to_the_sample(delay_blocks: int, block_samples: int) -> None:
    facts = _simulated(delay_blocks=delay_blocks, block_samples=block_samples).facts()
    assert facts is not None
    assert facts.heard == facts.sent == 3
    delay_ms = 1e3 * delay_blocks * block_samples / 24_000
    assert facts.min_ms == facts.max_ms == pytest.approx(120 + delay_ms)


def test_resampling_both_ways_keeps_the_lag() -> None:
    facts = _simulated(delay_blocks=2, block_samples=480, rate_hz=48_000).facts()
    assert facts is not None
    assert facts.heard == facts.sent
    # The loop counts its resamplers' delay as lag, so the device's own 20 ms are what is left.
    assert facts.p50_ms == pytest.approx(140, abs=1.0)


def test_noise_is_no_click() -> None:
    clicks = ClickLoop()
    noise = np.random.default_rng(0).normal(0, 0.1, (2 * PERIOD_FRAMES, FRAME_SAMPLES)).astype(np.float32)
    for frame in noise:
        clicks(frame)
    assert clicks.facts() is None


def test_a_click_is_found_under_noise_and_a_missing_one_is_counted() -> None:
    clicks = ClickLoop()
    sound = np.random.default_rng(0).normal(0, 0.01, 2 * PERIOD_FRAMES * FRAME_SAMPLES).astype(np.float32)
    sound[5000 : 5000 + len(click())] -= 0.3 * click()
    for frame in sound.reshape(-1, FRAME_SAMPLES):
        clicks(frame)
    facts = clicks.facts()
    assert facts is not None
    assert (facts.sent, facts.heard) == (2, 1)
    # The filter may settle on the next wave of the tone, never further.
    assert facts.p50_ms == pytest.approx(1e3 * 5000 / 24_000, abs=0.5)


def test_the_agent_works_while_its_voice_is_replaced() -> None:
    seen = []

    def step(frame: np.ndarray) -> FrameResult:
        seen.append(frame)
        return FrameResult(index=7, pcm=frame, text="a", user_codes=np.ones(8, dtype=np.int32), agent_codes=None)

    loop = ClickLoop(step)
    results = [loop(np.zeros(FRAME_SAMPLES, dtype=np.float32)) for _ in range(PERIOD_FRAMES + 1)]
    assert len(seen) == PERIOD_FRAMES + 1
    assert [bool(np.any(result.pcm)) for result in results] == [True] + [False] * (PERIOD_FRAMES - 1) + [True]
    assert (results[0].index, results[0].text) == (7, "a")


def test_a_device_in_real_time() -> None:
    def step(frame: np.ndarray) -> FrameResult:
        time.sleep(0.005)
        return FrameResult(index=0, pcm=frame, text="", user_codes=np.zeros(8, dtype=np.int32), agent_codes=None)

    has_canceller = find_spec("pywebrtc_audio") is not None
    probe = DeviceProbe(
        spec=LoopbackSpec(delay_blocks=2, block_ms=20.0),
        settings=LoopSettings(playout_ms=400.0),
        cancels_echo=has_canceller,
    )
    facts = probe.measure(step, 1.6)
    assert facts.measured_device_ms is not None
    assert facts.measured_device_ms == pytest.approx(40.0)
    assert facts.agent_clicks is not None
    # Algorithmic, computing and device add up to the whole within one block.
    assert facts.agent_clicks.p50_ms == pytest.approx(facts.loop_lag_ms + facts.measured_device_ms, abs=20.0)
    assert facts.reported_device_ms == 40.0
    assert facts.callbacks[0].gap.count == facts.callbacks[0].calls - 1 > 50
    assert len(facts.calls) == facts.callbacks[0].calls
    assert facts.queue.count == facts.resample.count > 10
    assert (facts.aec is not None) == has_canceller
    assert 0 < facts.slack_min_ms <= facts.slack_p50_ms <= 400


class _Silent:
    """A device that opens and then never calls."""

    info = StreamInfo(input_name="dead", output_name="dead", host_api="none", input_hz=24_000, output_hz=24_000)

    def open(self, shared: SharedPort) -> _Silent:
        shared.port.configure(input_hz=24_000, output_hz=24_000)
        return self

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True


def test_a_silent_device_is_an_error() -> None:
    class Ticking(FakeClock):
        def now_s(self) -> float:
            self.time_s += 0.5
            return self.time_s

    device = _Silent()
    with pytest.raises(DeviceError, match="fell silent"):
        DeviceProbe(spec=device, clock=Ticking()).measure(lambda frame: pytest.fail("no frame can come"), 60.0)
    assert device.is_closed


def test_a_delay_that_cannot_be() -> None:
    shared = SharedPort()
    with pytest.raises(ConfigError, match="1 or more"):
        LoopbackSpec(delay_blocks=0).open(shared)
    shared.close()
