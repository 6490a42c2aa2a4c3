import numpy as np
import pytest

from duologue_align.synth.phrasing import phrase
from duologue_align.synth.pieces import Phone, Piece, Sentence, Word, bridge, cut_piece, levels_db
from duologue_align.synth.timing import human_timing
from duologue_align.synth.voices import AGENT, TEST_USERS, TRAIN_USERS
from synth_fakes import ToneSpeaker


def _piece() -> Piece:
    (piece,) = ToneSpeaker().speak(AGENT, Sentence(words=("one", "two", "three", "four")))
    return piece


def test_a_cut_piece_keeps_the_words_that_were_heard_and_fades_out() -> None:
    cut = _piece().cut(0.70)
    assert [word.text for word in cut.words] == ["one", "two", "three"]
    assert cut.words[-1].end_s == pytest.approx(0.70)
    assert cut.duration_s == pytest.approx(0.70)
    assert cut.spans == ((0.0, pytest.approx(0.70)),)
    assert abs(int(cut.pcm[-1])) < 50
    assert np.array_equal(cut.pcm[:10_000], _piece().pcm[:10_000])


def test_a_cut_clips_the_phone_it_falls_into_even_where_the_word_is_dropped() -> None:
    cut = _piece().cut(0.60)
    assert [word.text for word in cut.words] == ["one", "two"]
    assert [phone.end_s for phone in cut.phones] == pytest.approx([0.25, 0.52, 0.60])
    assert len(_piece().cut(0.53).phones) == 2


def test_a_cut_after_the_end_changes_no_word_and_no_phone() -> None:
    assert _piece().cut(9.0).words == _piece().words
    assert _piece().cut(9.0).phones == _piece().phones


def test_silences_up_to_two_tenths_are_bridged() -> None:
    sounding = np.array([0, 1, 2, 22, 23, 50])
    assert np.allclose(bridge(sounding, 0.01), [(0.0, 0.24), (0.50, 0.51)])


def test_a_piece_is_trimmed_to_its_sound_and_its_words_move_along() -> None:
    pcm = np.zeros(24_000, dtype=np.float32)
    pcm[7_200:16_800] = 0.3
    active = levels_db(pcm) > -40
    piece = cut_piece(pcm, active, [Word("hi", 0.1, 0.70)], [Phone("h", 0.1, 0.2), Phone("I", 0.2, 0.7)], 0, 100)
    assert piece is not None
    assert piece.duration_s == pytest.approx(0.40)
    assert piece.words == (Word("hi", 0.0, pytest.approx(0.40)),)
    assert piece.phones == (Phone("I", 0.0, pytest.approx(0.40)),)
    assert cut_piece(pcm, active, [], [], 80, 100) is None


def test_breaks_come_at_clauses_and_every_word_stays_in_order() -> None:
    text = "I was thinking about it, and then I went home because it was late, but nobody was there."
    rng = np.random.default_rng(3)
    cut_after = []
    for _ in range(50):
        ((sentence, pauses),) = phrase([text], human_timing(), rng)
        assert " ".join(sentence.words) == text
        assert not pauses
        cut_after += [sentence.words[index] for index in sentence.breaks]
    assert len(cut_after) > 30
    assert sum(word in ("it,", "home", "late,") for word in cut_after) > 0.6 * len(cut_after)


def test_hesitations_stand_beside_breaks_and_only_for_those_who_hesitate() -> None:
    text = "I was thinking about it, and then I went home because it was late, but nobody was there."
    rng = np.random.default_rng(4)
    ((sentence, _),) = phrase([text], human_timing(), rng, fillers=["um"], filler_rate=1.0)
    hesitations = [index for index, word in enumerate(sentence.words) if word == "um,"]
    assert hesitations
    assert all(index in sentence.breaks or index - 1 in sentence.breaks for index in hesitations)


def test_a_fluent_speaker_never_breaks_in_mid_phrase() -> None:
    text = "It is very nice to spend a long evening with good old friends in the city."
    rng = np.random.default_rng(5)
    fluent, halting = (
        [len(phrase([text], human_timing(), rng, is_fluent=is_fluent)[0][0].breaks) for _ in range(30)]
        for is_fluent in (True, False)
    )
    assert sum(fluent) == 0
    assert sum(halting) > 10


def test_the_held_out_voices_are_other_voices() -> None:
    names = [voice.name for voice in (AGENT, *TRAIN_USERS, *TEST_USERS)]
    assert len(set(names)) == len(names)
    for unseen in TEST_USERS:
        assert all(
            max(abs(unseen.formants / seen.formants - 1), abs(unseen.pitch / seen.pitch - 1)) >= 0.03
            for seen in (*TRAIN_USERS, AGENT)
        )
