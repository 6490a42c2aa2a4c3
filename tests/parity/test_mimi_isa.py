"""Every instruction set this processor has gives the scalar reference's result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codec_cases import SMALL, decode_all, encode_all, synthetic_frames, write_mimi
from duologue import _native
from duologue.codec import Mimi, Precision
from duologue.errors import ConfigError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimi(tmp_path_factory.mktemp("small"), SMALL)


@pytest.mark.parametrize("isa", [isa for isa in _native.available_isas() if isa != "scalar"])
def test_isa_agrees_with_scalar(isa: str, path: Path) -> None:
    frames = synthetic_frames(12.0)
    fast, plain = (Mimi.load(path, config=SMALL, isa=name) for name in (isa, "scalar"))
    assert (fast.isa, plain.isa) == (isa, "scalar")
    codes = encode_all(plain.stream(), frames)
    assert np.mean(encode_all(fast.stream(), frames) == codes) >= 0.999
    found, expected = decode_all(fast.stream(), codes), decode_all(plain.stream(), codes)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("precision", "agreement", "limit"), [("float16", 0.95, 2e-3), ("int8", 0.5, 0.1)])
@pytest.mark.parametrize("isa", _native.available_isas())
def test_smaller_weights_stay_close(isa: str, precision: Precision, agreement: float, limit: float, path: Path) -> None:
    frames = synthetic_frames(1.0 if isa == "scalar" else 6.0)
    exact = Mimi.load(path, config=SMALL)
    small = Mimi.load(path, config=SMALL, isa=isa, precision=precision)
    assert (small.precision, small.packed_bytes < exact.packed_bytes) == (precision, True)
    codes = encode_all(exact.stream(), frames)
    assert np.mean(encode_all(small.stream(), frames) == codes) >= agreement
    found, expected = decode_all(small.stream(), codes), decode_all(exact.stream(), codes)
    assert 0 < np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)) < limit


def test_unknown_precision_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"precision is 'int4'; it must be float32, float16 or int8"):
        Mimi.load(path, config=SMALL, precision="int4")  # type: ignore[arg-type]


def test_stages_account_for_the_frame(path: Path) -> None:
    frame = synthetic_frames(1.0)[0]
    stream = Mimi.load(path, config=SMALL).stream()
    stream.encode_step(frame)
    assert all(seconds == 0 for seconds, _, _ in stream.stages().values())
    stream.start_clock()
    stream.decode_step(stream.encode_step(frame))
    stages = stream.stages()
    assert len(stages) == 10
    assert all(seconds > 0 and size > 0 for seconds, _, size in stages.values())


def test_environment_chooses_the_isa(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUOLOGUE_ISA", "scalar")
    assert _native.isa() == "scalar"
    assert Mimi.load(path, config=SMALL).isa == "scalar"
    monkeypatch.setenv("DUOLOGUE_ISA", "pentium")
    with pytest.raises(ConfigError, match=r"pentium.*use one of: scalar"):
        Mimi.load(path, config=SMALL)
