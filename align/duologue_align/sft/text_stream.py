"""Lay words on frames: the agent's are the text stream that the model learns to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from duologue.model.tokenizer import EPAD_ID, PAD_ID
from duologue.types import FRAME_RATE_HZ
from duologue_align.sft.dialogues import SpokenWord


def text_stream(
    words: Sequence[SpokenWord], frames: int, encode: Callable[[str], Sequence[int]]
) -> npt.NDArray[np.int64]:
    """Return one text token per frame, shape [frames].

    Each word is tokenised alone and its tokens follow one another from the frame in which it starts. All other frames
    hold PAD, and of those the last before a word holds EPAD. A word that starts while another is still being written
    replaces what is left of that one.

    Args:
        words: In order of their start.
        frames: Length of the stream.
        encode: Tokens of a word.

    Source: the text stream of moshi-finetune (its interleaver without shifting); arXiv 2410.00037 section 3.4.4.
    """
    stream = np.full(frames, PAD_ID, dtype=np.int64)
    starts = [int(word.start_s * FRAME_RATE_HZ) for word in words]
    for index, (word, start) in enumerate(zip(words, starts, strict=True)):
        # Of several words that start in one frame only the last is written.
        end = min([frames, *starts[index + 1 : index + 2]])
        tokens = list(encode(word.text))[: max(0, end - start)]
        if start < 0 or not tokens:
            continue
        stream[start : start + len(tokens)] = tokens
        if start > 0 and stream[start - 1] == PAD_ID:
            stream[start - 1] = EPAD_ID
    return stream
