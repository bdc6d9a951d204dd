#!/bin/sh
# callgrind.sh - instructions of the decode step of one tiny model.
# In:   the build folder; valgrind.      Out: instructions in all steps, and of the ten dearest functions.
# Owns: a temporary folder.
# Why:  exact numbers on noisy machines: run it before and after a change.
#
# usage: tests/bench/callgrind.sh [BUILD [MODEL]]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build}
model=${2:-$root/tests/golden/v3-fp8}
command -v valgrind >/dev/null || { echo "callgrind.sh: valgrind is missing: apt-get install valgrind" >&2; exit 69; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
valgrind --tool=callgrind --toggle-collect=dr_worker_step --callgrind-out-file="$out/cg" \
    "$build/bin/decode-steps" "$model" 2>"$out/log" || { cat "$out/log" >&2; exit 1; }
callgrind_annotate --auto=no --threshold=100 "$out/cg" 2>"$out/notes" >"$out/text"
grep 'PROGRAM TOTALS' "$out/text"
echo "dearest functions, code inlined into them included:"
sed -n '/file:function/,$p' "$out/text" | sed "s/,//g" | awk '$1 + 0 > 0 { n = $1; sub(/^.*:/, ""); sub(/ .*/, ""); sum[$0] += n }
    END { for (f in sum) printf "%12d %s\n", sum[f], f }' | sort -rn | head -10
