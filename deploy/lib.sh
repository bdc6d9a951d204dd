# lib.sh - what quickstart and test share: install what is missing, configure, build.
# In:   the caller's wish (programs | tests | ci).      Out: an up-to-date build folder, or one sentence and a non-zero exit.
# Owns: build/ and, for CI, build-*/ in the checkout.
# Why:  both commands must work on a fresh Debian 12, as root or through sudo, and run again in seconds.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# shellcheck disable=SC2034 # used by the callers
programs_packages=(build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin openssh-client libjansson-dev libssl-dev
    libprotobuf-c-dev protobuf-c-compiler libpcre2-dev libmicrohttpd-dev libedit-dev)
# shellcheck disable=SC2034
tests_packages=(libcunit1-dev libsimde-dev python3 python3-venv procps)
# shellcheck disable=SC2034
ci_packages=(clang-14 libclang-rt-14-dev clang-format-14 shellcheck)

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

# Installs the packages that dpkg does not know as installed.
install_missing() {
    local missing=() p
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "needs these Debian packages, and there is no apt-get to install them: ${missing[*]}"
    local as=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "needs root or sudo to install: ${missing[*]}"
        as=(sudo)
    fi
    say "installing with apt-get: ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { "${as[@]}" apt-get update && "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: ${missing[*]} (its last lines stand above)"
    fi
    rm -f "$log"
}

# build FOLDER "TARGETS" CMAKE-OPTIONS...: configures once, builds, shows the log only when something is wrong.
build() {
    local folder=$root/$1 targets=$2 log
    shift 2
    log=$(mktemp)
    say "building $(basename "$folder")"
    # shellcheck disable=SC2086
    if ! { cmake -S "$root" -B "$folder" -G Ninja "$@" && cmake --build "$folder" ${targets:+--target $targets}; } >"$log" 2>&1; then
        grep -E 'error|warning|FAILED' -A 6 "$log" | tail -n 60 >&2
        cp "$log" "$folder.log" 2>/dev/null && say "whole log: $folder.log"
        rm -f "$log"
        fail "the build in $(basename "$folder") failed (see above)"
    fi
    rm -f "$log"
}
