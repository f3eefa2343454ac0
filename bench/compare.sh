# etcd and Pontoon under the same load, one after the other. Sourced by scripts/bench.sh.

compare() {
    local rows="$work/rows" syncs disks clients="1 16 64 256" share=1
    if [[ $1 == --quick ]]; then
        clients="1 16 64"
        share=4
    fi
    disks=("$(disk_sync_ms)")
    say "bench: etcd"
    launch_etcd "$work/etcd"
    first_answer etcd "$(now)" >/dev/null
    load_and_measure etcd "$clients" "$share" >"$rows"
    stop_server TERM
    rm -rf "$work/etcd"
    disks+=("$(disk_sync_ms)")
    say "bench: Pontoon"
    launch_pontoon "$work/pontoon" "$(free_port)"
    first_answer raw "$(now)" >/dev/null
    load_and_measure raw "$clients" "$share" >>"$rows"
    syncs=$(puts_per_sync "$share")
    stop_server TERM
    disks+=("$(disk_sync_ms)")
    # A disk that something else used meanwhile looks slower than it is.
    awk -v disk="$(printf '%s\n' "${disks[@]}" | sort -g | head -n 1)" -v syncs="$syncs" \
        -f bench/compare.awk "$rows"
}

# Milliseconds, at the median, that this disk takes to sync 4 KiB just appended.
disk_sync_ms() {
    say "bench: the disk"
    # What servers and builds wrote before is not to be measured.
    sync --file-system "$work"
    fio --name=sync --directory="$work" --rw=write --bs=4k --size=256m --fallocate=none \
        --ioengine=sync --fdatasync=1 --runtime=5 --output-format=json >"$work/fio.json"
    awk '/"sync" *: *\{/ { sync = 1 }
        sync && /"50.000000"/ { gsub(/[^0-9]/, "", $NF); printf "%.3f\n", $NF / 1e6; exit }' \
        "$work/fio.json"
    rm -f "$work"/sync.*
}

readonly keys=100000

# `kvbench_row KIND OP CLIENTS OPERATIONS [MORE...]`: a row of tab separated fields.
kvbench_row() {
    local kind=$1 op=$2 clients=$3 ops=$4
    shift 4
    "$kvbench" -kind "$kind" -addr "$server_address" -op "$op" -clients "$clients" -ops "$ops" \
        -keys "$keys" -pids "$server_pid" -tsv "$@" || fail "kvbench failed on $kind $op"
}

load_and_measure() {
    local kind=$1 share=$3 clients ops
    kvbench_row "$kind" load 4 "$keys" -batch 100
    for clients in $2; do
        ops=$(operations "$clients" "$share")
        kvbench_row "$kind" put "$clients" "$ops"
        kvbench_row "$kind" get "$clients" "$((2 * ops))"
        kvbench_row "$kind" mix "$clients" "$ops"
    done
}

operations() {
    case $1 in
        1) printf '%s\n' "$((5000 / $2))" ;;
        16) printf '%s\n' "$((50000 / $2))" ;;
        *) printf '%s\n' "$((100000 / $2))" ;;
    esac
}

# How many puts share a sync of the log when 64 clients write.
puts_per_sync() {
    local before ops
    ops=$(operations 64 "$1")
    before=$(metric pontoon_raft_log_syncs_total)
    kvbench_row raw put 64 "$ops" >/dev/null
    awk -v ops="$ops" -v syncs="$(($(metric pontoon_raft_log_syncs_total) - before))" \
        'BEGIN { printf "%.1f\n", ops / (syncs > 0 ? syncs : 1) }'
}
