"""Synthetic two-channel dialogues: human timing, written replies, synthesised voices, moshi-finetune's format.

The way of a dialogue: `chat` and `repertoire` give what is said, `composer` decides who speaks when with the figures of
`timing`, `speech` and `voices` speak it, `augment` puts the user on a line, `dataset` writes it, `check` measures it.
"""
