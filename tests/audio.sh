#!/usr/bin/env bash
# `make test-audio`: live conversations over virtual sound servers, in real time. Usage: tests/audio.sh [PYTHON]
# A shared host may stop any process for half a second, so what fails is run once more, alone, and must pass then.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
mkdir -p build && rm -rf build/test-audio-*
tests/sound_servers.sh

audio() {  # NAME FILE [ARGUMENT...]
  local name=$1 file=$2
  shift 2
  timeout 300 "$python" -m pytest -q -m "audio and not slow" -o cache_dir="build/test-audio-$name" \
    "$@" "tests/e2e/test_audio_$file.py"
}

once_more() {
  echo "test-audio: $1 once more, alone"
  audio "$@" --last-failed --last-failed-no-failures none
}

# Side by side those that wait most of the time; alone those that measure delays or keep a core busy. Each test has a
# server of its own.
together=(jack conversation pulse)
declare -A running
for name in "${together[@]}"; do
  audio "$name" "$name" -k "not interpreter" > "build/test-audio-$name.log" 2>&1 &
  running[$name]=$!
done
failed=()
for name in "${together[@]}"; do
  wait "${running[$name]}" || failed+=("$name")
  cat "build/test-audio-$name.log"
done
for name in ${failed[@]+"${failed[@]}"}; do
  once_more "$name" "$name" -k "not interpreter"
done
for group in "profile profile" "interpreter jack -k interpreter"; do
  audio $group || once_more $group
done
