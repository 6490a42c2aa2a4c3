"""Train duologue-mini's codec for a few minutes on one core and show that it learns.

Speaks typed chats with four of the synthesiser's voices, writes them with phone labels, trains with the shipped preset
(the discriminators narrowed and used every fourth step, for a CPU), and compares held-out clips before and after.

Run: python benchmarks/train_codec.py [--steps 500] [--out out/train_codec] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from machine import cpu_name, git_hash, vector_isa, versions

from duologue.types import SAMPLE_RATE_HZ
from duologue_align.codec.loop import RunOptions, train_codec
from duologue_align.codec.settings import CodecTraining
from duologue_align.synth.chat import user_text
from duologue_align.synth.pieces import Sentence
from duologue_align.synth.repertoire import split_sentences
from duologue_align.synth.speech import Synthesiser
from duologue_align.synth.voices import AGENT, TRAIN_USERS

VOICES = (AGENT, *TRAIN_USERS[::5])
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
    settings = CodecTraining.load(changes=[*CHANGES, f"discriminator.start_step={options.judges}"])
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
    speaker = Synthesiser(cached_voice=None)
    rng = np.random.default_rng(0 if split == "train" else 1)
    lines = user_text(split)
    manifest, spoken_s = [], 0.0
    while spoken_s < 60 * minutes:
        number, sounds, phones, at = len(manifest), [], [], 0.0
        voice = VOICES[number % len(VOICES)]
        while at < 20.0:
            sentences = split_sentences(lines.draw(rng, topic=None).text)
            spoken = [speaker.speak(voice, Sentence(words=tuple(text.split()))) for text in sentences]
            for piece in chain(*spoken):
                sounds += [piece.pcm, np.zeros(int(rng.uniform(0.1, 0.8) * SAMPLE_RATE_HZ), np.int16)]
                phones += [[p.name, [p.start_s + at, p.end_s + at], "SPEAKER_MAIN"] for p in piece.phones]
                at += sum(map(len, sounds[-2:])) / SAMPLE_RATE_HZ
        soundfile.write(folder / f"{number:04d}.wav", np.concatenate(sounds), SAMPLE_RATE_HZ, subtype="PCM_16")
        (folder / f"{number:04d}.json").write_text(json.dumps({"alignments": [], "phones": phones}))
        manifest.append({"path": f"{number:04d}.wav", "duration": at})
        spoken_s += at
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in manifest))


if __name__ == "__main__":
    sys.exit(main())
