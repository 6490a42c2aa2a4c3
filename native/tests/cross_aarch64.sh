#!/bin/sh
# Builds the native code for 64-bit ARM and runs its tests under emulation.
# Needs Debian's g++-aarch64-linux-gnu and qemu-user; says so and passes where they are missing.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
build=${1:-"$source/../build/aarch64"}

if ! command -v aarch64-linux-gnu-g++ > /dev/null; then
  echo "skipped: no aarch64-linux-gnu-g++ (apt-get install g++-aarch64-linux-gnu)"
  exit 0
fi
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)

mkdir -p "$(dirname "$build")"
cmake -S "$source" -B "$build" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_CROSSCOMPILING_EMULATOR="$emulator;-L;/usr/aarch64-linux-gnu" \
  -DDUOLOGUE_BUILD_PYTHON=OFF -DDUOLOGUE_BUILD_TESTS=ON > "$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build" -j 2
if [ -z "$emulator" ]; then
  echo "built for aarch64; tests not run: no qemu-aarch64 (apt-get install qemu-user)"
  exit 0
fi
ctest --test-dir "$build" --output-on-failure
