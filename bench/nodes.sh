# Clusters of several nodes under measurement. Sourced, after bench/servers.sh. Nodes read the file
# `$work/config`.

# `start_node NAME [JOIN]`: returns when it serves; its process id and address go into `pids` and `addresses`.
declare -A pids addresses
start_node() {
    local name=$1
    launch_pontoon "$work/$name" "$(free_port)" ${2:+--join "$2"} --config "$work/config"
    pids[$name]=$server_pid
    addresses[$name]=$server_address
    all_pids+=("$server_pid")
    until grep -q ready "$work/$name.ready"; do
        kill -0 "$server_pid" || fail "the node did not start: see $work/$name.log"
        sleep 0.1
    done
}

# `stop_nodes NAME...`
stop_nodes() {
    local name
    for name in "$@"; do
        kill -TERM "${pids[$name]}"
        wait "${pids[$name]}" 2>/dev/null || true
        rm -rf "${work:?}/$name"
    done
    server_pid=
}

# `ctl ADDRESS ARGS...`
ctl() {
    "$PONTOON" ctl --addr "$1" --timeout 600 "${@:2}" || fail "pontoon ctl ${*:2} failed"
}

# Until every region has three voters, and so has the placement driver's own.
wait_for_replicas() {
    local address=$1 deadline=$((SECONDS + 600))
    until "$PONTOON" ctl --addr "$address" --json regions 2>/dev/null |
        python3 -c 'import json, sys
regions = json.load(sys.stdin)["regions"]
whole = lambda region: len(region["peers"]) == 3 and not any(p.get("is_learner") for p in region["peers"])
sys.exit(0 if regions and all(map(whole, regions)) else 1)'; do
        ((SECONDS < deadline)) || fail "the replicas do not come"
        sleep 0.2
    done
}
