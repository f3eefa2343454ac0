# What many regions cost one node. Sourced by scripts/bench.sh.

readonly regions_wanted=${REGIONS:-10000}
readonly regions_idle_seconds=60

regions() {
    local folder="$work/regions" before after since first
    printf '%-58s %12s %12s\n' "what is to be reached" target here
    launch_pontoon "$folder" "$(free_port)"
    first_answer raw "$(now)" >/dev/null
    "$kvbench" -kind raw -addr "$server_address" -op load -batch 250 -clients 1 -ops 1000 -keys 1000 \
        >/dev/null || fail "the load failed"
    sleep 10
    before=$(server_memory_kib)
    "$PONTOON" bench regions "$regions_wanted" --addr "$server_address" || fail "no regions"
    # All of them go to sleep, and the placement driver has heard of each.
    sleep 30
    after=$(server_memory_kib)
    regions_idle "just after $regions_wanted splits" "$after"
    stop_server TERM
    since=$(now)
    launch_pontoon "$folder" "$(free_port)"
    first=$(first_answer raw "$since" kvbench:000000000999)
    figure "restart with $regions_wanted regions to first read" at-most 3000 " ms" "$first"
    sleep 30
    regions_idle "after a restart" "$(server_memory_kib)"
    printf '%-58s %12s %12s  bytes\n' "memory of a region, from the growth by all of them" "" \
        "$(((after - before) * 1024 / regions_wanted))"
    printf '%-58s %12s %12s  bytes\n' "disk of a region" "" \
        "$(($(du -sk "$folder" | cut -f1) * 1024 / regions_wanted))"
    stop_server TERM
    rm -rf "$folder"
}

server_memory_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$server_pid/status"; }

# `regions_idle WHEN KIB`
regions_idle() {
    local ticks
    figure "resident memory $1" at-most 400 " MiB" "$(($2 / 1024))"
    ticks=$(server_ticks)
    sleep "$regions_idle_seconds"
    figure "processor time while idle $1, of one core" at-most 2 " %" \
        "$(awk -v ticks="$(($(server_ticks) - ticks))" -v s="$regions_idle_seconds" \
            'BEGIN { printf "%.2f", ticks / s }')"
}
