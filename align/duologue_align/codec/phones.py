"""What the semantic codebook is taught: which phone sounds in each part of a frame."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional

from duologue.errors import ConfigError

SLOTS = 4
"""Labels per frame: one every 20 ms."""
UNKNOWN = -100
"""Label of a slot that nothing is known about; it costs nothing."""
SILENCE = ""
"""Name of class 0: a labelled stream outside of its phones."""

SPEAKERS = ("SPEAKER_MAIN", "SPEAKER_USER")
"""Names of the speakers of channel 0 (the agent) and channel 1 (the user) in alignment files."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PhoneTrack:
    """The phones of one stream, in time order.

    Attributes:
        begin_s: Starts, shape [n].
        end_s: Ends, shape [n].
        names: Shape [n].
    """

    begin_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    names: tuple[str, ...]


class PhoneInventory:
    """The phones that a training run distinguishes; class 0 is silence."""

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names in class order, silence not among them."""
        self.names = [SILENCE, *names]
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def slots(self, track: PhoneTrack, begin_s: float, count: int, slot_s: float) -> Labels:
        """Return the class at the centre of each of `count` slots, shape [count]."""
        centres = begin_s + (np.arange(count) + 0.5) * slot_s
        if not track.names:
            return np.zeros(count, dtype=np.int64)
        found = np.searchsorted(track.begin_s, centres, side="right") - 1
        is_inside = (found >= 0) & (centres < track.end_s[np.maximum(found, 0)])
        classes = np.array([self._numbers.get(name, UNKNOWN) for name in track.names], dtype=np.int64)
        return np.where(is_inside, classes[np.maximum(found, 0)], 0)


@lru_cache(maxsize=8192)
def read_phones(path: Path, speaker: str) -> PhoneTrack | None:
    """Read the phones of one speaker from an alignment file.

    The file is moshi-finetune's JSON with one more key: `"phones": [[name, [start_s, end_s], speaker], ...]`.

    Returns:
        The phones, or None if the file has no such key.

    Raises:
        ConfigError: The file is not JSON, or its phones are of another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable alignment file ({error})") from error
    if not isinstance(content, dict) or "phones" not in content:
        return None
    try:
        rows = sorted(
            (float(span[0]), float(span[1]), str(name)) for name, span, who in content["phones"] if who == speaker
        )
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{path}: phones must be [[name, [start_s, end_s], speaker], ...] ({error})") from error
    begin, end = (np.array([row[i] for row in rows], dtype=np.float64) for i in (0, 1))
    return PhoneTrack(begin, end, tuple(row[2] for row in rows))


def collect_inventory(tracks: Iterable[PhoneTrack | None]) -> PhoneInventory | None:
    """Return the inventory of all names that occur, in alphabetical order; None if there are none."""
    names = {name for track in tracks if track is not None for name in track.names}
    return PhoneInventory(sorted(names - {SILENCE})) if names else None


class PhoneHead(nn.Module):
    """Linear classifier of each slot from the semantic codebook's (standardised) entry; used in training only."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        # Entries may lie far from the origin and close together; the classifier must not have to wait for that.
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.linear = nn.Linear(width, SLOTS * classes)

    def forward(self, semantic: Tensor) -> Tensor:
        """Return logits, shape [B, T, SLOTS, classes], of entries [B, width, T]."""
        flat: Tensor = self.linear(self.norm(semantic).transpose(1, 2))
        return flat.view(*flat.shape[:2], SLOTS, self.classes)


def phone_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare logits, shape [B, T, SLOTS, classes], with labels, shape [B, T, SLOTS].

    Returns:
        Mean cross-entropy in nats, share of slots told right, and the same among slots that are not silence. A batch
        without labels gives zeros.
    """
    known, voiced = labels != UNKNOWN, labels > 0
    total = functional.cross_entropy(
        logits.float().flatten(0, 2), labels.flatten(), ignore_index=UNKNOWN, reduction="sum"
    )
    is_right = (logits.argmax(dim=-1) == labels).float()
    right = (is_right * known).sum() / known.sum().clamp(min=1)
    right_voiced = (is_right * voiced).sum() / voiced.sum().clamp(min=1)
    return total / known.sum().clamp(min=1), right, right_voiced
