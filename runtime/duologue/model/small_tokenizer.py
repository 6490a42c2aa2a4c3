"""A SentencePiece model of a few hundred pieces, trained on the spot, with Moshi's special ids."""

from __future__ import annotations

import io
import string

_TEXT = """
Hello, how are you doing today? I am fine, thank you, and you?
Good morning! What can I do for you this morning?
Well, I was just thinking about the weather. It has been raining all week.
Oh really? I did not know that. Tell me more about it.
Yes, that is right. No, I do not think so. Maybe we should ask someone else.
Let me think about that for a moment. I would say it depends on what you want.
You know, my sister lives near the sea, and she goes swimming every day in the summer.
That sounds lovely. How long has she been living there?
About three years now, I believe. She moved there after she finished school.
Sorry, could you say that again? I did not hear the last part.
Of course. I said that the train leaves at half past nine from the central station.
Okay, so we have to be there by nine. Should we take a taxi or walk?
It is only ten minutes on foot, so let us walk if it does not rain.
I would like to book a table for two people on Friday night, please.
Certainly. What time would you like to come, and what name should I put down?
You are a wise and friendly teacher. Answer questions or provide advice in a clear way.
You enjoy having a good conversation about music, food, sport, travel and books.
You work for a small company which is a hotel, and your name is on the list.
Right, right. Uh huh. Mm-hm. Yeah, exactly. I see what you mean.
Wait, hold on, can I stop you there? I wanted to ask about the price first.
The price is twenty dollars for one day, or one hundred dollars for the whole week.
That is more than I expected, but I will take it anyway. Where do I sign?
My favourite film is an old one. It tells the story of a man who finds a letter.
We cook together on Sundays: soup, bread, fish with lemon, and a cake with apples.
The children are playing in the garden while their grandmother reads the newspaper.
Could you help me with my computer? It keeps turning itself off when I open a file.
Have you tried restarting it? Sometimes that is all it needs.
I have tried everything, believe me. Nothing works, and I need it for work tomorrow.
Do not worry, we will find out what is wrong with it. First, check the power cable.
Goodbye then, it was nice talking to you. See you again next week!
"""


def train_small_tokenizer(vocabulary: int = 512) -> bytes:
    """Train a tokenizer on a page of everyday sentences.

    Ids follow Moshi's: 0 is EPAD, 1 BOS, 2 EOS, 3 PAD. Every printable ASCII character has a piece, so any English
    text encodes. The same `vocabulary` always gives the same pieces.

    Args:
        vocabulary: Pieces in all.

    Returns:
        The serialized SentencePiece model.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT.strip().splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        required_chars=string.ascii_letters + string.digits + string.punctuation,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
