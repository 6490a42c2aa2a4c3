"""The inner monologue's SentencePiece tokenizer."""

from __future__ import annotations

from pathlib import Path

import sentencepiece

from duologue.errors import WeightsError

EPAD_ID = 0
"""End of padding: the frame before a word."""
PAD_ID = 3
"""No text in this frame."""


class Tokenizer:
    """Text tokens to and from text, with Moshi's special ids (0 EPAD, 1 BOS, 2 EOS, 3 PAD)."""

    def __init__(self, path: str | Path) -> None:
        """Read a SentencePiece model.

        Raises:
            WeightsError: If the file is missing or not a SentencePiece model.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise WeightsError(f"{self.path}: no such tokenizer; the bundle's config.json names it in tokenizer_name")
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self.path.read_bytes())
        except RuntimeError as error:
            raise WeightsError(f"{self.path}: not a SentencePiece model; download or copy the bundle again") from error
        self._pieces = [self._text(token) for token in range(self._processor.GetPieceSize())]

    def piece(self, token: int) -> str:
        """Return what the token adds to the transcript: "" for padding and control tokens."""
        return self._pieces[token] if 0 <= token < len(self._pieces) else ""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self._processor.EncodeAsIds(text))

    def __len__(self) -> int:
        return len(self._pieces)

    def _text(self, token: int) -> str:
        if token in (EPAD_ID, PAD_ID) or self._processor.IsControl(token) or self._processor.IsUnknown(token):
            return ""
        return str(self._processor.IdToPiece(token)).replace("▁", " ")
