"""Words on frames: examples, and a frame-by-frame reading of the same rule."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.model.tokenizer import EPAD_ID as EPAD
from duologue.model.tokenizer import PAD_ID as PAD
from duologue_align.sft.dialogues import SpokenWord
from duologue_align.sft.text_stream import text_stream

FRAME_S = 0.08


def encode(word: str) -> list[int]:
    return [10 + ord(letter) for letter in word]


A, B, C = (10 + ord(letter) for letter in "abc")


def stream(words: list[tuple[str, float, float]], frames: int) -> list[int]:
    return text_stream([SpokenWord(*word) for word in words], frames, encode).tolist()


def test_a_word_starts_in_the_frame_of_its_start_behind_an_epad() -> None:
    assert stream([("ab", 0.25, 0.6)], 7) == [PAD, PAD, EPAD, A, B, PAD, PAD]


def test_a_word_in_the_first_frame_has_no_epad() -> None:
    assert stream([("a", 0.0, 0.1), ("b", 0.09, 0.3)], 4) == [A, B, PAD, PAD]


def test_a_new_word_replaces_what_is_left_of_the_last() -> None:
    assert stream([("abc", 0.08, 0.2), ("cc", 0.25, 0.5)], 6) == [EPAD, A, B, C, C, PAD]


def test_of_two_words_in_a_frame_the_last_is_written() -> None:
    assert stream([("a", 0.165, 0.18), ("b", 0.2, 0.3)], 4) == [PAD, EPAD, B, PAD]


def test_words_past_the_end_are_cut() -> None:
    assert stream([("abc", 0.17, 0.5), ("b", 5.0, 6.0)], 4) == [PAD, EPAD, A, B]
    assert stream([], 3) == [PAD] * 3


def slow_stream(words: list[SpokenWord], frames: int) -> list[int]:
    """Frame by frame: take up the words that have started, then write one waiting token."""
    out, waiting, following = [PAD] * frames, [], 0
    for frame in range(frames):
        while following < len(words) and int(words[following].start_s * 12.5) < frame + 1:
            waiting, following = encode(words[following].text), following + 1
        if waiting:
            if frame > 0 and out[frame - 1] == PAD:
                out[frame - 1] = EPAD
            out[frame] = waiting.pop(0)
    return out


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text("abc", max_size=4), st.floats(0, 3), st.floats(0.01, 0.5)), max_size=12),
    st.integers(1, 40),
)
def test_equals_the_slow_reading(rows: list[tuple[str, float, float]], frames: int) -> None:
    words = sorted((SpokenWord(t, s, s + d) for t, s, d in rows if t), key=lambda word: word.start_s)
    assert np.array_equal(text_stream(words, frames, encode), slow_stream(words, frames))
