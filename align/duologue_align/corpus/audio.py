"""Read one side of a conversation at 24 kHz, in blocks or a span of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from duologue.audio.files import AudioFile
from duologue.errors import AudioError
from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.corpus.conversation import Channel


def read_blocks(channel: Channel) -> Iterator[Pcm]:
    """Yield the side's samples, float32 at 24 kHz, in blocks of any size.

    Raises:
        AudioError: The file is missing, no audio, broken, holds values that are not finite, or lacks the channel.
    """
    begin = round(channel.start_s * SAMPLE_RATE_HZ)
    end = None if channel.duration_s is None else begin + round(channel.duration_s * SAMPLE_RATE_HZ)
    with _open(channel) as file:
        position = 0
        for block in file.blocks():
            first, last = position, position + len(block)
            position = last
            if last > begin:
                yield block[max(begin - first, 0) : len(block) if end is None else max(end - first, 0)]
            if end is not None and last >= end:
                return


def read_span(channel: Channel, start_s: float, end_s: float) -> Pcm:
    """Return samples of a side, float32 at 24 kHz, shape [n]; silence where the recording is already over.

    Args:
        channel: Which side.
        start_s: Begin, in seconds from the start of the conversation.
        end_s: End.

    Raises:
        AudioError: As `read_blocks`.
    """
    return read_spans(channel, [(start_s, end_s)])[0]


def read_spans(channel: Channel, spans: Sequence[tuple[float, float]]) -> list[Pcm]:
    """Return several spans of a side, as `read_span` each, in one pass over the recording.

    Raises:
        AudioError: As `read_blocks`.
    """
    bounds = [(round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)) for start_s, end_s in spans]
    found = [np.zeros(end - begin, dtype=np.float32) for begin, end in bounds]
    position, last_needed = 0, max((end for _, end in bounds), default=0)
    for block in read_blocks(channel):
        for pcm, (begin, end) in zip(found, bounds, strict=True):
            first, last = max(position, begin), min(position + len(block), end)
            if first < last:
                pcm[first - begin : last - begin] = block[first - position : last - position]
        position += len(block)
        if position >= last_needed:
            break
    return found


def _open(channel: Channel) -> AudioFile:
    path = Path(channel.path)
    if channel.channel is None and path.is_file():
        try:
            channels = int(soundfile.info(path).channels)
        except soundfile.LibsndfileError:
            channels = 1  # AudioFile says better what is wrong
        if channels > 1:
            raise AudioError(f"{path}: {channels} channels where one was expected; name the channel in a manifest")
    return AudioFile(path, channel=channel.channel)
