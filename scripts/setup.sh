#!/usr/bin/env bash
# Installs what luatape is built and tested with, and builds it: sourced by the other scripts. Does
# nothing that is done already, so a second run starts at once.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${LUATAPE_BUILD:-$root/build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
export LUATAPE_BUILD=$build

say() { printf 'luatape: %s\n' "$*" >&2; }

# Debian's names: what a build needs, what the tests need beyond it, and what .ci/run needs.
build_packages=(gcc libc6-dev cmake ninja-build pkg-config lua5.4 liblua5.4-dev libblis-openmp-dev
  liblapack3 libedit-dev)
test_packages=(lua-busted lua-filesystem)
gate_packages=(clang libclang-rt-dev libomp-dev clang-format lua-check luarocks make)
case ${CC:-} in *clang*) build_packages+=(clang libomp-dev) ;; esac

# Those of the packages that are not there.
missing() { # packages...
  local there
  there=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
  for package in "$@"; do
    grep -qx "$package installed" <<<"$there" || printf '%s\n' "$package"
  done
}

need() { # packages...
  local packages sudo='' log
  if ! command -v dpkg-query >/dev/null; then
    command -v cmake >/dev/null && command -v ninja >/dev/null && return
    say "this is not Debian. Install, by the names they have here: $*"
    exit 1
  fi
  mapfile -t packages < <(missing "$@")
  [ ${#packages[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      say "packages are missing; as root: apt-get install ${packages[*]}"
      exit 1
    fi
    sudo=sudo
  fi
  say "installing ${packages[*]}"
  log=$(mktemp)
  if ! { $sudo apt-get update &&
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      "${packages[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    say "could not install ${packages[*]}"
    exit 1
  fi
  rm -f "$log"
}

# The compiler that a build folder was made with is not the one that CC now asks for.
other_compiler() { # folder
  local now
  now=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$1/CMakeCache.txt")
  [ -n "${CC:-}" ] && [ "$(command -v "${CC%% *}")" != "$now" ]
}

# configure_and_build FOLDER [cmake options]: quiet unless something fails
configure_and_build() {
  local folder=$1 log=$1/build.log
  shift
  if ! { mkdir -p "$folder" && : >>"$log"; } 2>/dev/null; then
    say "cannot write to $folder; LUATAPE_BUILD=FOLDER builds elsewhere"
    exit 1
  fi
  if [ ! -f "$folder/build.ninja" ] || other_compiler "$folder"; then
    say "building in $folder"
    cmake --fresh -S "$root" -B "$folder" -G Ninja "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  fi
  # Nothing to do is the common case and takes ninja some milliseconds.
  ninja -C "$folder" >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }
}
