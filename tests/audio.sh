#!/usr/bin/env bash
# `make test-audio`: live conversations over virtual sound servers, in real time. Usage: tests/audio.sh [PYTHON]
# A shared host may stop any process for half a second, so what fails is run once more, alone, and must pass then.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
mkdir -p build
tests/sound_servers.sh

audio() {  # NAME FILE [ARGUMENT...]
  local name=$1 file=$2
  shift 2
  timeout 300 "$python" -m pytest -q -m "audio and not slow" -o cache_dir="build/test-audio-$name" "$@" "tests/e2e/test_audio_$file.py"
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
  echo "test-audio: $name once more, alone"
  audio "$name" "$name" -k "not interpreter" --last-failed --last-failed-no-failures none
done
audio profile profile || audio profile profile --last-failed --last-failed-no-failures none
audio interpreter jack -k interpreter || audio interpreter jack -k interpreter --last-failed --last-failed-no-failures none
