"""Training and evaluation of small Mimi codecs that load unchanged in moshi and in duologue's native codec.

The way of the data: `recordings` lists tracks, `segments` cuts and alters clips, `network` (of `seanet`, `quantizer`
and the language model's transformer) codes them; `spectral`, `discriminators`, `phones` and `balancer` judge the
result; `trainer` makes one step of it, `loop` runs the steps, `weights` writes moshi's file, `evaluate` measures it.
"""
