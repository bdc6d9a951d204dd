#!/usr/bin/env bash
# lint.sh - house rules that a grep can hold: seams, environment, unfinished marks, sizes, shell, format.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0
wrong() {
    echo "FAIL $1"
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@"
    bad=$((bad + 1))
}
sources() { git ls-files '*.c' '*.h' '*.cu' '*.cuh'; }
check() { # TEXT PATTERN ALLOWED-PATHS
    local found
    found=$(sources | xargs grep -nE "$2" /dev/null | grep -vE "^($3)" || true)
    [ -z "$found" ] || wrong "$1" "$found"
}
check "mpi.h outside its files" '#include <mpi\.h>' 'proto/channel_mpi\.c|worker/collective/group_(create_)?mpi\.c|tests/'
check "getenv outside the option table" '\bgetenv *\(' 'common/option\.c|tests/'
check "generated protobuf types outside the codec" '\.pb-c\.h' 'proto/codec[a-z_]*\.[ch]'
check "an unfinished mark" '\b(TODO|XXX|HACK)\b' 'tests/lint/'
check "exit outside main.c" '\b_?exit *\(' '(gateway|coordinator|worker)/(main|loop)\.c|gateway/cluster/supervisor\.c|tests/|worker/beat\.c'
check "printf to stderr outside the log" 'fprintf *\(stderr' 'common/(status|log)\.c|gateway/(cli|cluster)/|gateway/main\.c|common/option\.c|(worker|coordinator)/main\.c|tests/'
for d in common model kernels proto worker coordinator; do
    case $d in
    common) deny='model|proto|kernels|worker|coordinator|gateway' ;;
    model) deny='proto|kernels|worker|coordinator|gateway' ;;
    kernels) deny='model|proto|worker|coordinator|gateway' ;;
    proto) deny='kernels|worker|coordinator|gateway' ;;
    worker) deny='coordinator|gateway' ;;
    coordinator) deny='kernels|worker|gateway' ;;
    esac
    found=$(git ls-files "$d/*.c" "$d/*.h" | xargs grep -nE "#include \"($deny)/" /dev/null || true)
    [ -z "$found" ] || wrong "$d includes upward" "$found"
done
found=$(git ls-files 'gateway/*.c' 'gateway/*.h' | xargs grep -nE '#include "(coordinator|worker|kernels)/' /dev/null |
    grep -v 'gateway/bench/[a-z_]*\.[ch]:[0-9]*:#include "kernels/probe\.h"' || true) # peaks for the report of bench
[ -z "$found" ] || wrong "gateway includes another program" "$found"
for f in $(sources); do
    lines=$(wc -l <"$f")
    [ "$lines" -le 800 ] || wrong "$f has $lines lines (800 at most)"
done
for d in common model proto kernels worker coordinator gateway tests deploy; do
    [ -f $d/README.md ] || wrong "$d has no README.md"
done
mapfile -t shells < <(git ls-files | xargs grep -lE '^#!.*(bash|/sh)$')
shellcheck -x "${shells[@]}" || wrong "shellcheck"
if command -v clang-format-14 >/dev/null; then
    found=$(sources | xargs clang-format-14 --dry-run 2>&1 | grep -oE '^[^:]+:[0-9]+' | sort -u -t: -k1,1 || true)
    [ -z "$found" ] || wrong "clang-format differs" "$found"
fi
echo "lint: $(sources | wc -l) files, $bad failed"
[ $bad -eq 0 ]
