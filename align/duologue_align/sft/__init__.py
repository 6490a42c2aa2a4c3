"""The supervised stage: a small Moshi-family language model trained on two-channel dialogues.

The way of the data: `dialogues` reads moshi-finetune's format, `tokenizer` learns its pieces, `text_stream` lays words
on frames, `encode` writes `shards` of codes, `windows` draws training sequences from them, `loss` judges predictions,
`trainer` makes one step of it, `run` repeats it with `validation` and `samples`, `bundle` writes what the runtime
loads.
"""
