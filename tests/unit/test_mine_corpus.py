"""Small folders in the shape of each corpus."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from duologue.errors import AudioError, ConfigError
from duologue_align.corpus.audio import read_blocks, read_span
from duologue_align.corpus.conversation import Channel, Conversation, Line, Rejected
from duologue_align.corpus.folder import find_pairs
from duologue_align.corpus.layouts import Layout, list_conversations
from duologue_align.corpus.transcripts import read_lines
from mine_cases import write_mono, write_stereo


def _touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _one(source: Path, layout: Layout | None = None) -> Conversation:
    (conversation,), rejected = list_conversations([source], layout)
    assert not rejected
    return conversation


def test_folder_knows_pairs_and_stereo_files(tmp_path: Path) -> None:
    for name in ("call40_agent.wav", "call40_caller.wav", "deep/x-USER.flac", "deep/x-agent.flac", "alone_agent.wav"):
        _touch(tmp_path / name)
    _touch(tmp_path / "stereo.opus")
    _touch(tmp_path / ".hidden.wav")
    _touch(tmp_path / "notes.txt")
    found, rejected = list_conversations([tmp_path])
    assert not rejected
    assert [conversation.name for conversation in found] == ["alone_agent", "call40", "deep/x", "stereo"]
    _, call, deep, stereo = found
    assert (call.user.path.name, call.agent.path.name) == ("call40_caller.wav", "call40_agent.wav")
    assert (deep.user.path.name, deep.agent.path.name) == ("x-USER.flac", "x-agent.flac")
    assert (stereo.agent.channel, stereo.user.channel) == (0, 1)


def test_conversations_that_the_runtime_kept_have_their_own_channels_and_words(tmp_path: Path) -> None:
    kept = tmp_path / "20260101-120000-abcdef"
    _touch(kept / "conversation.wav")
    _touch(kept / "report.json")
    _touch(tmp_path / ".20260101-130000-fedcba-x" / "fresh" / "conversation.wav")
    pieces = [(1.0, " hel"), (1.08, "lo"), (2.0, " you")]
    rows = [{"kind": "transcript", "start_s": at, "end_s": at, "detail": {"text": text}} for at, text in pieces]
    _touch(kept / "events.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {"kind": "gap"}]))
    conversation = _one(tmp_path)
    assert conversation.name == kept.name
    assert (conversation.user.channel, conversation.agent.channel) == (0, 1)
    assert read_lines(conversation) == (Line("agent", 1.0, 1.16, "hello"), Line("agent", 2.0, 2.08, "you"))
    (kept / "events.jsonl").unlink()
    assert read_lines(_one(kept)) == ()


def test_pairs_are_of_one_folder_and_format(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a/c_1.wav", "b/c_2.wav", "a/c_2.mp3", "d/c_A.wav", "d/c_B.wav")]
    pairs, rest = find_pairs(files)
    assert pairs == [("c", tmp_path / "d/c_A.wav", tmp_path / "d/c_B.wav")]
    assert len(rest) == 3


def test_folder_reads_words_in_moshi_finetunes_form_with_the_users_of_synth(tmp_path: Path) -> None:
    _touch(tmp_path / "data_stereo/000000.wav")
    _touch(
        tmp_path / "data_stereo/000000.json",
        json.dumps(
            {
                "alignments": [
                    ["hi", [1.0, 1.2], "SPEAKER_MAIN"],
                    ["there", [1.2, 1.5], "SPEAKER_MAIN"],
                    ["yo", [0.5, 0.8], "SPEAKER_USER"],
                ]
            }
        ),
    )
    conversation = _one(tmp_path / "data_stereo")
    assert [(line.side, line.text) for line in read_lines(conversation)] == [
        ("user", "yo"),
        ("agent", "hi"),
        ("agent", "there"),
    ]


def test_names_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        _touch(tmp_path / folder / "1.wav")
    found, _ = list_conversations([tmp_path / "a", tmp_path / "b", tmp_path / "b"])
    assert [conversation.name for conversation in found] == ["1", "b/1", "b/1.2"]


def test_manifest(tmp_path: Path) -> None:
    rows = [
        {"path": "s.wav", "user_channel": 0, "split": "test", "user_speaker": "u7", "transcript": "s.jsonl"},
        {"user": "u.wav", "agent": "a.wav", "name": "pair"},
        {"path": "synth/000000.wav", "duration": 90.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    bad = ['{"path": "x.wav", "channel": 1}', '{"user": "u.wav"}', "{", '{"path": "x.wav", "user_channel": 0, ']
    bad += ['{"path": "x.wav", "split": "valid"}', '{"path": "x.wav", "user_channel": 1, "agent_channel": 1}', "[]"]
    _touch(tmp_path / "all.jsonl", text + "\n" + "\n".join(bad))
    _touch(tmp_path / "s.jsonl", '{"side": "agent", "start": 2, "end": 3, "text": " hello "}\n')
    (first, pair, plain), rejected = list_conversations([tmp_path / "all.jsonl"])
    assert (first.name, first.user.channel, first.agent.channel) == ("s", 0, 1)
    assert (first.split, first.user_speaker) == ("test", "u7")
    assert read_lines(first) == (Line("agent", 2.0, 3.0, "hello"),)
    assert (pair.name, pair.user, pair.agent) == (
        "pair",
        Channel(path=tmp_path / "u.wav"),
        Channel(path=tmp_path / "a.wav"),
    )
    assert (plain.name, plain.user.channel) == ("synth/000000", 1)
    assert len(rejected) == len(bad)
    assert "unknown key 'channel'" in rejected[0].reason
    assert rejected[0].name == "all.jsonl:5"


def test_fisher(tmp_path: Path) -> None:
    audio = write_stereo(tmp_path / "fe_03_p1_sph1/audio/000/fe_03_00001.sph", rate=8000, duration_s=5, user=[(1, 2)])
    _touch(
        tmp_path / "fe_03_p1_tran/data/trans/000/fe_03_00001.txt",
        "# fe_03_00001.sph\n# Transcribed at the LDC\n\n0.5 1.7 A: hello (( there ))\n\n1.9 3.0 B: hi\n",
    )
    _touch(tmp_path / "fe_03_p1_tran/doc/fe_03_p1_calldata.tbl", "CALL_ID,APIN,ASX.DL,BPIN\n00001,2602,f.a,1790\n")
    conversation = _one(tmp_path, "fisher")
    assert conversation.name == "fe_03_00001"
    assert (conversation.user.path, conversation.user.channel, conversation.agent.channel) == (audio, 0, 1)
    assert (conversation.user_speaker, conversation.agent_speaker) == ("2602", "1790")
    assert [(line.side, line.text) for line in read_lines(conversation)] == [
        ("user", "hello (( there ))"),
        ("agent", "hi"),
    ]
    agent = np.concatenate(list(read_blocks(conversation.agent)))
    assert len(agent) == 5 * 24_000
    assert np.abs(agent[24_000:48_000]).max() > 0.1, "the SPHERE file is decoded"


def test_seamless_in_both_of_its_shapes(tmp_path: Path) -> None:
    batch = tmp_path / "improvised/dev/0000/0005"
    for person, word in (("P0947", "Nice."), ("P0948A", "Yeah.")):
        stem = f"V00_S0809_I00000582_{person}"
        _touch(batch / f"{stem}.wav")
        words = [{"words": [], "start": 1.0, "end": 2.0, "transcript": word}]
        _touch(batch / f"{stem}.json", json.dumps({"id": stem, "metadata:transcript": words, "metadata:vad": []}))
        server = tmp_path / "naturalistic/train"
        other = stem.replace("I00000582", "I00000600")
        _touch(server / "audio" / f"{other}.wav")
        _touch(server / "transcript" / f"{other}.jsonl", json.dumps(words[0]) + "\n")
    _touch(batch / "V00_S0001_I00000001_P0001.wav")
    (first, second), rejected = list_conversations([tmp_path], "seamless")
    assert rejected == [Rejected("V00_S0001_I00000001", "1 recordings; an interaction needs two participants")]
    assert (first.name, first.split) == ("V00_S0809_I00000582", "dev")
    assert (second.name, second.split) == ("V00_S0809_I00000600", "train")
    for conversation in (first, second):
        assert (conversation.user_speaker, conversation.agent_speaker) == ("P0947", "P0948A")
        assert [(line.side, line.text) for line in read_lines(conversation)] == [("agent", "Yeah."), ("user", "Nice.")]


def test_candor(tmp_path: Path) -> None:
    folder = tmp_path / "0020a0c5-1658"
    _touch(folder / "processed/0020a0c5-1658.mp3")
    people = [{"user_id": "bob", "channel": "R"}, {"user_id": "alice", "channel": "L"}]
    _touch(folder / "metadata.json", json.dumps({"id": folder.name, "speakers": people}))
    _touch(
        folder / "transcription/transcript_backbiter.csv",
        'turn_id,speaker,start,stop,utterance,backchannel\n0,alice,0.0,5.0,"Hello, you",\n1,bob,5.0,9.5,Fine,yeah\n',
    )
    (tmp_path / "empty/processed").mkdir(parents=True)
    (conversation,), rejected = list_conversations([tmp_path], "candor")
    assert [item.name for item in rejected] == ["empty"]
    assert (conversation.user.channel, conversation.user_speaker, conversation.agent_speaker) == (0, "alice", "bob")
    assert [(line.side, line.text) for line in read_lines(conversation)] == [("user", "Hello, you"), ("agent", "Fine")]


def test_lhotse_cuts(tmp_path: Path) -> None:
    def cut(name: str, channel: object, sources: list[dict[str, object]]) -> str:
        said = {"channel": 1, "start": 1.0, "duration": 0.5, "text": "hey", "speaker": "b"}
        recording = {"id": "r", "sources": sources, "sampling_rate": 16_000, "num_samples": 1, "duration": 60.0}
        row = {"id": name, "start": 10.0, "duration": 30.0, "channel": channel, "supervisions": [said]}
        return json.dumps({**row, "recording": recording, "type": "MultiCut"}) + "\n"

    one = [{"type": "file", "channels": [0, 1], "source": "both.wav"}]
    two = [{"type": "file", "channels": [0], "source": "/a.wav"}, {"type": "file", "channels": [1], "source": "/b.wav"}]
    far = [{"type": "url", "channels": [0, 1], "source": "https://example.org/x.wav"}]
    path = tmp_path / "cuts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(cut("one", [0, 1], one) + cut("two", [0, 1], two) + cut("mono", 0, one) + cut("far", [0, 1], far))
    (first, second), rejected = list_conversations([path])
    assert first.user == Channel(path=tmp_path / "both.wav", channel=0, start_s=10.0, duration_s=30.0)
    assert second.agent == Channel(path=Path("/b.wav"), channel=None, start_s=10.0, duration_s=30.0)
    assert read_lines(first) == (Line("agent", 1.0, 1.5, "hey"),)
    assert (first.user_speaker, first.agent_speaker) == (None, "b")
    assert ["channel is 0" in rejected[0].reason, "only files" in rejected[1].reason] == [True, True]


def test_a_transcript_that_is_none_says_so(tmp_path: Path) -> None:
    _touch(tmp_path / "t.jsonl", '{"side": "caller", "start": 0, "end": 1, "text": "x"}')
    _touch(tmp_path / "m.jsonl", '{"path": "x.wav", "transcript": "t.jsonl"}\n{"path": "y.wav", "transcript": "no"}')
    (wrong, missing), _ = list_conversations([tmp_path / "m.jsonl"])
    with pytest.raises(ConfigError, match="must be user or agent"):
        read_lines(wrong)
    with pytest.raises(ConfigError, match="cannot read the transcript"):
        read_lines(missing)


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        list_conversations([tmp_path / "nowhere"])
    for layout in ("folder", "fisher", "seamless", "candor"):
        with pytest.raises(ConfigError, match="no conversation in the layout"):
            list_conversations([tmp_path], layout)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown layout"):
        list_conversations([tmp_path], "callhome")  # type: ignore[arg-type]


def test_spans_of_a_channel(tmp_path: Path) -> None:
    path = write_mono(tmp_path / "m.wav", [(0.0, 6.0)], rate=24_000, duration_s=6.0)
    whole = np.concatenate(list(read_blocks(Channel(path=path))))
    part = Channel(path=path, start_s=1.5, duration_s=3.0)
    assert np.array_equal(np.concatenate(list(read_blocks(part))), whole[36_000:108_000])
    assert np.array_equal(read_span(part, 0.5, 1.0), whole[48_000:60_000])
    late = read_span(Channel(path=path), 5.5, 7.0)
    assert np.array_equal(late[:12_000], whole[132_000:])
    assert not late[12_000:].any()


def test_two_channels_where_one_was_expected(tmp_path: Path) -> None:
    path = write_stereo(tmp_path / "s.wav", duration_s=1.0, user=[], agent=[])
    with pytest.raises(AudioError, match="2 channels where one was expected"):
        list(read_blocks(Channel(path=path)))
