#!/usr/bin/env bash
# Align the default agent on an hour of synthetic dialogue and compare it with itself before; half an hour on two cores.
#
#   align/demo.sh [--dry-run] [OUT]        (default: out/align-demo; MODEL=BUNDLE for another agent)
#
# The same command again goes on where it was interrupted. It shows the way, not the limit.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { echo "$*"; "$@"; }
if [ "${1:-}" = --dry-run ]; then shift; run() { echo "$*"; }; fi
out=${1:-out/align-demo}
model=${MODEL:-}
export PATH="$PWD/.venv/bin:$PATH"

run duologue-align synth --hours "${HOURS:-1}" --seed 7 --jobs 2 --out "$out/dialogues"
run duologue-align mine "$out/dialogues" --out "$out/mined" --jobs 2 --per-axis 120 ${model:+--codec "$model"} \
    --set detector=level --set dev_share=0.1 --set test_share=0.3 \
    --set skip_backchannels=true --set turn_min_s=3 --set interruption_min_s=2
run duologue-align train duologue --segments "$out/mined" --out "$out/run" --resume --threads 2 ${model:+--model "$model"} \
    --steps "${STEPS:-30}" --set run.groups=6 --set run.valid_segments=4
run duologue-align export "$out/run" --out "$out/aligned"
base=${model:-$(python -c 'from duologue.agent import cache_folder, default_bundle
from duologue.config import AgentConfig
print(default_bundle(cache_folder(AgentConfig())))')}
run duologue-align evaluate "$out/mined" --agent "$out/aligned" --base "$base" --out "$out/report" --only static \
    --per-axis "${PER_AXIS:-8}" --seeds 1 --judge none
