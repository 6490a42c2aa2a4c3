"""Every instruction set this processor has gives the scalar reference's result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codec_cases import SMALL, decode_all, encode_all, synthetic_frames, write_mimi
from duologue import _native
from duologue.codec import Mimi
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


def test_environment_chooses_the_isa(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUOLOGUE_ISA", "scalar")
    assert _native.isa() == "scalar"
    assert Mimi.load(path, config=SMALL).isa == "scalar"
    monkeypatch.setenv("DUOLOGUE_ISA", "pentium")
    with pytest.raises(ConfigError, match=r"pentium.*use one of: scalar"):
        Mimi.load(path, config=SMALL)
