#!/bin/sh
# run_example.sh WEIGHTS PROGRAM...: a second of samples through the example gives twelve frames, and errors are said.
set -eu
weights=$1
shift
head -c 96000 /dev/zero > in.f32
"$@" "$weights" mini < in.f32 > out.f32
test "$(wc -c < out.f32)" -eq 92160
if "$@" missing.safetensors < in.f32 2> error.txt; then exit 1; fi
grep -q "error: missing.safetensors: cannot open" error.txt
