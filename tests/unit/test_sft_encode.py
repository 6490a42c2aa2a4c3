"""Dialogues to tokens: the codec's and tokenizer's own, resumable, and picky about what it is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import sft_case
from duologue.codec import Mimi, MimiConfig
from duologue.errors import AudioError, ConfigError
from duologue.model.tokenizer import Tokenizer
from duologue.types import FRAME_SAMPLES
from duologue_align.sft import encode
from duologue_align.sft.dialogues import read_manifest
from duologue_align.sft.encode import EncodeJob, encode_dialogues
from duologue_align.sft.shards import Codes
from duologue_align.sft.text_stream import text_stream
from duologue_align.sft.tokenizer import spoken_lines, train_tokenizer


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    sft_case.write_codes(folder)
    return folder


def job_of(case: Path, out: Path) -> EncodeJob:
    return EncodeJob(
        data=case / "data",
        codec=case / "codec" / "mimi.safetensors",
        codec_config=None,
        tokenizer=case / "tokenizer.model",
        out=out,
    )


def test_codes_are_what_a_conversation_would_hear(case: Path) -> None:
    codes = Codes(case / "codes")
    dialogues = read_manifest(case / "data")
    mimi = Mimi.load(case / "codec" / "mimi.safetensors", config=MimiConfig.from_dict(sft_case.MIMI))
    tokenizer = Tokenizer(case / "tokenizer.model")
    assert len(codes) == len(dialogues) == 3
    assert codes.index.frames == sum(codes.frames(number) for number in range(3))
    for number, dialogue in enumerate(dialogues):
        samples, _ = soundfile.read(dialogue.path, dtype="float32")
        frames = -(-len(samples) // FRAME_SAMPLES)
        found = codes.read(number)
        assert found.shape == (18, frames)
        for side in range(2):
            padded = np.pad(samples[:, side], (0, frames * FRAME_SAMPLES - len(samples)))
            stream = mimi.stream()
            expected = [stream.encode_step(np.ascontiguousarray(f)) for f in padded.reshape(-1, FRAME_SAMPLES)]
            assert np.array_equal(found[1 + 8 * side : 9 + 8 * side], np.stack(expected, axis=1))
        assert np.array_equal(found[0], text_stream(dialogue.words(), frames, tokenizer.encode))
        heard = text_stream(dialogue.words("user"), frames, tokenizer.encode)
        assert np.array_equal(found[-1], heard if dialogue.words("user") else np.full(frames, -1))
        assert len(np.unique(found[1])) > 3
    assert {bool(dialogue.words("user")) for dialogue in dialogues} == {False, True}
    assert np.array_equal(codes.read(1, 5, 9), codes.read(1)[:, 5:9])


def test_a_second_run_makes_only_what_is_missing(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "DIALOGUES_PER_SHARD", 1)
    job = job_of(case, tmp_path / "codes")
    first = encode_dialogues(job)
    assert [shard for _, shard, _ in first.dialogues] == [f"shard-{n:05d}.safetensors" for n in range(3)]
    shards = {path.name: path.read_bytes() for path in job.out.glob("shard-*")}
    (job.out / "shard-00001.safetensors").write_bytes(b"cut short")
    (job.out / "shard-00002.safetensors").unlink()
    times = (job.out / "shard-00000.safetensors").stat().st_mtime_ns
    assert encode_dialogues(job, jobs=2) == first
    assert {path.name: path.read_bytes() for path in job.out.glob("shard-*")} == shards
    assert (job.out / "shard-00000.safetensors").stat().st_mtime_ns == times


def test_another_codec_or_tokenizer_needs_another_folder(case: Path, tmp_path: Path) -> None:
    job = job_of(case, case / "codes")
    other = sft_case.write_codec(tmp_path / "codec", seed=1)
    with pytest.raises(ConfigError, match="another codec"):
        encode_dialogues(replace(job, codec=other))
    (tmp_path / "t.model").write_bytes(train_tokenizer(["hello there you"], pieces=110))
    with pytest.raises(ConfigError, match="another tokenizer"):
        encode_dialogues(replace(job, tokenizer=tmp_path / "t.model"))
    with pytest.raises(ConfigError, match="jobs"):
        encode_dialogues(job, jobs=0)


def test_bad_data_is_refused_by_name(case: Path, tmp_path: Path) -> None:
    data = sft_case.write_corpus(tmp_path / "data", 1)
    job = replace(job_of(case, tmp_path / "codes"), data=data)
    (data / "d0.json").write_text(json.dumps({"alignments": [["hi", "soon", "SPEAKER_MAIN"]]}))
    with pytest.raises(ConfigError, match=r"d0\.json"):
        encode_dialogues(job)
    (data / "d0.json").write_text(json.dumps({"alignments": []}))
    soundfile.write(data / "d0.wav", np.zeros(4000), 24000)
    with pytest.raises(AudioError, match="two channels"):
        encode_dialogues(job)
    with pytest.raises(ConfigError, match="other data"):
        encode_dialogues(replace(job, out=case / "codes"))
    for text, message in (("", "no dialogues"), ("{}", "every line"), ("nonsense", "every line")):
        (data / "data.jsonl").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_manifest(data)
    with pytest.raises(ConfigError, match="duologue-align synth"):
        read_manifest(tmp_path)


def test_only_words_that_last_are_read_each_for_its_side(tmp_path: Path) -> None:
    data = sft_case.write_corpus(tmp_path / "data", 1)
    rows = [["b", [1.0, 2.0], "SPEAKER_MAIN"], ["x", [0.1, 0.5], "SPEAKER_OTHER"]]
    rows += [[" a ", [0.5, 0.9], "SPEAKER_MAIN"], ["gone", [3.0, 3.0], "SPEAKER_MAIN"]]
    (data / "d0.json").write_text(json.dumps({"alignments": rows}))
    assert [word.text for word in read_manifest(data)[0].words()] == ["a", "b"]
    assert [word.text for word in read_manifest(data)[0].words("user")] == ["x"]


def test_the_tokenizer_has_moshis_ids_and_is_deterministic(case: Path, tmp_path: Path) -> None:
    lines = list(spoken_lines(read_manifest(case / "data")))
    model = train_tokenizer(lines, pieces=sft_case.PIECES)
    assert model == (case / "tokenizer.model").read_bytes()
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()) == (0, 1, 2, 3)
    tokenizer = Tokenizer(case / "tokenizer.model")
    for text in ("hello", "Zyx?", "don't"):
        tokens = tokenizer.encode(text)
        assert min(tokens) > 3
        assert "".join(map(tokenizer.piece, tokens)) == f" {text}"
    with pytest.raises(ConfigError, match="cannot train 5000 pieces"):
        train_tokenizer(lines, pieces=5000)
    with pytest.raises(ConfigError, match="no words"):
        train_tokenizer([" "])
