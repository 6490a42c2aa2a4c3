"""What a codec stream promises: state, isolation, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codec_cases import TINY, decode_all, encode_all, synthetic_frames, write_mimi
from duologue.codec import Mimi
from duologue.errors import AudioError, ConfigError, StreamError

FRAMES = synthetic_frames(4.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimi(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def mimi(path: Path) -> Mimi:
    return Mimi.load(path, config=TINY)


def test_shapes_and_types(mimi: Mimi) -> None:
    stream = mimi.stream()
    codes = stream.encode_step(FRAMES[0])
    assert (codes.shape, codes.dtype) == ((mimi.num_codebooks,), np.int32)
    assert 0 <= codes.min() <= codes.max() < mimi.cardinality
    pcm = stream.decode_step(codes)
    assert (pcm.shape, pcm.dtype) == ((mimi.frame_samples,), np.float32)
    latent = stream.latent_step(FRAMES[1])
    assert (latent.shape, latent.dtype) == ((TINY.dimension,), np.float32)


def test_snapshot_continues_bit_exactly(mimi: Mimi) -> None:
    stream = mimi.stream()
    decode_all(stream, encode_all(stream, FRAMES[:17]))
    snapshot = stream.snapshot()
    codes = encode_all(stream, FRAMES[17:])
    pcm = decode_all(stream, codes)
    other = mimi.stream()
    encode_all(other, FRAMES[5:9])
    for target in (stream, other):
        target.restore(snapshot)
        np.testing.assert_array_equal(encode_all(target, FRAMES[17:]), codes)
        np.testing.assert_array_equal(decode_all(target, codes), pcm)


def test_reset_is_a_new_stream(mimi: Mimi) -> None:
    stream = mimi.stream()
    codes = encode_all(stream, FRAMES)
    pcm = decode_all(stream, codes)
    stream.reset()
    np.testing.assert_array_equal(encode_all(stream, FRAMES), codes)
    np.testing.assert_array_equal(decode_all(stream, codes), pcm)


def test_directions_are_independent(mimi: Mimi) -> None:
    stream = mimi.stream()
    codes = encode_all(stream, FRAMES)
    stream.reset()
    pcm = decode_all(stream, codes)
    mixed = mimi.stream()
    for frame, expected_codes, expected_pcm in zip(FRAMES, codes, pcm, strict=True):
        np.testing.assert_array_equal(mixed.encode_step(frame), expected_codes)
        np.testing.assert_array_equal(mixed.decode_step(expected_codes), expected_pcm)


def test_two_threads_change_nothing(path: Path, mimi: Mimi) -> None:
    one, two = mimi.stream(), Mimi.load(path, config=TINY, threads=2).stream()
    codes = encode_all(one, FRAMES)
    np.testing.assert_array_equal(encode_all(two, FRAMES), codes)
    np.testing.assert_array_equal(decode_all(two, codes), decode_all(one, codes))


def test_many_streams_at_once(mimi: Mimi) -> None:
    expected = encode_all(mimi.stream(), FRAMES)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: encode_all(mimi.stream(), FRAMES), range(12)))
    for codes in results:
        np.testing.assert_array_equal(codes, expected)


def test_a_stream_outlives_its_weights(path: Path) -> None:
    stream = Mimi.load(path, config=TINY).stream()
    assert stream.encode_step(FRAMES[0]).shape == (8,)


def test_a_long_conversation_goes_on(mimi: Mimi) -> None:
    """Seven minutes: the state after them depends on the last frames alone."""
    stream = mimi.stream()
    for _ in range(105):
        codes = encode_all(stream, FRAMES)
    pcm = decode_all(stream, codes)
    assert len(np.unique(codes)) > 50
    assert np.isfinite(pcm).all()
    assert 0.01 < np.sqrt(np.mean(pcm**2)) < 1.0


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros(1919, np.float32),
        np.zeros((1, 1920), np.float32),
        np.zeros(1920, np.float64),
        np.zeros(1920, np.int16),
        [0.0] * 1920,
        None,
    ],
    ids=["short", "two_dimensions", "float64", "int16", "list", "none"],
)
def test_a_frame_of_another_kind_is_refused(mimi: Mimi, frame: Any) -> None:
    with pytest.raises(AudioError, match=r"float32, shape \(1920,\); got"):
        mimi.stream().encode_step(frame)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_frame_that_is_not_finite_changes_nothing(mimi: Mimi, value: float) -> None:
    stream = mimi.stream()
    expected = encode_all(mimi.stream(), FRAMES[:3])
    bad = FRAMES[0].copy()
    bad[7] = value
    encode_all(stream, FRAMES[:2])
    with pytest.raises(AudioError, match="sample 7"):
        stream.encode_step(bad)
    np.testing.assert_array_equal(stream.encode_step(FRAMES[2]), expected[2])


def test_a_strided_frame_is_read_as_it_is(mimi: Mimi) -> None:
    stereo = np.stack([FRAMES[0], FRAMES[1]], axis=1)
    np.testing.assert_array_equal(mimi.stream().encode_step(stereo[:, 0]), mimi.stream().encode_step(FRAMES[0]))


@pytest.mark.parametrize("code", [-1, 128, 2**31 - 1])
def test_codes_out_of_range_are_refused(mimi: Mimi, code: int) -> None:
    codes = np.zeros(8, np.int32)
    codes[3] = code
    with pytest.raises(ConfigError, match=r"codebook 3 is out of range; codes are 0 to 127"):
        mimi.stream().decode_step(codes)


@pytest.mark.parametrize("codes", [np.zeros(7, np.int32), np.zeros(8, np.int64), np.zeros(8, np.float32), [0] * 8])
def test_codes_of_another_kind_are_refused(mimi: Mimi, codes: Any) -> None:
    with pytest.raises(ConfigError, match=r"int32, shape \(8,\); got"):
        mimi.stream().decode_step(codes)


@pytest.mark.parametrize("snapshot", [b"", b"duologue" * 100, 7])
def test_what_is_no_snapshot_is_refused(mimi: Mimi, snapshot: Any) -> None:
    with pytest.raises(StreamError):
        mimi.stream().restore(snapshot)


def test_a_snapshot_of_another_stream_is_refused(mimi: Mimi, path: Path, tmp_path: Path) -> None:
    config = replace(TINY, context=22)
    other = Mimi.load(write_mimi(tmp_path, config), config=config).stream()
    halves = Mimi.load(path, config=TINY, precision="float16").stream()
    exact = mimi.stream(window="exact")
    for snapshot in (other.snapshot(), halves.snapshot(), exact.snapshot(), mimi.stream().snapshot()[:-4]):
        with pytest.raises(StreamError, match="another configuration, precision or window"):
            mimi.stream().restore(snapshot)


def test_settings_that_cannot_be(path: Path, mimi: Mimi) -> None:
    with pytest.raises(ConfigError, match="window is 'wide'"):
        mimi.stream(window="wide")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threads is 3"):
        mimi.stream(threads=3)
    with pytest.raises(ConfigError, match="threads is 0"):
        Mimi.load(path, config=TINY, threads=0)
    with pytest.raises(ConfigError, match="num_codebooks is 11; this Mimi has 1 to 10"):
        Mimi.load(path, config=TINY, num_codebooks=11)


def test_a_second_thread_inside_a_stream_is_refused(mimi: Mimi) -> None:
    """Two threads share one stream: each call either works or says why not, and none corrupts the other."""
    stream = mimi.stream()
    outcomes: list[str] = []

    def work() -> None:
        for frame in FRAMES:
            try:
                stream.encode_step(frame)
                outcomes.append("done")
            except StreamError as error:
                outcomes.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4 * len(FRAMES)
    assert outcomes.count("done") >= len(FRAMES)
    assert all(outcome == "done" or "in use by another thread" in outcome for outcome in outcomes)


FORKED = """
import os, signal, sys, warnings
from pathlib import Path
import numpy as np
from codec_cases import TINY, encode_all, synthetic_frames
from duologue.codec import Mimi

frames = synthetic_frames(2.0)
stream = Mimi.load(Path(sys.argv[1]), config=TINY).stream(threads=2)
encode_all(stream, frames[:10])
sys.stdout.flush()
with warnings.catch_warnings():
    # Python 3.12 warns of every fork beside threads.
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
if child == 0:
    signal.alarm(30)
codes = encode_all(stream, frames[10:])
del stream
if child == 0:
    Path(sys.argv[2]).write_bytes(codes.tobytes())
    os._exit(0)
status = os.waitpid(child, 0)[1]
assert status == 0 and Path(sys.argv[2]).read_bytes() == codes.tobytes()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_goes_on_alone(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    program = [sys.executable, "-c", FORKED, str(path), str(tmp_path / "codes")]
    subprocess.run(program, check=True, env=environment, timeout=60)
