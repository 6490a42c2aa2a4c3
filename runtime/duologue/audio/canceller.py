"""Take the agent's own voice out of the microphone, for loudspeakers in the same room.

Not needed with headphones, and not free: in double-talk WebRTC's AEC3 also takes from the user (2 to 5 dB on synthetic
rooms), which makes barging in harder. `benchmarks/audio_aec.py` measures both sides of the trade.
"""

from __future__ import annotations

import numpy as np

from duologue.errors import MissingExtraError
from duologue.types import SAMPLE_RATE_HZ, Pcm

ADDED_DELAY_MS = 9.3
"""Delay that the canceller's filter bank adds to the user's audio."""
WORKING_LEVEL = 0.25
"""Both sides are given to AEC3 this much quieter.

Its suppressor holds loud echo for audible and takes the user along with it; 12 dB lower it leaves them, and the linear
filter, whose work does not depend on the level, still takes the echo. See `benchmarks/audio_aec.py`.
"""
_ACTIVE_POWER = 1e-6


class EchoCanceller:
    """WebRTC's AEC3 at 24 kHz, fed frame by frame with what the loudspeaker played meanwhile."""

    def __init__(self, *, level: float = WORKING_LEVEL) -> None:
        """Start unadapted; it converges within the agent's first second of speech.

        Args:
            level: Factor on both sides on their way into the canceller, undone on the way out.

        Raises:
            MissingExtraError: If pywebrtc-audio is not installed.
        """
        try:
            from pywebrtc_audio import AudioProcessor
        except ImportError as error:
            raise MissingExtraError("pywebrtc-audio", "aec") from error
        self._canceller = AudioProcessor(SAMPLE_RATE_HZ, echo_cancellation=True)
        self._level = np.float32(level)
        self._before = self._after = 0.0

    def reset(self) -> None:
        """Forget the room: another device hears another echo."""
        self._canceller.reset()
        self._before = self._after = 0.0

    def process(self, user: Pcm, agent: Pcm, *, device_delay_ms: float = 0.0) -> Pcm:
        """Return the user's frame without the agent's echo.

        Args:
            user: What the microphone heard, shape [n].
            agent: What the driver took for the loudspeaker during the same time, shape [n].
            device_delay_ms: How long that is under way to the loudspeaker and back from the microphone, as a hint.
        """
        self._canceller.stream_delay_ms = round(device_delay_ms)
        clean: Pcm = self._canceller.process(self._level * user, self._level * agent) / self._level
        if float(np.mean(agent * agent)) > _ACTIVE_POWER:
            self._before = 0.9 * self._before + float(np.mean(user * user))
            self._after = 0.9 * self._after + float(np.mean(clean * clean))
        return clean

    @property
    def reduction_db(self) -> float:
        """How much quieter the microphone became while the agent spoke lately; includes what was taken of the user."""
        return 10 * float(np.log10((self._before + 1e-12) / (self._after + 1e-12)))
