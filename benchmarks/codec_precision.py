"""Say what float16 and int8 weights change: codes per codebook, and the sound, against the same codec in float32.

    python benchmarks/codec_precision.py SPEECH.wav [SPEECH.wav ...] [--mimi FILE --config FILE] [--json PATH]

The released shape with random weights is measured and, with --mimi, a codec from a file. One JSON line comes last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import cpu_name, git_hash

from duologue import _native
from duologue.audio.files import AudioFile
from duologue.codec import Mimi, MimiConfig, Precision
from duologue.codec.untrained import write_untrained_mimi

Signal = npt.NDArray[np.float32]
SMALLER: tuple[Precision, ...] = ("float16", "int8")
MEL_WINDOWS = (512, 1024, 2048)
MEL_BANDS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, nargs="+", help="recordings")
    parser.add_argument("--mimi", type=Path, help="weights, safetensors")
    parser.add_argument("--config", type=Path, help="their configuration, JSON; left out, it is the released one")
    parser.add_argument("--seconds", type=float, default=10.0, help="how much of each recording")
    parser.add_argument("--json", type=Path, help="also write the JSON line, indented, to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "mimi.safetensors"
        write_untrained_mimi(weights)
        results = {"full size, random weights": measure(weights, MimiConfig(), options)}
    if options.mimi is not None:
        config = MimiConfig() if options.config is None else MimiConfig.from_file(options.config)
        results[f"{options.mimi.parent.name}/{options.mimi.name}"] = measure(options.mimi, config, options)
    frames = sum(len(read_frames(path, MimiConfig(), options.seconds)) for path in options.speech)
    report = {"benchmark": "codec_precision", "git": git_hash(), "machine": cpu_name(), "frames": frames}
    report |= {"isa": _native.isa(), "results": results}
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def measure(weights: Path, config: MimiConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Compare every smaller precision with float32, print and return the figures."""
    results = {precision: compare(weights, config, precision, options) for precision in SMALLER}
    print(weights)
    for precision, figures in results.items():
        shares = " ".join(f"{share:6.1%}" for share in figures["codes_equal"])
        print(f"{precision:8} codes equal {shares}  all {figures['all_equal']:.2%}")
        for name in ("same_codes", "own_codes"):
            sound = figures[name]
            print(f"{'':8} {name}: SI-SDR {sound['si_sdr_db']:.1f} dB, log-mel distance {sound['mel_distance']:.4f}")
    return results


def compare(weights: Path, config: MimiConfig, precision: Precision, options: argparse.Namespace) -> dict[str, Any]:
    """Run every recording through both; "same_codes" decodes the float32 codes, "own_codes" what was encoded."""
    exact, small = (Mimi.load(weights, config=config, precision=p) for p in ("float32", precision))
    equal, expected, same, own = [], [], [], []
    for path in options.speech:
        frames = read_frames(path, config, options.seconds)
        codes, found = encode(exact, frames), encode(small, frames)
        equal.append(codes == found)
        expected.append(decode(exact, codes))
        same.append(decode(small, codes))
        own.append(decode(small, found))
    reference = np.concatenate(expected)
    return {
        "codes_equal": [float(share) for share in np.concatenate(equal).mean(axis=0)],
        "all_equal": float(np.concatenate(equal).mean()),
        "same_codes": distances(np.concatenate(same), reference),
        "own_codes": distances(np.concatenate(own), reference),
    }


def read_frames(path: Path, config: MimiConfig, seconds: float) -> Signal:
    with AudioFile(path) as file:
        mono = file.read(config.sample_rate_hz)
    count = min(int(seconds * config.frame_rate_hz), len(mono) // config.frame_samples)
    return np.ascontiguousarray(mono[: count * config.frame_samples].reshape(count, -1))


def encode(mimi: Mimi, frames: Signal) -> npt.NDArray[np.int32]:
    stream = mimi.stream()
    return np.stack([stream.encode_step(frame) for frame in frames])


def decode(mimi: Mimi, codes: npt.NDArray[np.int32]) -> Signal:
    stream = mimi.stream()
    return np.concatenate([stream.decode_step(row) for row in codes])


def distances(found: Signal, expected: Signal) -> dict[str, float]:
    """Return SI-SDR in dB and the mean distance of log-mel spectra over three windows."""
    target = expected * (found @ expected / (expected @ expected))
    ratio = float(np.sum(target**2) / np.sum((found - target) ** 2))
    mel = [np.abs(log_mel(found, window) - log_mel(expected, window)).mean() for window in MEL_WINDOWS]
    return {"si_sdr_db": 10 * float(np.log10(ratio)), "mel_distance": float(np.mean(mel))}


def log_mel(signal: Signal, window: int) -> npt.NDArray[np.float64]:
    """Return natural-log mel magnitudes [frames, bands]."""
    blocks = np.lib.stride_tricks.sliding_window_view(signal, window)[:: window // 4] * np.hanning(window)
    spectrum = np.abs(np.fft.rfft(blocks, axis=1))
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12_000 / 700), MEL_BANDS + 2) / 2595) - 1)
    at = np.linspace(0, 12_000, window // 2 + 1)
    rising = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    bands = np.clip(np.minimum(rising, falling), 0, None)
    return np.log(spectrum @ bands.T + 1e-5)


if __name__ == "__main__":
    main()
