"""Recordings on disk as clips: which streams, which places, which labels, the same on every run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

from duologue.errors import AudioError, ConfigError  # noqa: E402
from duologue_align.codec.phones import UNKNOWN, collect_inventory  # noqa: E402
from duologue_align.codec.recordings import list_tracks, split_tracks  # noqa: E402
from duologue_align.codec.segments import Alteration, Prefetcher, Segments  # noqa: E402

RATE_HZ = 24_000
PHONES = [
    ["a", [0.5, 0.7], "SPEAKER_MAIN"],
    ["t", [0.7, 0.8], "SPEAKER_MAIN"],
    ["o", [1.0, 1.5], "SPEAKER_USER"],
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two stereo dialogues, one with phones, listed in a data.jsonl."""
    seconds = np.arange(3 * RATE_HZ) / RATE_HZ
    agent = 0.3 * np.sin(2 * np.pi * 220 * seconds)
    user = 0.3 * np.sin(2 * np.pi * 300 * seconds) * (seconds > 1.5)
    for name in ("one", "two"):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([agent, user], axis=1), RATE_HZ, subtype="FLOAT")
    (tmp_path / "one.json").write_text(json.dumps({"alignments": [], "phones": PHONES}))
    (tmp_path / "two.json").write_text(json.dumps({"alignments": []}))
    rows = [{"path": f"{name}.wav", "duration": 3.0} for name in ("one", "two")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_every_channel_is_a_stream(corpus: Path) -> None:
    tracks = list_tracks([corpus])
    assert [(track.path.name, track.channel) for track in tracks] == [
        ("one.wav", 0),
        ("one.wav", 1),
        ("two.wav", 0),
        ("two.wav", 1),
    ]
    assert tracks == list_tracks([corpus / "data.jsonl"])
    pcm = tracks[1].read(1.0, RATE_HZ)
    assert np.all(pcm[: RATE_HZ // 2] == 0)
    assert np.abs(pcm[RATE_HZ // 2 :]).max() > 0.29
    assert np.all(tracks[0].read(2.9, RATE_HZ)[2400:] == 0), "silence past the end"
    assert list_tracks([corpus], channel=1) == tracks[1::2]
    with pytest.raises(ConfigError, match="no recording has a channel 5"):
        list_tracks([corpus], channel=5)


def test_other_rates_are_converted(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(16_000) / 8_000)
    soundfile.write(tmp_path / "call.wav", tone, 8_000, subtype="FLOAT")
    pcm = list_tracks([tmp_path])[0].read(0.5, 12_000)
    expected = 0.5 * np.sin(2 * np.pi * 200 * (0.5 + np.arange(12_000) / RATE_HZ))
    assert np.abs(pcm - expected)[500:-500].max() < 0.01


def test_clips_depend_on_the_seed_and_the_number_alone(corpus: Path) -> None:
    tracks = list_tracks([corpus])
    first, again = (Segments(tracks, frames=5, seed=4, alteration=Alteration()) for _ in range(2))
    _ = first.item(3)
    for number in (7, 0):
        np.testing.assert_array_equal(first.item(number)[0], again.item(number)[0])
    other = Segments(tracks, frames=5, seed=5, alteration=Alteration())
    assert not np.array_equal(first.item(0)[0], other.item(0)[0])
    assert first.item(0)[0].shape == (5 * 1920,)


def test_clips_can_begin_on_frames(corpus: Path) -> None:
    clips = Segments(list_tracks([corpus]), frames=3, seed=0, framed_channel=0)
    whole = [track.read(0.0, 10 * 24_000) for track in clips.tracks if track.channel == 0]
    for number in range(20):
        pcm, _, is_framed = clips.item(number)
        starts = [
            begin
            for recording in whole
            for begin in range(0, len(recording) - len(pcm) + 1, 1920)
            if np.array_equal(recording[begin : begin + len(pcm)], pcm)
        ]
        assert bool(starts) == is_framed


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_keeps_the_order_and_goes_on_from_any_clip(corpus: Path, workers: int) -> None:
    clips = Segments(list_tracks([corpus]), frames=2, seed=0)
    with Prefetcher(clips, 3, first_item=6, workers=workers) as batches:
        found = [next(batches) for _ in range(4)]
    for number, batch in enumerate(found):
        assert torch.equal(batch.pcm, clips.batch(range(6 + 3 * number, 9 + 3 * number)).pcm)


def test_most_clips_hold_speech(corpus: Path) -> None:
    clips = Segments(list_tracks([corpus]), frames=4, seed=0, alteration=Alteration(noise_share=0.0, silent_share=0.0))
    assert all(np.abs(clips.item(number)[0]).max() > 0.05 for number in range(40))


def test_alteration_stays_within_full_scale_and_its_gains(corpus: Path) -> None:
    loud = Alteration(lowest_gain_db=20.0, highest_gain_db=30.0, noise_share=1.0, highest_noise_dbfs=-10.0)
    quiet = Alteration(lowest_gain_db=-20.0, highest_gain_db=-20.0, noise_share=0.0, silent_share=0.0)
    tracks = list_tracks([corpus])
    for number in range(10):
        assert np.abs(Segments(tracks, frames=4, seed=0, alteration=loud).item(number)[0]).max() <= 1.0
        assert np.abs(Segments(tracks, frames=4, seed=0, alteration=quiet).item(number)[0]).max() < 0.031


def test_labels_name_the_phone_at_the_centre_of_each_slot(corpus: Path) -> None:
    tracks = list_tracks([corpus])
    inventory = collect_inventory(track.phones() for track in tracks)
    assert inventory is not None
    assert inventory.names == ["", "a", "o", "t"]
    agent, user = tracks[0].phones(), tracks[1].phones()
    assert agent is not None
    assert user is not None
    labels = inventory.slots(agent, 0.0, 50, 0.02)
    expected = [0] * 25 + [1] * 10 + [3] * 5 + [0] * 10
    assert labels.tolist() == expected
    assert inventory.slots(user, 1.0, 3, 0.02).tolist() == [2, 2, 2]


def test_streams_without_phones_cost_nothing(corpus: Path) -> None:
    tracks = list_tracks([corpus])
    inventory = collect_inventory(track.phones() for track in tracks)
    only_second = Segments(
        [track for track in tracks if track.path.name == "two.wav"], frames=3, seed=0, inventory=inventory
    )
    assert np.all(only_second.item(0)[1] == UNKNOWN)
    assert only_second.item(0)[1].shape == (3, 4)


def test_held_out_recordings_stay_apart_when_data_is_added(tmp_path: Path) -> None:
    for number in range(12):
        soundfile.write(tmp_path / f"{number:03d}.wav", np.zeros((2400, 2)), RATE_HZ)
    train, valid = split_tracks(list_tracks([tmp_path]), 0.25)
    assert len(valid) == 6
    assert not {track.path for track in train} & {track.path for track in valid}
    assert len(train) + len(valid) == 24


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"file": "a.wav"}\n', "every line must be"), ("not json\n", "every line must be"), ("", "no training data")],
)
def test_bad_manifests_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        list_tracks([tmp_path])


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list_tracks([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match=r"no WAV or FLAC"):
        list_tracks([tmp_path])
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"text\.wav"):
        list_tracks([tmp_path])
    soundfile.write(tmp_path / "text.wav", np.zeros(2400), RATE_HZ)
    (tmp_path / "text.json").write_text('{"phones": [["a", 3]]}')
    with pytest.raises(ConfigError, match="phones must be"):
        list_tracks([tmp_path])[0].phones()
    with pytest.raises(ConfigError, match="cannot be split"):
        split_tracks(list_tracks([tmp_path]), 0.5)
