# Starts, stops, bulk load, memory, idle, disk. Sourced by scripts/bench.sh.

readonly rows_loaded=1000000
readonly last_key=kvbench:000000999999
readonly idle_seconds=30

figures() {
    printf '%-58s %12s %12s\n' "what is to be reached" target here
    first_starts
    idle
    bulk_load
    loaded
}

# `figure WHAT at-most|at-least TARGET UNIT HERE`
figure() {
    awk -v what="$1" -v which="$2" -v target="$3" -v unit="$4" -v here="$5" 'BEGIN {
        ok = which == "at-most" ? here <= target : here >= target
        printf "%-58s %12s %12s  %s\n", what,
            (which == "at-most" ? "<= " : ">= ") target unit, here unit, ok ? "ok" : "missed"
    }'
}

first_starts() {
    local folder="$work/first" times=() since i
    for i in {1..10}; do
        since=$(now)
        launch_pontoon "$folder" "$(free_port)"
        times+=("$(first_answer raw "$since")")
        stop_server TERM
        rm -rf "$folder"
    done
    figure "empty folder to first acknowledged put, median of 10" at-most 250 " ms" \
        "$(median "${times[@]}")"
}

idle() {
    local folder="$work/idle" before
    launch_pontoon "$folder" "$(free_port)"
    first_answer raw "$(now)" >/dev/null
    before=$(server_ticks)
    sleep "$idle_seconds"
    figure "memory after $idle_seconds s on an empty folder" at-most 48 " MiB" "$(server_memory)"
    figure "processor time while idle, of one core" at-most 0.5 " %" \
        "$(awk -v ticks="$(($(server_ticks) - before))" -v s="$idle_seconds" \
            'BEGIN { printf "%.2f", ticks / s }')"
    figure "disk use of an empty store" at-most 32 " MiB" "$(du -sm "$folder" | cut -f1)"
    stop_server TERM
    rm -rf "$folder"
}

bulk_load() {
    local folder="$work/bulk" before
    launch_pontoon "$folder" "$(free_port)"
    first_answer raw "$(now)" >/dev/null
    before=$(server_ticks)
    "$PONTOON" bench raw load --addr "$server_address" --keys "$rows_loaded" --batch 250 \
        --value-size 100 --clients 4 --json >/dev/null 2>&1 || fail "the bulk load failed"
    figure "rows in batches of 250 per server CPU second" at-least 400000 "" \
        "$((rows_loaded * 100 / ($(server_ticks) - before)))"
    figure "memory with $rows_loaded rows loaded" at-most 160 " MiB" "$(server_memory)"
    stop_server TERM
    rm -rf "$folder"
}

# Restarts on a folder that client-go has filled: clean ones and after SIGKILL in turn.
loaded() {
    local folder="$work/loaded" clean=() killed=() stops=() since i
    launch_pontoon "$folder" "$(free_port)"
    first_answer raw "$(now)" >/dev/null
    "$kvbench" -kind raw -addr "$server_address" -op load -batch 250 -clients 4 \
        -ops "$rows_loaded" -keys "$rows_loaded" >/dev/null || fail "the load failed"
    for i in {1..3}; do
        since=$(now)
        stop_server TERM
        stops+=("$((($(now) - since) / 1000000))")
        since=$(now)
        launch_pontoon "$folder" "$(free_port)"
        clean+=("$(first_answer raw "$since" "$last_key")")
        stop_server KILL
        since=$(now)
        launch_pontoon "$folder" "$(free_port)"
        killed+=("$(first_answer raw "$since" "$last_key")")
    done
    stop_server TERM
    rm -rf "$folder"
    figure "stop on SIGTERM, $rows_loaded rows, median of 3" at-most 1000 " ms" \
        "$(median "${stops[@]}")"
    figure "clean restart to first read, median of 3" at-most 700 " ms" "$(median "${clean[@]}")"
    figure "restart after SIGKILL to first read, median of 3" at-most 700 " ms" \
        "$(median "${killed[@]}")"
}
