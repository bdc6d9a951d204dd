#!/usr/bin/env bash
# headers.sh - compiles every header alone, as C17 and as C++17.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0 n=0
flags=(-I. -D_GNU_SOURCE -DDR_VERSION='"lint"' -fsyntax-only -Wall -Wextra -Werror -Wno-pragma-once-outside-header)
probe=$(mktemp --suffix=.c)
trap 'rm -f "$probe"' EXIT
for h in $(git ls-files 'common/*.h' 'model/*.h' 'proto/*.h' 'kernels/*.h' 'worker/*.h' 'coordinator/*.h' 'gateway/*.h' 'tests/*.h'); do
    n=$((n + 1))
    printf '#include "%s"\n' "$h" >"$probe"
    own=()
    case $h in # of no use without their instruction sets
    kernels/x86/*) own=(-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512bf16 -DDR_VL=16) ;;
    esac
    gcc -std=c17 "${flags[@]}" "${own[@]}" "$probe" || { echo "FAIL as C17: $h"; bad=$((bad + 1)); }
    case $h in # headers that nvcc may see
    kernels/x86/*) ;;
    common/* | kernels/*) g++ -std=c++17 -x c++ "${flags[@]}" "$probe" || { echo "FAIL as C++17: $h"; bad=$((bad + 1)); } ;;
    esac
done
echo "headers: $n files, $bad failed"
[ $bad -eq 0 ]
