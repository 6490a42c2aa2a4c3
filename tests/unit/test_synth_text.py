import numpy as np
import pytest

from duologue_align.synth.chat import UserText, refused_words, speakable, user_text
from duologue_align.synth.repertoire import split_sentences, words_of, written_repertoire

REPERTOIRE = written_repertoire()


@pytest.mark.parametrize(
    ("typed", "spoken"),
    [
        ("im not sure haha", "I'm not sure."),
        ("lol that's so cool!", "That's so cool!"),
        ("do u like it?", "Do you like it?"),
        ("i dont know", "I don't know."),
        ("see http://x.com now", None),
        ("it costs 20 dollars", None),
        ("what the hell", None),
        ("nooooo way", None),
        ("STOP IT", None),
        ("où est le chat", None),
        ("yes", None),
        ("", None),
    ],
)
def test_typed_lines_become_speech_or_are_dropped(typed: str, spoken: str | None) -> None:
    assert speakable(typed) == spoken


def test_a_word_outside_the_vocabulary_drops_the_line() -> None:
    allowed = frozenset(["my", "friend", "is", "here"])
    assert speakable("my friend is here", allowed) == "My friend is here."
    assert speakable("my friend kyle is here", allowed) is None


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        ("Hello there, how are you doing today?", "intent:how_are_you"),
        ("Can I ask you something else?", "intent:ask_permission"),
        ("I had pizza for dinner.", "topic:food"),
        ("What do you like to eat for breakfast?", "topic:food"),
        ("Are you a robot?", "intent:who_are_you"),
        ("I feel terrible about it.", "mood:sad"),
        ("So it goes up there.", "statement"),
        ("Would that be so?", "question"),
        ("Okay, I have to go now, thank you.", "intent:thanks"),
    ],
)
def test_replies_are_tied_to_what_was_heard(heard: str, reason: str) -> None:
    reply = REPERTOIRE.reply(heard, np.random.default_rng(0), last_topic=None, used=set())
    assert reply.reason == reason
    assert set(reply.sentences) <= set(REPERTOIRE.agent_sentences())


def test_the_named_thing_is_taken_up_and_sentences_do_not_repeat() -> None:
    rng, used = np.random.default_rng(0), set()
    first = REPERTOIRE.reply("I made a pizza.", rng, last_topic=None, used=used)
    assert first.sentences[0] == "Pizza is always a good idea."
    second = REPERTOIRE.reply("I made a pizza.", rng, last_topic=None, used=used)
    assert not set(first.sentences) & set(second.sentences)


def test_the_answer_that_shares_words_with_the_question_is_taken() -> None:
    for seed in range(5):
        heard = "What do you like to eat for breakfast?"
        reply = REPERTOIRE.reply(heard, np.random.default_rng(seed), last_topic=None, used=set())
        assert reply.sentences[0] == "For breakfast, I like toast and fruit."


def test_a_turn_without_a_subject_may_stay_on_the_last_one() -> None:
    rng = np.random.default_rng(0)
    topics = {REPERTOIRE.reply("So it is.", rng, last_topic="music", used=set()).topic for _ in range(60)}
    assert topics == {None, "music"}


def test_the_repertoire_is_a_few_hundred_complete_sentences() -> None:
    sentences = REPERTOIRE.agent_sentences()
    assert 300 <= len(sentences) <= 900
    assert all(sentence[-1] in ".!?" and sentence[0].isupper() for sentence in sentences)
    assert max(len(sentence.split()) for sentence in sentences) <= 16
    assert not {word for sentence in sentences for word in words_of(sentence)} & refused_words()
    for name, topic in REPERTOIRE.topics.items():
        assert set(topic["specific"]) <= set(topic["keywords"]), name
        assert all(topic[kind] for kind in ("says", "asks", "answers", "user")), name


def test_written_lines_are_drawn_by_subject() -> None:
    from synth_fakes import LINES

    rng = np.random.default_rng(0)
    assert {LINES.draw(rng, topic="pets").topics for _ in range(5)} == {("pets",)}
    assert LINES.draw(rng, topic="space") in LINES.lines


@pytest.fixture(scope="module")
def chats() -> tuple[UserText, UserText]:
    pytest.importorskip("chitchat_dataset", reason="needs chitchat-dataset: pip install 'duologue[align]'")
    return user_text("train"), user_text("test")


def test_chats_are_clean_and_the_splits_share_no_line(chats: tuple[UserText, UserText]) -> None:
    train, test = chats
    assert len(train.lines) > 20_000
    assert len(test.lines) > 2_000
    long_lines = {line.text for line in train.lines if len(line.text.split()) > 6}
    shared = long_lines & {line.text for line in test.lines}
    assert len(shared) < 0.002 * len(long_lines)
    for line in test.lines:
        assert not set(words_of(line.text)) & refused_words()
        assert not any(character.isdigit() for character in line.text)
        assert len(line.text.split()) <= 38
    assert split_sentences("One. Two? Three!") == ["One.", "Two?", "Three!"]
