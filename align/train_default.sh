#!/usr/bin/env bash
# Train the default agent, duologue-mini, from nothing: dialogues, codec, language model, bundle, alignment, figures, model
# card.
#
#   align/train_default.sh [--dry-run] [OUT]        (default: out/train-default)
#
# Every stage leaves OUT/done/STAGE and is then skipped; a stage that was interrupted goes on where it stopped.
# Hours are those of one core of a 2-core EPYC; a GPU is used where torch finds one. DUOLOGUE_BUNDLE is where the agent
# goes (default: into the package, so that it becomes the default agent).
set -euo pipefail
cd "$(dirname "$0")/.."

dry=
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
out=${1:-out/train-default}
bundle=${DUOLOGUE_BUNDLE:-runtime/duologue/data/duologue-mini}
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

stage() {  # NAME HOURS COMMAND...
    local name=$1 hours=$2
    shift 2
    if [ -n "$dry" ]; then echo "$*"; return; fi
    if [ -e "$out/done/$name" ]; then echo "$name: done"; return; fi
    echo "$name: about $hours h on one core: $*"
    mkdir -p "$out/done"
    "$@"
    touch "$out/done/$name"
}

stage synth-codec    0.2 duologue-align synth --hours 12 --seed 0 --out "$out/codec"
stage synth          0.3 duologue-align synth --hours 30 --seed 1 --audio flac --out "$out/lm"
stage synth-test     0.1 duologue-align synth --hours 1.5 --split test --out "$out/test"
stage synth-clean    0.1 duologue-align synth --hours 0.5 --split test --clean --audio flac --out "$out/test_clean"
stage train-codec    4  duologue-align train-codec --data "$out/codec" --out "$out/codec_run" --threads 1 --workers 1 --resume
# The codes stand still; the decoder learns the one voice that it will speak with.
stage train-decoder  1.5 duologue-align train-codec --data "$out/codec" --data "$out/lm" --channel 0 --out "$out/codec_run" \
    --threads 1 --workers 1 --resume --minutes 310 --set run.freeze_share=0.5 --set losses.stft=4
stage tokenizer      0.1 duologue-align tokenizer --data "$out/lm" --out "$out/tokenizer.model"
stage encode         0.5 duologue-align encode --data "$out/lm" --codec "$out/codec_run/mimi.safetensors" \
    --tokenizer "$out/tokenizer.model" --out "$out/codes"
stage encode-test    0.1 duologue-align encode --data "$out/test" --codec "$out/codec_run/mimi.safetensors" \
    --tokenizer "$out/tokenizer.model" --out "$out/codes_test"
stage sft            2.5 duologue-align sft duologue-mini --data "$out/codes" --valid "$out/codes_test" \
    --out "$out/sft_run" --threads 1 --resume
stage bundle         0   duologue-align export "$out/sft_run/bundle" --dtype bfloat16 --out "$bundle"
stage eval-agent-voice 0.2 duologue-align eval-codec "$bundle" --data agent="$out/test" --channel 0 --json "$out/codec_agent.json"
stage eval-unseen    0.2 duologue-align eval-codec "$bundle" --data unseen="$out/test" --channel 1 --json "$out/codec_unseen.json"
stage eval-clean     0.1 duologue-align eval-codec "$bundle" --data clean="$out/test_clean" --channel 1 --json "$out/codec_clean.json"
stage eval-base      1   python benchmarks/default_agent.py --bundle "$bundle" --data "$out/test" --json "$out/base.json"
stage synth-align    0.1 duologue-align synth --hours 6 --seed 7 --audio flac --out "$out/align"
stage mine           0.1 duologue-align mine "$out/align" --out "$out/mined" --codec "$bundle" --per-axis 400 \
    --set detector=level --set dev_share=0.05 --set test_share=0 \
    --set skip_backchannels=true --set turn_min_s=3 --set interruption_min_s=2
stage align          0.3 duologue-align train duologue --model "$bundle" --segments "$out/mined" --out "$out/align_run" \
    --threads 1 --resume --steps 36 --set run.groups=6 --set run.precision=bfloat16 --set reward.judge=similarity
stage aligned        0   duologue-align export "$out/align_run" --base "$bundle" --lora-only --out "$bundle/mini-aligned"
stage eval-agent     1   python benchmarks/default_agent.py --bundle "$bundle" --adapter "$bundle/mini-aligned" \
    --data "$out/test" --json "$out/agent.json"
stage card           0   python benchmarks/model_card.py --bundle "$bundle" --agent "$out/agent.json" --base "$out/base.json" \
    --codec "$out/codec_agent.json" --codec "$out/codec_clean.json" \
    --codec "$out/codec_unseen.json" --codec-run "$out/codec_run" --sft-run "$out/sft_run"
