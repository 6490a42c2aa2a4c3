#!/usr/bin/env bash
# `make test-audio`: live conversations over virtual sound servers, in real time. Usage: tests/audio.sh [PYTHON]
# A shared host may stop any process for half a second, so what fails is run once more, alone, and must pass then.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
mkdir -p build && rm -rf build/test-audio-*
tests/sound_servers.sh

audio() {  # FILE [ARGUMENT...]
  local file=$1
  shift
  timeout 300 "$python" -m pytest -q -m "audio and not slow" -o cache_dir="build/test-audio-$file" \
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
for file in "${together[@]}"; do
  audio "$file" -k "not interpreter" > "build/test-audio-$file.log" 2>&1 &
  running[$file]=$!
done
failed=()
for file in "${together[@]}"; do
  wait "${running[$file]}" || failed+=("$file")
  cat "build/test-audio-$file.log"
done
for file in ${failed[@]+"${failed[@]}"}; do
  once_more "$file" -k "not interpreter"
done
for group in profile "jack -k interpreter"; do
  audio $group || once_more $group
done
