"""Recordings from outside: every bad one gets one clear error, and nothing half-written stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.audio import AudioFile, write_wav
from duologue.errors import AudioError, ConfigError
from duologue.output_folder import output_folder


def _write(path: Path, pcm: np.ndarray, rate_hz: int = 8_000, **options: str) -> Path:
    soundfile.write(path, pcm, rate_hz, **options)
    return path


def test_reads_in_frames_at_24_khz_and_pads_the_last(tmp_path: Path) -> None:
    pcm = np.sin(np.arange(8_000 * 2 + 100) / 10).astype(np.float32) * 0.5
    with AudioFile(_write(tmp_path / "a.wav", pcm)) as recording:
        frames = list(recording.frames(1920))
    assert {frame.shape for frame in frames} == {(1920,)}
    assert len(frames) == int(np.ceil(len(pcm) * 3 / 1920))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        AudioFile(tmp_path / "nothing.wav")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder"):
        AudioFile(tmp_path)


def test_a_raw_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"1234" * 100)
    with pytest.raises(AudioError, match="not a readable recording"):
        AudioFile(tmp_path / "a.raw")


def test_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_text("this is not a recording")
    with pytest.raises(AudioError, match="not a readable recording"):
        AudioFile(path)


def test_empty_recording(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="empty"):
        AudioFile(_write(tmp_path / "empty.wav", np.zeros(0, dtype=np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 32_767.0])
def test_an_insane_sample_is_located(tmp_path: Path, value: float) -> None:
    pcm = np.zeros(16_000, dtype=np.float32)
    pcm[12_000] = value
    recording = AudioFile(_write(tmp_path / "nan.wav", pcm, subtype="FLOAT"))
    with pytest.raises(AudioError, match=r"1\.500 s is"):
        recording.read()


def test_stereo_needs_a_channel(tmp_path: Path) -> None:
    path = _write(tmp_path / "stereo.wav", np.stack([np.zeros(8_000), np.full(8_000, 0.5)], axis=1))
    with pytest.raises(AudioError, match="choose one of them"):
        AudioFile(path)
    with pytest.raises(AudioError, match="no channel 2"):
        AudioFile(path, channel=2)
    with AudioFile(path, channel=1) as recording:
        assert recording.read(8_000) == pytest.approx(0.5, abs=1e-4)


def test_a_rate_we_do_not_convert(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="out of range"):
        AudioFile(_write(tmp_path / "slow.wav", np.zeros(100), rate_hz=1_000))


def test_a_wav_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        write_wav(tmp_path / "a.wav", np.array(["not", "sound"]))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    write_wav(tmp_path / "a.wav", np.zeros(10, dtype=np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_output_folder_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def write_then_fail() -> None:
        with output_folder(target) as folder:
            (folder / "a.txt").write_text("half")
            raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        write_then_fail()
    assert list(tmp_path.iterdir()) == []
    with output_folder(target) as folder:
        (folder / "a.txt").write_text("whole")
    assert (target / "a.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_output_folder_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"), output_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"
