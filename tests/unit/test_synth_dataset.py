import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.errors import ConfigError
from duologue_align.cli import main
from duologue_align.synth import dataset as dataset_module
from duologue_align.synth import dialogue as dialogue_module
from duologue_align.synth.check import BANDS, failures, measure_facts, table
from duologue_align.synth.dataset import DatasetConfig, is_complete, paths_of, read_facts, write_dataset
from duologue_align.synth.page import write_page
from synth_fakes import LINES, ToneSpeaker

CONFIG = DatasetConfig(hours=0.05, seed=3)


@pytest.fixture(autouse=True)
def _written_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue_module, "user_text", lambda split: LINES)


def _write(out: Path, config: DatasetConfig = CONFIG) -> list[dict[str, object]]:
    return write_dataset(out, config, speaker=ToneSpeaker(), show_progress=False)


def test_files_are_what_moshi_finetune_reads(tmp_path: Path) -> None:
    rows = _write(tmp_path)
    assert rows == [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    assert sum(float(str(row["duration"])) for row in rows) >= 0.05 * 3600
    for row in rows:
        audio = tmp_path / str(row["path"])
        info = soundfile.info(audio)
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 2, "PCM_16")
        assert info.frames == pytest.approx(float(str(row["duration"])) * 24_000)
        assert info.frames % 1920 == 0
        alignments = json.loads(audio.with_suffix(".json").read_text())["alignments"]
        assert len(alignments) > 10
        assert all(end > start for _, (start, end), _ in alignments)
        for speaker in ("SPEAKER_MAIN", "SPEAKER_USER"):
            starts = [start for _, (start, _), who in alignments if who == speaker]
            assert starts == sorted(starts)
            assert starts


def test_the_agent_sounds_in_its_words_and_is_digital_silence_elsewhere(tmp_path: Path) -> None:
    _write(tmp_path)
    audio, alignments, facts = paths_of(tmp_path, 0, "wav")
    agent = soundfile.read(audio)[0][:, 0]
    words = json.loads(alignments.read_text())["alignments"]
    for word, (start, end) in [(word, span) for word, span, who in words if who == "SPEAKER_MAIN"]:
        assert np.abs(agent[round(start * 24_000) : round(end * 24_000)]).max() > 0.05, word
    outside = np.ones(len(agent), dtype=bool)
    for start, end in json.loads(facts.read_text())["spans"]["agent"]:
        outside[round(start * 24_000) - 24 : round(end * 24_000) + 24] = False
    assert outside.any()
    assert not agent[outside].any()


def test_both_sides_have_phones_inside_their_words_and_inside_the_recording(tmp_path: Path) -> None:
    for row in _write(tmp_path):
        audio, alignments, _ = paths_of(tmp_path, int(Path(str(row["path"])).stem), "wav")
        content = json.loads(alignments.read_text())
        words = content["alignments"]
        sides = {who: [word for word in words if word[2] == who] for who in ("SPEAKER_MAIN", "SPEAKER_USER")}
        assert {speaker for _, _, speaker in content["phones"]} == set(sides)
        channels = soundfile.read(audio)[0].T
        for channel, (speaker, words) in zip(channels, sides.items(), strict=True):
            spans = [span for _, span, who in content["phones"] if who == speaker]
            assert spans == sorted(spans)
            # The word of a phone is missing where a turn was cut before the word's middle, and at the very end.
            homeless = [s for s in spans if not any(w[0] - 0.002 <= s[0] and s[1] <= w[1] + 0.002 for _, w, _ in words)]
            assert len(homeless) <= 0.03 * len(spans)
            assert len(spans) >= len(words)
            assert spans[-1][1] <= float(str(row["duration"]))
            if speaker == "SPEAKER_MAIN":
                assert all(channel[round(s * 24_000) : round(e * 24_000)].any() for s, e in spans)


def test_dialogues_depend_on_seed_split_and_number_alone(tmp_path: Path) -> None:
    for name, config in {
        "long": CONFIG,
        "short": DatasetConfig(hours=0.01, seed=3),
        "other": DatasetConfig(hours=0.01, seed=4),
        "test": DatasetConfig(hours=0.01, seed=3, split="test"),
    }.items():
        _write(tmp_path / name, config)
    first = {name: paths_of(tmp_path / name, 0, "wav")[0].read_bytes() for name in ("short", "long", "other", "test")}
    assert first["short"] == first["long"]
    assert len(set(first.values())) == 3
    assert read_facts(tmp_path / "test")[0]["voices"]["user"].startswith("t")


def test_clean_users_are_the_same_users_without_the_line(tmp_path: Path) -> None:
    for name, is_clean in {"clean": True, "drawn": False}.items():
        _write(tmp_path / name, DatasetConfig(hours=0.05, seed=3, is_clean=is_clean))
    clean, drawn = (read_facts(tmp_path / name) for name in ("clean", "drawn"))
    assert any(facts["augmentation"]["noise"] for facts in drawn)
    for facts, noisy in zip(clean, drawn, strict=True):
        assert facts["turns"] == noisy["turns"]
        line = facts["augmentation"]
        assert line["channel"] == "wide"
        assert line["noise"] is line["reverberation_s"] is line["leakage_db"] is None
    stereo, _ = soundfile.read(paths_of(tmp_path / "clean", 0, "wav")[0])
    assert np.abs(stereo[: 24_000 // 10, 1]).max() == 0, "nobody speaks yet, and nothing hums"
    with pytest.raises(ConfigError, match="is_clean"):
        _write(tmp_path / "drawn", DatasetConfig(hours=0.05, seed=3, is_clean=True))


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    _write(tmp_path)
    kept, lost = paths_of(tmp_path, 0, "wav"), paths_of(tmp_path, 1, "wav")
    before, wanted = kept[0].stat().st_mtime_ns, lost[0].read_bytes()
    lost[2].unlink()
    assert not is_complete(tmp_path, 1, "wav")
    _write(tmp_path)
    assert kept[0].stat().st_mtime_ns == before
    assert lost[0].read_bytes() == wanted
    assert is_complete(tmp_path, 1, "wav")
    assert not list(tmp_path.rglob("*.partial"))


def test_an_interrupt_leaves_a_manifest_of_what_is_complete(tmp_path: Path) -> None:
    class Impatient(ToneSpeaker):
        calls = 0

        def speak(self, voice, sentence):
            self.calls += 1
            if self.calls > 150:
                raise KeyboardInterrupt
            return super().speak(voice, sentence)

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, DatasetConfig(hours=1.0, seed=3), speaker=Impatient(), show_progress=False)
    complete = sorted((tmp_path / "facts").glob("*.json"))
    assert len((tmp_path / "data.jsonl").read_text().splitlines()) == len(complete) > 0


def test_another_data_set_is_not_mixed_in(tmp_path: Path) -> None:
    _write(tmp_path)
    with pytest.raises(ConfigError, match=r"another data set: seed 3 \(now 9\)"):
        _write(tmp_path, DatasetConfig(hours=0.05, seed=9))
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        _write(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hours": 0.0}, "above 0"),
        ({"hours": float("nan")}, "above 0"),
        ({"hours": 1.0, "seed": -1}, "0 or more"),
        ({"hours": 1.0, "split": "dev"}, "train, test"),
        ({"hours": 1.0, "audio": "mp3"}, "wav or flac"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetConfig(**arguments)  # type: ignore[arg-type]


def test_flac_holds_the_same_samples(tmp_path: Path) -> None:
    _write(tmp_path / "wav", DatasetConfig(hours=0.01, seed=3))
    _write(tmp_path / "flac", DatasetConfig(hours=0.01, seed=3, audio="flac"))
    wav, flac = (soundfile.read(paths_of(tmp_path / kind, 0, kind)[0], dtype="int16")[0] for kind in ("wav", "flac"))
    assert np.array_equal(wav, flac)


def test_the_page_shows_the_dialogues_and_names_their_audio(tmp_path: Path) -> None:
    rows = _write(tmp_path)
    page = write_page(tmp_path, first=1, audio="wav").read_text()
    assert f'src="{rows[0]["path"]}"' in page
    assert str(rows[1]["path"]) not in page
    assert page.count("<rect") == sum(len(spans) for spans in read_facts(tmp_path, 1)[0]["spans"].values())
    assert "http" not in page.replace("http-equiv", "")


def test_facts_name_events_with_times(tmp_path: Path) -> None:
    _write(tmp_path)
    facts = read_facts(tmp_path)[0]
    kinds = {event["kind"] for event in facts["events"]}
    assert {"floor_transfer", "pause"} <= kinds
    assert all(event["start_s"] <= event["end_s"] for event in facts["events"])
    assert facts["is_well_behaved"] == (not any(facts["behaviour"].values()))


def test_a_silent_agent_fails_the_check() -> None:
    spans = {"user": [(1.0 + 8 * turn, 5.0 + 8 * turn) for turn in range(10)], "agent": []}
    summary = measure_facts([{"duration_s": 90.0, "spans": spans}]).summary()
    failed = failures(summary)
    assert any(line.startswith("fto_p50_s: nothing to measure") for line in failed)
    assert any(line.startswith("answered_rate is 0.000, outside") for line in failed)
    assert all(band.name in table(summary) for band in BANDS)


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dataset_module, "find_spec", lambda module: None if module == "hibari" else module)
    assert main(["synth", "--out", str(tmp_path / "new"), "--hours", "1"]) == 2
    assert "hibari-tts is not installed; install it with: pip install 'duologue[synth]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_commands_tell_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", "--out", str(tmp_path), "--hours", "-1"]) == 2
    assert "hours is -1.0; give a number above 0" in capsys.readouterr().err
    assert main(["synth-check", str(tmp_path)]) == 2
    assert "holds no dialogues" in capsys.readouterr().err
    monkeypatch.setattr(dataset_module, "_require_packages", lambda: None)
    (tmp_path / "file").touch()
    assert main(["synth", "--out", str(tmp_path / "file"), "--hours", "1"]) == 2
    assert "give another folder with --out" in capsys.readouterr().err
    assert main(["synth", "--out", str(tmp_path), "--hours", "1", "--jobs", "0"]) == 2
    assert "jobs is 0" in capsys.readouterr().err
