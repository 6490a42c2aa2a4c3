"""Fisher English (LDC2004S13, LDC2005S13 and their transcripts): telephone calls, one stereo file each.

    **/fe_03_00001.sph            8 kHz mu-law, channel 0 is side A; WAV or FLAC of the same name will do
    **/fe_03_00001.txt            `start end A: words`
    **/fe_03_p1_calldata.tbl      CSV; APIN and BPIN are the speakers

The SPHERE files must not be compressed with shorten, which libsndfile cannot read: convert those first.
Fisher has no roles; side A is called the user.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from duologue_align.corpus.conversation import Channel, Conversation, Rejected, Transcript
from duologue_align.corpus.folder import AUDIO_SUFFIXES

_CALL = re.compile(r"^fe_\d+_(?P<number>\d{5})$")


def list_fisher(source: Path) -> list[Conversation | Rejected]:
    """List the calls below a folder, with their words and speakers where the transcripts are there too."""
    words = {path.stem: path for path in sorted(source.rglob("fe_*.txt")) if _CALL.match(path.stem)}
    speakers: dict[str, tuple[str, str]] = {}
    for table in sorted(source.rglob("*calldata.tbl")):
        speakers |= _speakers(table)
    found: list[Conversation | Rejected] = []
    for path in sorted(source.rglob("fe_*")):
        match = _CALL.match(path.stem)
        if match is None or path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        first, second = speakers.get(match["number"], (None, None))
        transcript = words.get(path.stem)
        found.append(
            Conversation(
                name=path.stem,
                user=Channel(path=path, channel=0),
                agent=Channel(path=path, channel=1),
                user_speaker=first,
                agent_speaker=second,
                transcript=Transcript(form="fisher", paths=(transcript,)) if transcript else None,
            )
        )
    return found


def _speakers(table: Path) -> dict[str, tuple[str, str]]:
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        return {
            str(row["CALL_ID"]).zfill(5): (str(row["APIN"]), str(row["BPIN"]))
            for row in rows
            if row.get("CALL_ID") and row.get("APIN") and row.get("BPIN")
        }
