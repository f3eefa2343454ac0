# Transactions beside etcd's, and beside our own raw calls. Sourced by scripts/bench.sh.

# `transactions [--quick]`
transactions() {
    local rows="$work/rows" share=1 kind clients="64 256"
    if [[ ${1:-} == --quick ]]; then
        clients=64
        share=4
    fi
    say "bench: etcd"
    launch_etcd "$work/etcd"
    first_answer etcd "$(now)" >/dev/null
    {
        kvbench_row etcd load 4 "$keys" -batch 100
        kvbench_row etcd put 64 "$(operations 64 "$share")"
        kvbench_row etcd swap 64 "$(operations 64 $((2 * share)))"
    } >"$rows"
    stop_server TERM
    rm -rf "$work/etcd"
    # Raw keys and those of transactions do not share a server of version 1.
    for kind in raw txn; do
        say "bench: Pontoon, $kind"
        launch_pontoon "$work/$kind" "$(free_port)"
        first_answer "$kind" "$(now)" >/dev/null
        "measure_$kind" "$share" "$clients" >>"$rows"
        stop_server TERM
        rm -rf "${work:?}/$kind"
    done
    say "bench: Pontoon, three replicas"
    measure_replicated "$share" >>"$rows"
    awk -f bench/txn.awk "$rows"
}

measure_raw() {
    kvbench_row raw load 4 "$keys" -batch 100
    kvbench_row raw put 64 "$(operations 64 "$1")" -size 200
    kvbench_row raw get 64 "$((2 * $(operations 64 "$1")))"
}

measure_txn() {
    local clients
    kvbench_row txn load 4 "$keys" -batch 100
    for clients in $2; do
        kvbench_row txn put "$clients" "$(operations "$clients" "$1")"
        kvbench_row txn get "$clients" "$((2 * $(operations "$clients" "$1")))"
    done
    kvbench_row txn getat 64 "$((2 * $(operations 64 "$1")))"
    kvbench_row txn put2 64 "$(operations 64 "$1")"
    kvbench_row txn swap 64 "$(operations 64 $((2 * $1)))"
    kvbench_row txn2pc put 64 "$(operations 64 $((2 * $1)))"
}

# How long one client waits for a write on three nodes, of each kind in turn; the medians count.
measure_replicated() {
    local kind name operation i
    : >"$work/config"
    for kind in raw txnasync; do
        start_node "$kind-1"
        for name in "$kind-2" "$kind-3"; do
            start_node "$name" "${addresses[$kind-1]}"
        done
        wait_for_replicas "${addresses[$kind-1]}"
    done
    for i in 1 2 3; do
        for kind in raw txnasync; do
            operation=$([[ $kind == raw ]] && echo put || echo commit)
            server_address=${addresses[$kind-1]}
            server_pid=${pids[$kind-1]},${pids[$kind-2]},${pids[$kind-3]}
            kvbench_row "$kind" "$operation" 1 "$(operations 1 "$1")" | sed "s/^$kind/$kind-3/"
        done
    done
    stop_nodes raw-{1,2,3} txnasync-{1,2,3}
}
