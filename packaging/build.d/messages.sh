# shellcheck shell=bash
# What a person reads while the build goes on; it knows nothing of targets or compilers.

# All of it goes to standard error: standard output carries the results alone.
step() { printf '%s %s\n' "$(elapsed)" "$*" >&2; }
note() { printf '%s     %s\n' "$(elapsed)" "$*" >&2; }

# The message says what is wrong and what to do about it.
die() {
    printf 'packaging/build: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '    %s\n' "$@" >&2
    exit 1
}

elapsed() { printf '[%3d:%02d]' $((SECONDS / 60)) $((SECONDS % 60)); }

# Runs a command whose output matters only when it fails: `quietly LOGFILE COMMAND…`.
quietly() {
    local log=$1
    shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 && return
    tail -n 40 "$log" >&2
    die "the step above failed; its whole output: $log"
}
