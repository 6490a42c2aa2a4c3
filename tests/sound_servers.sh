#!/usr/bin/env bash
# Sound servers for `make test-audio`: from Debian where that is allowed; elsewhere the tests skip and say why.
set -euo pipefail
packages=(jackd2 libjack-jackd2-0 libportaudio2 pulseaudio libasound2-plugins)

is_complete() {
  command -v jackd > /dev/null && command -v pulseaudio > /dev/null && ldconfig -p | grep libportaudio > /dev/null
}

install() {
  export DEBIAN_FRONTEND=noninteractive
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  timeout 60 "${as_root[@]}" apt-get -q update && timeout 180 "${as_root[@]}" apt-get -q install -y --no-install-recommends "${packages[@]}"
}

is_complete && exit
if ! command -v apt-get > /dev/null || ! install > /dev/null 2>&1 || ! is_complete; then
  echo "test-audio: cannot install sound servers here, so some tests will be skipped; by hand: apt-get install ${packages[*]}"
fi
