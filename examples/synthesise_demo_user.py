"""Make the recorded user of `duologue demo`: a scripted caller spoken by hibari-tts (Apache-2.0).

The script holds what the four axes need: pauses inside turns, turn ends, a backchannel and an interruption.
Run: pip install hibari-tts; python examples/synthesise_demo_user.py runtime/duologue/data/demo_user.flac
"""

import sys

import numpy as np
import soundfile
from hibari import Hibari

SAMPLE_RATE_HZ = 24_000
DURATION_S = 60
# (silence before, in seconds; text). A silence inside a turn is a pause; a long one leaves the floor to the agent.
SCRIPT = [
    (1.0, "Hello there! How are you doing today?"),
    (4.0, "I was thinking about going for a walk,"),
    (0.7, "maybe down by the river,"),
    (0.9, "but I am not sure about the weather."),
    (4.5, "Mm-hm."),
    (3.0, "Wait, sorry, can I ask you something else?"),
    (1.2, "What do you like to eat for breakfast?"),
    (5.5, "Right."),
    (2.5, "I usually have some toast and coffee."),
    (0.8, "And sometimes an egg."),
    (4.0, "Okay, thank you. It was nice talking to you. Goodbye!"),
]


def main() -> None:
    """Speak the script and write it as FLAC."""
    voice = Hibari()
    recording = np.zeros(DURATION_S * SAMPLE_RATE_HZ, dtype=np.float32)
    position = 0
    for silence_s, text in SCRIPT:
        speech = np.asarray(voice(text, seed=0), dtype=np.float32)
        position += int(silence_s * SAMPLE_RATE_HZ)
        recording[position : position + len(speech)] += speech[: max(0, len(recording) - position)]
        position += len(speech)
    print(f"speech ends at {position / SAMPLE_RATE_HZ:.1f} s of {DURATION_S} s")
    soundfile.write(sys.argv[1], recording, SAMPLE_RATE_HZ, subtype="PCM_16")


if __name__ == "__main__":
    main()
