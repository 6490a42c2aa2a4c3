"""Dialogues spoken by the real synthesiser, through the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from duologue_align.cli import main

pytest.importorskip("hibari", reason="needs hibari-tts: pip install 'duologue[align]'")
pytest.importorskip("chitchat_dataset", reason="needs chitchat-dataset: pip install 'duologue[align]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'duologue[cpu]'")
pytest.importorskip("onnx", reason="needs onnx: pip install 'duologue[cpu]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth")
    assert (
        main(["synth", "--out", str(out), "--hours", "0.04", "--seed", "1", "--held-out", "--quiet", "--page", "1"])
        == 0
    )
    return out


def _rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]


def _agents(rows: list[list[Any]]) -> list[list[Any]]:
    return [row for row in rows if row[2] == "SPEAKER_MAIN"]


def test_words_sound_where_the_alignments_say(folder: Path) -> None:
    for row in _rows(folder):
        audio = folder / str(row["path"])
        agent = soundfile.read(audio, dtype="float32")[0][:, 0]
        words = _agents(json.loads(audio.with_suffix(".json").read_text())["alignments"])
        heard = [np.sqrt(np.mean(agent[round(s * 24_000) : round(e * 24_000)] ** 2)) for _, (s, e), _ in words]
        assert len(words) > 20
        assert np.mean(np.array(heard) > 0.01) > 0.97


def test_phones_lie_in_their_words_and_cover_the_speech(folder: Path) -> None:
    for row in _rows(folder):
        audio = folder / str(row["path"])
        content = json.loads(audio.with_suffix(".json").read_text())
        phones, words = (np.array([span for _, span, _ in _agents(content[name])]) for name in ("phones", "alignments"))
        home = np.searchsorted(words[:, 0], phones[:, 0] + 0.0015, side="right") - 1
        assert np.mean(phones[:, 1] <= words[home, 1] + 0.002) > 0.97
        assert np.all(phones[1:, 0] >= phones[:-1, 1] - 0.002)
        covered = np.zeros(soundfile.info(audio).frames, dtype=bool)
        for start_s, end_s in phones:
            covered[round(start_s * 24_000) : round(end_s * 24_000)] = True
        agent = soundfile.read(audio, dtype="float32")[0][:, 0]
        power = np.square(agent)
        assert power[covered].sum() > 0.98 * power.sum()  # words cut off in the middle fade out behind their last phone
        assert covered[agent != 0].mean() > 0.9


@pytest.mark.parametrize("speaker", ["SPEAKER_MAIN", "SPEAKER_USER"])
def test_phones_stand_where_their_sounds_are_heard(folder: Path, speaker: str) -> None:
    apart = {by_s: _hisses_apart_from_vowels(folder, speaker, by_s) for by_s in (-0.05, 0.0, 0.05)}
    assert apart[0.0] > max(apart[-0.05], apart[0.05]) + 0.02
    if speaker == "SPEAKER_MAIN":
        assert apart[0.0] > 0.97


def _hisses_apart_from_vowels(folder: Path, speaker: str, by_s: float) -> float:
    """Share of pairs of "s" or "z" with a vowel in which the first sounds higher, with all spans moved by `by_s`."""
    heights: dict[bool, list[float]] = {True: [], False: []}
    for row in _rows(folder):
        audio = folder / str(row["path"])
        pcm = soundfile.read(audio, dtype="float32")[0][:, int(speaker == "SPEAKER_USER")]
        for name, (start_s, end_s), who in json.loads(audio.with_suffix(".json").read_text())["phones"]:
            sound = pcm[round((start_s + by_s) * 24_000) : round((end_s + by_s) * 24_000)]
            if who == speaker and name in "szæɛiIAOuʌɑ" and len(sound) > 480:
                heights[name in "sz"].append(float(np.sum(np.diff(sound) ** 2) / (np.sum(sound**2) + 1e-9)))
    assert min(map(len, heights.values())) > 20
    return float(np.mean(np.array(heights[True])[:, None] > np.array(heights[False])))


def test_codec_training_takes_the_phones(folder: Path) -> None:
    pytest.importorskip("torch")
    from duologue_align.codec.phones import UNKNOWN, collect_inventory
    from duologue_align.codec.recordings import list_tracks
    from duologue_align.codec.segments import Segments

    tracks = list_tracks([folder])
    inventory = collect_inventory(track.phones() for track in tracks)
    assert inventory is not None
    assert 30 < len(inventory) < 80
    _, labels, _ = Segments(tracks, frames=200, seed=0, inventory=inventory).item(0)
    assert not (labels == UNKNOWN).any()
    assert 0.1 < np.mean(labels > 0) < 0.9


def test_activity_spans_hold_nearly_all_of_the_sound(folder: Path) -> None:
    for row in _rows(folder):
        audio = folder / str(row["path"])
        agent = soundfile.read(audio, dtype="float32")[0][:, 0]
        facts = json.loads((folder / "facts" / audio.with_suffix(".json").name).read_text())
        inside = np.zeros(len(agent), dtype=bool)
        for start_s, end_s in facts["spans"]["agent"]:
            inside[round(start_s * 24_000) - 24 : round(end_s * 24_000) + 24] = True
        assert not agent[~inside].any()
        speaking_db = 10 * np.log10(np.mean(agent[inside] ** 2))
        assert speaking_db == pytest.approx(-20.5, abs=1.5)


def test_test_voices_and_page(folder: Path) -> None:
    facts = [json.loads(path.read_text()) for path in sorted((folder / "facts").glob("*.json"))]
    assert all(dialogue["voices"]["user"].startswith("t") for dialogue in facts)
    assert all(dialogue["split"] == "test" for dialogue in facts)
    assert "<audio" in (folder / "index.html").read_text()


def test_warped_voices_differ_in_pitch_and_keep_the_words() -> None:
    from duologue_align.synth.pieces import Sentence
    from duologue_align.synth.speech import Synthesiser
    from duologue_align.synth.voices import AGENT, Voice

    written = "we are all in the low room, and you are away."
    sentence = Sentence(words=tuple(written.split()), breaks=frozenset({6}))
    speaker = Synthesiser()
    low, agent = (speaker.speak(voice, sentence) for voice in (Voice(name="low", pitch=0.7, formants=0.9), AGENT))
    assert [piece.text for piece in agent] == ["we are all in the low room,", "and you are away."]
    assert [piece.text for piece in low] == [piece.text for piece in agent]
    assert np.array_equal(agent[0].pcm, Synthesiser().speak(AGENT, sentence)[0].pcm)
    ratio = _pitch_hz(low[0].pcm) / _pitch_hz(agent[0].pcm)
    assert ratio == pytest.approx(0.7, rel=0.06)


def _pitch_hz(pcm: np.ndarray) -> float:
    """Median pitch by autocorrelation over 50 ms windows."""
    found = []
    for begin in range(0, len(pcm) - 1200, 600):
        window = pcm[begin : begin + 1200].astype(np.float64)
        if np.sqrt(np.mean(window**2)) < 1500:
            continue
        correlation = np.correlate(window, window, "full")[1199:]
        lag = 60 + int(np.argmax(correlation[60:400]))
        if correlation[lag] > 0.5 * correlation[0]:
            found.append(24_000 / lag)
    return float(np.median(found))


@pytest.mark.slow
def test_dialogues_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for jobs in ("1", "2"):
        command = ["synth", "--out", str(tmp_path / jobs), "--hours", "0.08", "--seed", "2", "--quiet", "--jobs", jobs]
        assert main(command) == 0
    files = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(files) > 8
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


@pytest.mark.slow
def test_the_timing_of_an_hour_is_human(tmp_path: Path) -> None:
    assert main(["synth", "--out", str(tmp_path), "--hours", "1", "--seed", "7", "--quiet", "--audio", "flac"]) == 0
    assert main(["synth-check", str(tmp_path)]) == 0
