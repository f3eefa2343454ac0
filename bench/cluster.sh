# Three nodes beside one, and a large region that moves. Sourced by scripts/bench.sh.

readonly cluster_clients=64
readonly cluster_ops=100000
readonly moved_rows=1000000
readonly small_rows=100000

cluster() {
    printf '%-58s %12s %12s\n' "what is to be reached" target here
    three_beside_one
    large_region_moves
}

# `put_row ADDRESS PIDS OPERATIONS`: operations per CPU second of the servers, and the p99 in ms.
put_row() {
    "$kvbench" -kind raw -addr "$1" -op put -clients "$cluster_clients" -ops "$3" \
        -keys "$small_rows" -pids "$2" -tsv | awk -F'\t' '{ print $10, $8 }'
}

three_beside_one() {
    local three one ones=() threes=() ones_late=() threes_late=() i
    : >"$work/config"
    start_node one
    start_node first
    start_node second "${addresses[first]}"
    start_node third "${addresses[first]}"
    wait_for_replicas "${addresses[first]}"
    three=${pids[first]},${pids[second]},${pids[third]}
    for i in 1 2 3; do
        read -r -a one < <(put_row "${addresses[one]}" "${pids[one]}" "$cluster_ops")
        ones+=("${one[0]}")
        ones_late+=("${one[1]}")
        read -r -a one < <(put_row "${addresses[first]}" "$three" "$cluster_ops")
        threes+=("${one[0]}")
        threes_late+=("${one[1]}")
    done
    stop_nodes one first second third
    figure "puts per CPU second of three nodes, of one node's" at-least 40 " %" \
        "$(percent "$(median "${threes[@]}")" "$(median "${ones[@]}")")"
    figure "p99 of three nodes, of one node's" at-most 300 " %" \
        "$(percent "$(median "${threes_late[@]}")" "$(median "${ones_late[@]}")")"
}

percent() { awk -v part="$1" -v whole="$2" 'BEGIN { printf "%.0f", 100 * part / whole }'; }

# A region of a gibibyte moves to a fourth node while a small one is written.
large_region_moves() {
    local before peaks during region store others name
    # One region of a gibibyte: it is not to be cut meanwhile, for size or for load.
    cat >"$work/config" <<'TOML'
[coprocessor]
region-max-size = "8GiB"
region-split-size = "6GiB"
[split]
qps-threshold = 0
byte-threshold = "0"
TOML
    for name in first second third; do
        start_node "$name" ${addresses[first]+"$([[ $name == first ]] || echo "${addresses[first]}")"}
    done
    wait_for_replicas "${addresses[first]}"
    say "bench: loading a gibibyte"
    "$PONTOON" bench raw load --addr "${addresses[first]}" --keys "$moved_rows" --batch 100 \
        --value-size 1050 --clients 4 --json >/dev/null 2>&1 || fail "the load failed"
    region=$(ctl "${addresses[first]}" --json regions |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["regions"][-1]["id"])')
    ctl "${addresses[first]}" split "$region" "kvbench:$(printf %012d "$small_rows")" >/dev/null
    start_node fourth "${addresses[first]}"
    store=$(ctl "${addresses[first]}" --json stores |
        python3 -c 'import json, sys; print(max(s["store"]["id"] for s in json.load(sys.stdin)["stores"]))')
    others=${pids[first]},${pids[second]},${pids[third]}
    read -r -a before < <(put_row "${addresses[first]}" "$others" "$cluster_ops")
    watch_memory "$work/peaks" "${pids[first]}" "${pids[second]}" "${pids[third]}" "${pids[fourth]}" &
    local watcher=$!
    all_pids+=("$watcher")
    ctl "${addresses[first]}" add-peer "$region" "$store" >"$work/moved" &
    local mover=$!
    : >"$work/during"
    while kill -0 "$mover" 2>/dev/null; do
        put_row "${addresses[first]}" "$others" $((cluster_ops / 4)) >>"$work/during"
    done
    wait "$mover" || fail "the region did not move: $(<"$work/moved")"
    kill "$watcher"
    wait "$watcher" 2>/dev/null || true
    # Each run is as long as the others, and less than a second.
    mapfile -t during < <(awk '{ print $2 }' "$work/during" | sort -g)
    peaks=$(sort -g "$work/peaks" | tail -n 1)
    stop_nodes first second third fourth
    figure "memory that the move of 1 GiB takes, of any node" at-most 64 " MiB" "$peaks"
    figure "p99 of another region's puts meanwhile, of before" at-most 300 " %" \
        "$(percent "$(median "${during[@]}")" "${before[1]}")"
    printf '%s\n' "  before ${before[1]} ms; meanwhile, run by run: ${during[*]} ms"
}

# `watch_memory FILE PID...`: until it is ended; the most that each has grown by, in MiB, goes into FILE.
watch_memory() {
    local file=$1 pid now most=()
    shift
    local -A first peak
    for pid in "$@"; do
        first[$pid]=$(resident "$pid")
        peak[$pid]=0
    done
    while :; do
        for pid in "$@"; do
            now=$(($(resident "$pid") - first[$pid]))
            ((now <= peak[$pid])) || peak[$pid]=$now
        done
        most=("${peak[@]}")
        printf '%s\n' "${most[@]}" >"$file.new"
        mv "$file.new" "$file"
        sleep 0.1
    done
}

resident() { awk '/^VmRSS:/ { printf "%.0f\n", $2 / 1024 }' "/proc/$1/status"; }
