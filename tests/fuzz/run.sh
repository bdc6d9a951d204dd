#!/usr/bin/env bash
# run.sh BUILD SECONDS - every fuzz target on its saved corpus, two at a time, SECONDS each.
# A libFuzzer build mutates by coverage under the sanitizers; a plain build replays the corpus, then mutates it blindly.
set -euo pipefail
build=$1 seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

one() {
    local target=$1 name
    name=$(basename "$target")
    local corpus=$here/corpus/${name#fuzz_}
    [ -d "$corpus" ] || { echo "FAIL $name: no corpus in $corpus" >"$logs/$name"; return 1; }
    local help
    help=$("$target" -help=1 2>&1 || true) # not through a pipe: grep -q would end it early, and pipefail would say no
    if [[ $help == *max_total_time* ]]; then
        mkdir -p "$logs/$name.new"
        "$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=16384 -artifact_prefix="$logs/$name." "$logs/$name.new" \
            "$corpus" >"$logs/$name" 2>&1
    else
        "$target" --seconds "$seconds" "$corpus" >"$logs/$name" 2>&1
    fi
}

targets=()
for t in "$build"/bin/fuzz_*; do [ -x "$t" ] && targets+=("$t"); done
[ ${#targets[@]} -gt 0 ] || { echo "no fuzz targets in $build/bin"; exit 1; }
bad=0 i=0
while [ $i -lt ${#targets[@]} ]; do
    pids=() names=()
    for t in "${targets[@]:$i:2}"; do
        one "$t" &
        pids+=($!) names+=("$(basename "$t")")
    done
    for j in "${!pids[@]}"; do
        if ! wait "${pids[$j]}"; then
            bad=$((bad + 1))
            echo "FAIL ${names[$j]}"
            tail -n 40 "$logs/${names[$j]}"
            for artifact in "$logs/${names[$j]}".crash-* "$logs/${names[$j]}".timeout-* "$logs/${names[$j]}".oom-*; do
                [ -f "$artifact" ] && echo "input (base64): $(base64 -w0 "$artifact" | head -c 4000)"
            done
        fi
    done
    i=$((i + 2))
done
echo "fuzz: ${#targets[@]} targets, $seconds s each, $((${#targets[@]} - bad)) passed, $bad failed"
[ $bad -eq 0 ]
