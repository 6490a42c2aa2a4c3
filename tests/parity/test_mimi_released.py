"""The released shape, random weights, 30 s of speech: against moshi and against rustymimi, each under its window.

The id of a test says which speech: a recorded telephone call where the shared folder is beside the project, else a
synthetic voice. Encoding and moshi's decoder cover all 30 s in the default run. So does rustymimi's decoder with
`-m slow`; without, it stops at 12.8 s, past a full window, for together with moshi's the rest takes more than half a
minute on one core.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from codec_cases import decode_all, encode_all, recorded_frames, synthetic_frames
from duologue.codec import Mimi, MimiConfig, Window
from duologue.codec.reference import MoshiCodec, RustymimiCodec, StreamingCodec
from duologue.codec.untrained import write_untrained_mimi

pytest.importorskip("moshi.models")
pytest.importorskip("rustymimi")

DURATION_S = 30.0
DECODED_FRAMES = 160
RECORDING = Path(__file__).parents[2].parent / "shared" / "data" / "real_calls" / "call49_caller.wav"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released") / "mimi.safetensors"
    write_untrained_mimi(path, seed=3)
    return path


@pytest.fixture(scope="module")
def mimi(path: Path) -> Mimi:
    return Mimi.load(path)


@pytest.fixture(scope="module", params=["recorded" if RECORDING.is_file() else "synthetic"])
def frames(request: pytest.FixtureRequest) -> npt.NDArray[np.float32]:
    if request.param == "recorded":
        return recorded_frames(RECORDING, DURATION_S)
    return synthetic_frames(DURATION_S, MimiConfig())


@pytest.fixture(scope="module")
def codes(mimi: Mimi, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    return encode_all(mimi.stream(), frames)


def test_codes_are_diverse_and_audio_is_audible(mimi: Mimi, codes: npt.NDArray[np.int32]) -> None:
    for column in codes.T:
        counts = np.bincount(column)
        share = counts[counts > 0] / len(column)
        assert len(share) >= 100
        assert -np.sum(share * np.log2(share)) > 5.5
    pcm = decode_all(mimi.stream(), codes[:100])
    assert 0.03 < np.sqrt(np.mean(pcm**2)) < 0.3


def test_encodes_like_moshi(path: Path, frames: npt.NDArray[np.float32], codes: npt.NDArray[np.int32]) -> None:
    assert np.mean(codes == encode_all(MoshiCodec(path), frames)) >= 0.999


def check_decoding(mimi: Mimi, theirs: StreamingCodec, window: Window, codes: npt.NDArray[np.int32]) -> None:
    found = decode_all(mimi.stream(window=window), codes)
    np.testing.assert_allclose(found, decode_all(theirs, codes), rtol=0, atol=1e-4)


def test_decodes_like_moshi(path: Path, mimi: Mimi, codes: npt.NDArray[np.int32]) -> None:
    check_decoding(mimi, MoshiCodec(path), "moshi", codes)


def test_encodes_like_rustymimi(path: Path, mimi: Mimi, frames: npt.NDArray[np.float32]) -> None:
    found = encode_all(mimi.stream(window="rustymimi"), frames)
    assert np.mean(found == encode_all(RustymimiCodec(path), frames)) >= 0.999


def test_decodes_like_rustymimi(path: Path, mimi: Mimi, codes: npt.NDArray[np.int32]) -> None:
    check_decoding(mimi, RustymimiCodec(path), "rustymimi", codes[:DECODED_FRAMES])


@pytest.mark.slow
def test_decodes_all_like_rustymimi(path: Path, mimi: Mimi, codes: npt.NDArray[np.int32]) -> None:
    check_decoding(mimi, RustymimiCodec(path), "rustymimi", codes)


def test_file_has_the_released_tensors(path: Path, shared_dir: Path) -> None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    found = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in header.items() if name != "__metadata__"}
    listing = (shared_dir / "fixtures" / "mimi_tensors_released.txt").read_text()
    lines = re.findall(r"^(\S+) \(([\d, ]*)\) (\w+)$", listing, flags=re.MULTILINE)
    expected = {name: (tuple(int(n) for n in re.findall(r"\d+", shape)), dtype) for name, shape, dtype in lines}
    assert len(expected) == 318
    assert found == expected
