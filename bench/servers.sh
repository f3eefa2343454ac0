# Servers under measurement: on fresh folders, ended by their process ids. Sourced.

# On the disk of the builds, which is no memory file system as /tmp may be.
work=$(mktemp -d "$clients_folder/bench.XXXXXX")
server_pid=
server_address=
# Of scripts that run several.
all_pids=()

end_all() {
    local pid
    for pid in $server_pid "${all_pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap end_all EXIT
trap 'exit 130' INT TERM

# A port nobody listens on just now.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    printf '%s\n' "$port"
}

# `launch_pontoon FOLDER PORT [FLAGS...]`: returns at once; the server's line goes into the file FOLDER.ready.
launch_pontoon() {
    server_address=127.0.0.1:$2
    "$PONTOON" start --data-dir "$1" --listen "$server_address" "${@:3}" >"$1.ready" 2>>"$1.log" &
    server_pid=$!
}

# `launch_etcd FOLDER`: with its defaults, and so with every write synced.
launch_etcd() {
    local client peer
    client=$(free_port)
    peer=$(free_port)
    server_address=127.0.0.1:$client
    etcd --data-dir "$1" --logger zap --log-level error \
        --listen-client-urls "http://$server_address" --advertise-client-urls "http://$server_address" \
        --listen-peer-urls "http://127.0.0.1:$peer" \
        --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "default=http://127.0.0.1:$peer" >"$1.log" 2>&1 &
    server_pid=$!
}

# `first_answer KIND SINCE [KEY]`: waits until a put succeeds, or a get of KEY, and prints how many
# milliseconds after SINCE that was.
first_answer() {
    local times
    times=$("$kvbench" -kind "$1" -op probe -addr "$server_address" -tikv "$server_address" \
        -since "$2" -probekey "${3:-}") || fail "the server did not start: see $work"
    printf '%s\n' "${times##*$'\t'}"
}

now() { date +%s%N; }

# `stop_server SIGNAL`: returns when it is gone.
stop_server() {
    kill "-$1" "$server_pid"
    wait "$server_pid" 2>/dev/null || true
    server_pid=
}

# User and system time of the server, in hundredths of a second.
server_ticks() {
    local stat fields
    stat=$(<"/proc/$server_pid/stat")
    read -r -a fields <<<"${stat##*) }"
    printf '%s\n' "$((fields[11] + fields[12]))"
}

# Resident memory of the server in MiB.
server_memory() { awk '/^VmRSS:/ { printf "%.0f\n", $2 / 1024 }' "/proc/$server_pid/status"; }

# `metric NAME`: a number of the server's /metrics page.
metric() {
    exec 3<>"/dev/tcp/${server_address%:*}/${server_address##*:}"
    printf 'GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n' "$server_address" >&3
    awk -v name="$1" '$1 == name { print $2 }' <&3
    exec 3<&-
}

# The median of its arguments.
median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
