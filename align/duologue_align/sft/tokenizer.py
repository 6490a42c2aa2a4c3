"""Train the inner monologue's SentencePiece tokenizer on what the agent says."""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Iterator

import sentencepiece

from duologue.errors import ConfigError
from duologue_align.sft.dialogues import Dialogue

LONGEST_LINE = 40
"""Words per training line at most."""


def spoken_lines(dialogues: Iterable[Dialogue]) -> Iterator[str]:
    """Yield what the agent says, line by line: up to the end of a sentence, or `LONGEST_LINE` words.

    Raises:
        ConfigError: A dialogue's words cannot be read.
    """
    for dialogue in dialogues:
        line: list[str] = []
        for word in dialogue.words():
            line.append(word.text)
            if word.text.endswith((".", "?", "!")) or len(line) == LONGEST_LINE:
                yield " ".join(line)
                line = []
        if line:
            yield " ".join(line)


def train_tokenizer(lines: Iterable[str], *, pieces: int = 1024) -> bytes:
    """Train a byte-pair tokenizer with Moshi's ids: 0 EPAD (unknown), 1 BOS, 2 EOS, 3 PAD.

    Every printable ASCII character has a piece, so any English text encodes. The same lines in the same order give the
    same model.

    Args:
        lines: Text to learn from.
        pieces: Size of the vocabulary, the four special ones included.

    Returns:
        The serialised SentencePiece model.

    Raises:
        ConfigError: There is no text, or too little or too much of it for so many pieces.
    """
    text = [line for line in lines if line.strip()]
    if not text:
        raise ConfigError("the dialogues hold no words of the agent; there is nothing to train a tokenizer on")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text),
            model_writer=model,
            model_type="bpe",
            vocab_size=pieces,
            required_chars=string.ascii_letters + string.digits + string.punctuation,
            character_coverage=1.0,
            shuffle_input_sentence=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"cannot train {pieces} pieces on {len(text)} lines: {reason}") from error
    return model.getvalue()
