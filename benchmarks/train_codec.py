"""Train duologue-mini's codec for a few minutes on one core and show that it learns.

Speaks typed chats with hibari-tts at several pitches, writes them with phone labels, trains with the shipped preset
(the discriminators narrowed and used every fourth step, for a CPU), and compares held-out clips before and after.

Run: python benchmarks/train_codec.py [--steps 500] [--out out/train_codec] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from machine import cpu_name, git_hash, vector_isa, versions

from duologue.audio.resample import resample
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.codec.loop import RunOptions, train_codec
from duologue_align.codec.settings import CodecTraining
from duologue_align.synth.chat import user_text

UNIT_S = 0.025
STRESS = "ˈˌ"
PITCHES = (1.0, 0.82, 1.12, 0.9)
CHANGES = [
    "run.batch=4",
    "run.clip_frames=12",
    "run.valid_clips=32",
    "run.valid_every=100",
    "run.log_every=10",
    "run.samples_every=400",
    "quantizer.start_step=100",
    "quantizer.start_vectors=3072",
    "quantizer.bypass_share=0.1",
    "discriminator.stft_channels=8",
    "discriminator.period_channels=8",
    "discriminator.every=4",
    "optimiser.warmup_steps=50",
    "optimiser.average_decay=0.99",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="about half a CPU-second each (default: 500)")
    parser.add_argument("--speech", type=float, default=15.0, help="minutes of speech to train on (default: 15)")
    parser.add_argument("--judges", type=int, default=10**9, help="step at which discriminators join (default: never)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--out", type=Path, default=Path("out/train_codec"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for split, minutes in (("train", options.speech), ("test", 1.5)):
        if not (options.out / split / "data.jsonl").exists():
            write_speech(options.out / split, split, minutes)
    settings = CodecTraining.load(None, [*CHANGES, f"discriminator.start_step={options.judges}"])
    settings = replace(settings, run=replace(settings.run, steps=options.steps))
    run = RunOptions(data=[options.out / "train"], valid=[options.out / "test"], out=options.out / "run", threads=1)
    begun_s = time.process_time()
    last = train_codec(settings, replace(run, resume=options.resume))
    spent_s = time.process_time() - begun_s
    rows = [json.loads(line) for line in (options.out / "run" / "metrics.jsonl").read_text().splitlines()]
    checks = [row for row in rows if "valid_mel" in row]
    report(rows, checks)
    print(f"{spent_s:.0f} CPU-seconds for {last['step']} steps on one thread")
    result = {
        "benchmark": "train_codec",
        "machine": cpu_name(),
        "isa": vector_isa(),
        "versions": versions(),
        "git": git_hash(),
        "cpu_s": round(spent_s, 1),
        "first": checks[0],
        "last": last,
    }
    if options.json:
        options.json.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))


def report(rows: list[dict[str, Any]], checks: list[dict[str, Any]]) -> None:
    columns = ("step", "minutes", "valid mel", "valid stft", "phones right", "semantic ppl.", "acoustic ppl.")
    print("".join(f"{column:>14}" for column in columns))
    for row in checks:
        phones = row.get("valid_phones_right_voiced", float("nan"))
        semantic, *acoustic = row["perplexity"]
        figures = (row["minutes"], row["valid_mel"], row["valid_stft"], phones, semantic, float(np.mean(acoustic)))
        print(f"{row['step']:>14}" + "".join(f"{figure:>14.3f}" for figure in figures))
    losses = [row for row in rows if "mel" in row]
    for name in ("mel", "phones", "commitment", "judges"):
        values = [row[name] for row in losses if name in row]
        if values:
            ends = np.mean(values[: len(values) // 10 + 1]), np.mean(values[-(len(values) // 10 + 1) :])
            print(f"train {name}: first tenth {ends[0]:.3f}, last tenth {ends[1]:.3f}")


def write_speech(folder: Path, split: str, minutes: float) -> None:
    """Write mono recordings of about 20 s with their phones."""
    folder.mkdir(parents=True, exist_ok=True)
    speaker = PhoneSpeaker()
    rng = np.random.default_rng(0 if split == "train" else 1)
    lines = user_text(split)
    manifest, spoken_s = [], 0.0
    while spoken_s < 60 * minutes:
        number, pieces, phones, at = len(manifest), [], [], 0.0
        pitch = PITCHES[number % len(PITCHES)]
        while at < 20.0:
            for pcm, spans in speaker.speak(lines.draw(rng, topic=None).text, pitch):
                pieces += [pcm, np.zeros(int(rng.uniform(0.1, 0.8) * SAMPLE_RATE_HZ), np.float32)]
                phones += [[name, [begin + at, end + at], "SPEAKER_MAIN"] for name, begin, end in spans]
                at += sum(map(len, pieces[-2:])) / SAMPLE_RATE_HZ
        soundfile.write(folder / f"{number:04d}.wav", np.concatenate(pieces), SAMPLE_RATE_HZ, subtype="PCM_16")
        (folder / f"{number:04d}.json").write_text(json.dumps({"alignments": [], "phones": phones}))
        manifest.append({"path": f"{number:04d}.wav", "duration": at})
        spoken_s += at
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))


class PhoneSpeaker:
    """hibari-tts with the durations of its phones, which are internal to its graph."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime
        from hibari import Hibari, dsp

        self._voice, self._dsp = Hibari(), dsp
        model = onnx.load(self._voice.model_path)
        durations = next(node.input[0] for node in model.graph.node if node.op_type == "CumSum")
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(durations))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), settings)
        self._names = {number: name for name, number in self._voice.vocab.items()}

    def speak(self, text: str, pitch: float) -> list[tuple[npt.NDArray[np.float32], list[tuple[str, float, float]]]]:
        """Return samples and (phone, begin, end) of each sentence; `pitch` shifts pitch, formants and pace alike."""
        spoken = []
        for sentence in self._voice.phonemize(text):
            ids = self._voice.ids(sentence)
            feeds = {"ids": np.array([ids], np.int64), "speed": np.array([1.0 / pitch], np.float32)}
            *spectra, durations = self._session.run(None, feeds)
            pcm = self._dsp.synth(*(part[0] for part in spectra), np.random.default_rng(0))
            if pitch != 1.0:
                pcm = resample(pcm.astype(np.float32), round(SAMPLE_RATE_HZ * pitch), SAMPLE_RATE_HZ)
            edges = np.concatenate([[0.0], np.cumsum(durations.reshape(-1))]) * UNIT_S / pitch
            spans: list[tuple[str, float, float]] = []
            begin = 0.0
            for number, end in zip(ids, edges[1:].tolist(), strict=True):
                name = self._names.get(number, " ")
                # A stress mark sounds as the start of the phone that follows it.
                if name in STRESS:
                    continue
                if name.isalpha():
                    spans.append((name, begin, end))
                begin = end
            spoken.append((np.asarray(pcm, np.float32) * np.float32(0.5), spans))
        return spoken


if __name__ == "__main__":
    sys.exit(main())
