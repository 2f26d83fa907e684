#!/usr/bin/env bash
# Installs what luatape is built and tested with, and builds it: sourced by scripts/run and
# scripts/test. Does nothing that is done already, so a second run starts at once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${LUATAPE_BUILD:-$root/build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
export LUATAPE_BUILD=$build

say() { printf 'luatape: %s\n' "$*" >&2; }

# Debian's names. What a build needs, and what the tests need beyond it.
build_packages=(gcc libc6-dev cmake ninja-build pkg-config lua5.4 liblua5.4-dev libblis-openmp-dev libedit-dev)
test_packages=(clang clang-format libclang-rt-dev lua-busted lua-check luarocks libomp-dev)

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

need() { # packages...
  local missing=() package
  if ! command -v dpkg-query >/dev/null; then
    command -v cmake >/dev/null && pkg-config --exists lua5.4 && return
    say "this is not Debian: install $* (or their like), then run cmake by hand as the README says"
    exit 1
  fi
  for package in "$@"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  local sudo=
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      say "needs packages; as root: apt-get install ${missing[*]}"
      exit 1
    fi
    sudo=sudo
  fi
  say "installing ${missing[*]}"
  $sudo apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# configure_and_build FOLDER [cmake options]: quiet unless something fails
configure_and_build() {
  local folder=$1 log
  shift
  mkdir -p "$folder"
  log=$folder/build.log
  if [ ! -f "$folder/build.ninja" ]; then
    cmake -S "$root" -B "$folder" -G Ninja "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  fi
  # Nothing to do is the common case and takes ninja some milliseconds.
  ninja -C "$folder" -n 2>/dev/null | grep -q 'no work to do' && return
  say "building in $folder"
  ninja -C "$folder" >>"$log" 2>&1 || { tail -40 "$log" >&2; exit 1; }
}
