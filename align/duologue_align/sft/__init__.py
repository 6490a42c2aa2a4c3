"""The supervised stage: a small Moshi-family language model trained on two-channel dialogues.

The way of the data: `dialogues` reads moshi-finetune's format, `tokenizer` learns its pieces, `text_stream` lays words
on frames, `encode` writes `shards` of codes, `windows` draws training sequences from them, `loss` judges predictions,
`trainer` makes one step of it, `run` repeats it with `validation` and `samples`, `bundle` writes what the runtime
loads.

From nothing to an agent, each command resumable:

    duologue-align synth --out data --hours 100 && duologue-align synth --out test --hours 1 --split test
    duologue-align tokenizer --data data --out tokenizer.model
    duologue-align encode --data data --codec codec/mimi.safetensors --tokenizer tokenizer.model --out codes
    duologue-align encode --data test --codec codec/mimi.safetensors --tokenizer tokenizer.model --out codes_test
    duologue-align sft duologue-mini --data codes --valid codes_test --out run [--resume] [--minutes 240]
    python benchmarks/default_agent.py --data test --bundle run/bundle
"""
