#!/usr/bin/env bash
# netns.sh BUILD_DIR RATE COMMAND [FLAGS...] - a deeprack command whose two ranks are on two "hosts": two network
# namespaces of this machine, joined by a link of RATE (tc: 1gbit, 10gbit). Root only.
#   netns.sh build 1gbit bench --model deploy/models/lexi-15m --tp 2
#   netns.sh build prove          # ids of one rank and of two over 1 and 10 Gbit/s, tokens/s, waiting
# In:   a build, a rate, a command line without --hosts.      Out: what the command prints; its exit status.
# Owns: two namespaces, a pair of links, a folder; all are gone at its end, with every process in the namespaces.
# Why:  what a real network costs can be measured before there is a second machine. Open MPI believes in two hosts,
#       because its daemon on the second one is started through an agent, as ssh would, and has a host name of its own.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5p' "$0" >&2; exit 64; }
[ "$(id -u)" -eq 0 ] || { echo "netns.sh: only root may make network namespaces" >&2; exit 69; }
for tool in ip tc unshare taskset; do
    command -v $tool >/dev/null || { echo "netns.sh: $tool is missing (Debian: iproute2, util-linux)" >&2; exit 69; }
done
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")/../.." && pwd)
shift
near=dr$$n far=dr$$f
near_ip=10.77.0.1 far_ip=10.77.0.2
half=$(($(nproc) / 2)) # each "host" has half of the cores: workers bind their threads, and both would take the first
near_cpus=0 far_cpus=0
[ $half -eq 0 ] || near_cpus=0-$((half - 1)) far_cpus=$half-$((2 * half - 1))
dir=$(mktemp -d)

cleanup() {
    local ns
    for ns in $near $far; do
        ip netns pids "$ns" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
        ip netns del "$ns" 2>/dev/null || true # the links go with it
    done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# One end of the link: address, rate of what leaves it. The burst is what the rate sends in 4 ms, the kernel's tick.
end() { # NAMESPACE LINK ADDRESS RATE
    local burst=524288
    case $4 in 10gbit) burst=5242880 ;; esac
    ip netns exec "$1" ip link set lo up
    ip netns exec "$1" ip addr add "$3/24" dev "$2"
    ip netns exec "$1" ip link set "$2" up
    ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "$4" burst $burst latency 50ms
}

make_link() { # RATE
    ip netns add $near
    ip netns add $far
    ip link add dr0 netns $near type veth peer name dr0 netns $far
    end $near dr0 $near_ip "$1"
    end $far dr0 $far_ip "$1"
}

drop_link() {
    ip netns del $near
    ip netns del $far
}

# What mpirun calls in place of ssh: AGENT HOST WORDS...
cat >"$dir/agent" <<EOF
#!/bin/sh
[ "\$1" = $far_ip ] || { echo "agent: no host \$1" >&2; exit 1; }
shift
exec ip netns exec $far taskset -c $far_cpus unshare --uts sh -c "hostname deeprack-far; \$*"
EOF
chmod +x "$dir/agent"

across() { # COMMAND FLAGS... - from the near namespace, one rank in each
    ip netns exec $near taskset -c $near_cpus env OMPI_MCA_plm_rsh_agent="$dir/agent" "$build/bin/deeprack" "$@" --hosts $near_ip,$far_ip
}

# ---- prove ----

model=$here/deploy/models/lexi-15m
generate=(generate --model "$model" --prompt "In the beginning" --temperature 0 --ignore-eos --max-tokens 300 --json
    --threads 1 --log-level warn)

show() { # NAME FILE - compares with the ids of one rank
    python3 - "$1" "$2" "$dir/one.json" <<'EOF'
import json, sys
name, found, expected = sys.argv[1], json.load(open(sys.argv[2])), json.load(open(sys.argv[3]))
same = found["ids"] == expected["ids"]
print(f'{name}: {len(found["ids"])} ids {"are those" if same else "DIFFER from those"} of one rank, '
      f'{found["timings"]["tokens_per_s"]:.0f} tokens/s')
sys.exit(0 if same else 1)
EOF
}

waiting() { # the same tokens through a server, for its counters
    ip netns exec $near taskset -c $near_cpus env OMPI_MCA_plm_rsh_agent="$dir/agent" "$build/bin/deeprack" serve --model "$model" --tp 2 \
        --threads 1 --port 8000 --log-level warn --hosts $near_ip,$far_ip >/dev/null &
    ip netns exec $near python3 - <<'EOF'
import json, time, urllib.request
base = "http://127.0.0.1:8000"
for _ in range(300):
    try:
        urllib.request.urlopen(base + "/health").read()
        break
    except OSError:
        time.sleep(0.1)
body = {"prompt": "In the beginning", "max_tokens": 300, "min_tokens": 300, "temperature": 0, "ignore_eos": True}
begin = time.monotonic()
urllib.request.urlopen(urllib.request.Request(base + "/v1/completions", json.dumps(body).encode(),
                                              {"Content-Type": "application/json"})).read()
took = time.monotonic() - begin
time.sleep(2)  # counters come once a second
for line in urllib.request.urlopen(base + "/metrics").read().decode().splitlines():
    if line.startswith("deeprack_step_wait_seconds_total"):
        wait = float(line.rsplit(" ", 1)[1]) / 2
        print(f"  a rank waited {1e3 * wait / 300:.2f} of {1e3 * took / 300:.2f} ms a token in collectives")
EOF
    kill %%
    wait %% || true
}

prove() {
    "$build/bin/deeprack" "${generate[@]}" --tp 1 >"$dir/one.json"
    "$build/bin/deeprack" "${generate[@]}" --tp 2 >"$dir/two.json"
    show "one rank" "$dir/one.json"
    show "two ranks, shared memory" "$dir/two.json"
    for rate in 10gbit 1gbit; do
        make_link $rate
        across "${generate[@]}" --tp 2 >"$dir/$rate.json"
        show "two ranks, $rate" "$dir/$rate.json"
        echo "  $(($(ip netns exec $near cat /sys/class/net/dr0/statistics/tx_bytes) / 1000)) kB left the first host"
        waiting
        drop_link
    done
}

if [ "$1" = prove ]; then
    prove
else
    make_link "$1"
    shift
    across "$@"
fi
