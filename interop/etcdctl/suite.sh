#!/usr/bin/env bash
# Debian's unmodified etcdctl against the release binary: one server (or, with PONTOON_NODES, a cluster),
# and one function for each subject. Run by interop/run, which counts the lines `ok` and `FAILED`.
set -euo pipefail

: "${PONTOON:?names no binary: run ./x interop etcdctl}"
export ETCDCTL_API=3
folder=$(mktemp -d)
server=
trap stop EXIT

# What etcdctl waits for must come within this time, on a busy machine too.
readonly patience=60

stop() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}

# Returns when the server has said that it serves; etcdctl finds it by its environment.
start() {
    local arguments=(start --listen 127.0.0.1:0) line=
    if [[ -n ${PONTOON_NODES:-} ]]; then
        arguments=(dev --listen 127.0.0.1:0 --nodes "$PONTOON_NODES")
    fi
    mkfifo "$folder/ready"
    "$PONTOON" "${arguments[@]}" --data-dir "$folder/data" >"$folder/ready" 2>"$folder/log" &
    server=$!
    read -r -t "$patience" line <"$folder/ready" || true
    if [[ $line != ready\ * ]]; then
        cat "$folder/log"
        printf 'FAILED start: no ready line\n'
        exit 1
    fi
    line=${line#*listen=}
    ETCDCTL_ENDPOINTS=${line%% *}
    export ETCDCTL_ENDPOINTS
}

# `expect WHAT GOT WANTED`
expect() {
    if [[ $2 != "$3" ]]; then
        printf '%s: got\n%s\nwanted\n%s\n' "$1" "$2" "$3" >&2
        return 1
    fi
}

# `refused TEXT COMMAND...`: the command fails and says so.
refused() {
    local text=$1 said
    shift
    if said=$("$@" 2>&1); then
        printf 'not refused: %s\n' "$*" >&2
        return 1
    fi
    [[ $said == *"$text"* ]] || { printf '%s: said %s\n' "$*" "$said" >&2; return 1; }
}

# `until_holds COMMAND...`: waits until the command succeeds.
until_holds() {
    local end=$((SECONDS + patience))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || { printf 'did not come: %s\n' "$*" >&2; return 1; }
        sleep 0.1
    done
}

# `until_lines FILE COUNT`: waits until a file has so many lines.
until_lines() {
    until_holds has_lines "$@"
}

has_lines() {
    (($(wc -l <"$1") >= $2))
}

# A number in etcdctl's JSON: `field NAME`.
field() {
    grep -oE "\"$1\":-?[0-9]+" | head -n 1 | cut -d: -f2
}

revision() {
    etcdctl get "${1:-none}" -w json | field revision
}

put_and_get() {
    expect put "$(etcdctl put pg/a one)" OK
    expect get "$(etcdctl get pg/a)" $'pg/a\none'
    expect 'value only' "$(etcdctl get pg/a --print-value-only)" one
    etcdctl put pg/a two >/dev/null
    expect 'previous value' "$(etcdctl put --prev-kv pg/a three)" $'OK\npg/a\ntwo'
    expect 'a key that is not there' "$(etcdctl get pg/none)" ''
    expect 'an empty value' "$(etcdctl put pg/empty '' && etcdctl get pg/empty)" $'OK\npg/empty'
    refused 'key not found' etcdctl put --ignore-value pg/none
    head -c 1000000 /dev/zero | tr '\0' x | etcdctl put pg/large >/dev/null
    expect 'a large value' "$(etcdctl get pg/large --print-value-only | wc -c)" 1000001
    head -c 2000000 /dev/zero | tr '\0' x >"$folder/too-large"
    refused 'request is too large' etcdctl put pg/large <"$folder/too-large"
}

ranges() {
    local key
    for key in a b ba c; do etcdctl put "r/$key" "$key" >/dev/null; done
    expect prefix "$(etcdctl get --prefix r/b --keys-only | xargs)" 'r/b r/ba'
    expect 'a range' "$(etcdctl get r/a r/c --keys-only | xargs)" 'r/a r/b r/ba'
    expect 'from a key' "$(etcdctl get --from-key r/ba --limit 2 --keys-only | xargs)" 'r/ba r/c'
    expect 'a limit' "$(etcdctl get --prefix r/ --limit 2 --print-value-only | xargs)" 'a b'
    expect 'descending' "$(etcdctl get --prefix r/ --order DESCEND --print-value-only | xargs)" 'c ba b a'
    etcdctl put r/a z >/dev/null
    expect 'by revision' \
        "$(etcdctl get --prefix r/ --sort-by MODIFY --order DESCEND --limit 1 --keys-only | xargs)" r/a
    expect 'by value' "$(etcdctl get --prefix r/ --sort-by VALUE --keys-only | xargs)" 'r/b r/ba r/c r/a'
    expect count "$(etcdctl get --prefix r/ -w fields --limit 1 | grep -c '"Count" : 4')" 1
}

revisions() {
    local first
    etcdctl put rev/a one >/dev/null
    first=$(revision)
    etcdctl put rev/a two >/dev/null
    etcdctl del rev/a >/dev/null
    expect 'the present' "$(etcdctl get rev/a)" ''
    expect 'the past' "$(etcdctl get rev/a --rev "$first" --print-value-only)" one
    expect 'one later' "$(etcdctl get rev/a --rev $((first + 1)) --print-value-only)" two
    refused 'required revision is a future revision' etcdctl get rev/a --rev $((first + 1000))
    etcdctl put rev/b one >/dev/null
    etcdctl put rev/b two >/dev/null
    local entry
    entry=$(etcdctl get rev/b -w json)
    expect version "$(field version <<<"$entry")" 2
    expect 'revisions differ by one' \
        $(($(field mod_revision <<<"$entry") - $(field create_revision <<<"$entry"))) 1
}

deletions() {
    local key
    for key in a b c d; do etcdctl put "d/$key" "$key" >/dev/null; done
    expect 'one' "$(etcdctl del d/a)" 1
    expect 'none' "$(etcdctl del d/a)" 0
    expect 'with what was there' "$(etcdctl del --prev-kv d/b)" $'1\nd/b\nb'
    expect 'a prefix' "$(etcdctl del --prefix d/)" 2
}

transactions() {
    etcdctl put t/a one >/dev/null
    local txn
    txn=$(printf '%s\n' 'value("t/a") = "one"' 'mod("t/none") = "0"' '' \
        'put t/a two' 'get t/a' '' 'put t/b never' '' | etcdctl txn)
    expect success "$(xargs <<<"$txn")" 'SUCCESS OK t/a two'
    txn=$(printf '%s\n' 'version("t/a") > "5"' '' 'put t/b never' '' 'get t/a' 'del t/a' '' | etcdctl txn)
    expect failure "$(xargs <<<"$txn")" 'FAILURE t/a two 1'
    expect 'the other branch' "$(etcdctl get --prefix t/)" ''
    refused 'duplicate key given in txn request' etcdctl txn <<<$'\nput t/c 1\nput t/c 2\n\n\n'
}

leases() {
    local lease other
    lease=$(etcdctl lease grant 600 | awk '{ print $2 }')
    etcdctl put --lease "$lease" l/a 1 >/dev/null
    etcdctl put --lease "$lease" l/b 1 >/dev/null
    [[ $(etcdctl lease timetolive --keys "$lease") == *'granted with TTL(600s)'*'[l/a l/b]'* ]]
    [[ $(etcdctl lease list) == *"$lease"* ]]
    expect 'kept alive' "$(etcdctl lease keep-alive --once "$lease")" "lease $lease keepalived with TTL(600)"
    etcdctl lease revoke "$lease" >/dev/null
    expect 'its keys' "$(etcdctl get --prefix l/)" ''
    refused 'requested lease not found' etcdctl lease revoke "$lease"
    refused 'requested lease not found' etcdctl put --lease "$lease" l/a 1
    [[ $(etcdctl lease timetolive "$lease") == *'already expired'* ]]

    other=$(etcdctl lease grant 2 | awk '{ print $2 }')
    etcdctl put --lease "$other" l/short 1 >/dev/null
    until_holds is_gone l/short
    refused 'requested lease not found' etcdctl lease revoke "$other"

    # One that is kept alive outlives its time.
    other=$(etcdctl lease grant 2 | awk '{ print $2 }')
    etcdctl put --lease "$other" l/kept 1 >/dev/null
    etcdctl lease keep-alive "$other" >"$folder/kept" &
    local keeper=$!
    until_lines "$folder/kept" 6
    expect 'still there' "$(etcdctl get l/kept --print-value-only)" 1
    kill "$keeper"
    until_holds is_gone l/kept
}

is_gone() {
    [[ -z $(etcdctl get "$1") ]]
}

watches() {
    local first watcher
    etcdctl put w/a one >/dev/null
    first=$(revision)
    etcdctl put w/other/b one >/dev/null
    etcdctl watch --prefix w/ --rev "$first" >"$folder/watched" &
    watcher=$!
    until_lines "$folder/watched" 6
    etcdctl put w/a two >/dev/null
    etcdctl del --prefix w/ >/dev/null
    until_lines "$folder/watched" 15
    kill "$watcher"
    expect 'all events in order' "$(xargs <"$folder/watched")" \
        'PUT w/a one PUT w/other/b one PUT w/a two DELETE w/a DELETE w/other/b'

    etcdctl watch --prev-kv w/single >"$folder/single" &
    watcher=$!
    # It tells nothing until something happens: the first put that it sees is not the first one.
    until_holds sees_a_put w/single "$folder/single"
    kill "$watcher"
    grep -q '^PUT$' "$folder/single"
}

sees_a_put() {
    etcdctl put "$1" "$RANDOM" && [[ -s $2 ]]
}

compaction() {
    local first
    etcdctl put c/a one >/dev/null
    first=$(revision)
    etcdctl put c/a two >/dev/null
    etcdctl put c/a three >/dev/null
    expect compacted "$(etcdctl compaction $((first + 1)))" "compacted revision $((first + 1))"
    refused 'required revision has been compacted' etcdctl get c/a --rev "$first"
    refused 'required revision has been compacted' etcdctl compaction "$first"
    refused 'required revision has been compacted' timeout "$patience" etcdctl watch c/a --rev "$first"
    expect 'what is not given up' "$(etcdctl get c/a --rev $((first + 1)) --print-value-only)" two
    expect 'the present' "$(etcdctl get c/a --print-value-only)" three
}

locks() {
    local holder
    expect 'a lock held for a command' "$(etcdctl lock lk/a echo held)" held
    etcdctl lock lk/b >"$folder/lock" &
    holder=$!
    until_lines "$folder/lock" 1
    etcdctl lock lk/b echo second >"$folder/second" &
    local waiter=$!
    until_holds has_two_waiters
    expect 'the second waits' "$(cat "$folder/second")" ''
    kill -INT "$holder"
    wait "$waiter"
    expect 'and then has it' "$(cat "$folder/second")" second
}

has_two_waiters() {
    (($(etcdctl get --prefix lk/b/ --keys-only | grep -c lk/b/) == 2))
}

elections() {
    local first second
    etcdctl elect el one >"$folder/first" &
    first=$!
    until_lines "$folder/first" 2
    etcdctl elect el two >"$folder/second-candidate" &
    second=$!
    timeout "$patience" etcdctl elect -l el >"$folder/observed" &
    local observer=$!
    until_lines "$folder/observed" 2
    expect 'the leader' "$(tail -n 1 "$folder/observed")" one
    kill -INT "$first"
    until_lines "$folder/second-candidate" 2
    expect 'the next' "$(tail -n 1 "$folder/second-candidate")" two
    kill -INT "$second"
    kill "$observer" 2>/dev/null || true
}

members() {
    local list
    list=$(etcdctl member list)
    [[ $list == *started*http://* ]]
    expect 'how many' "$(wc -l <<<"$list")" "${PONTOON_NODES:-1}"
    refused 'Unimplemented' etcdctl member add other --peer-urls http://127.0.0.1:1
}

endpoints() {
    # This etcdctl asks single members under the name that it was given, and HTTP/2 allows no scheme in it:
    # so not --cluster, which takes the members' URLs.
    local each
    each=$(etcdctl member list | awk -F', ' '{ sub("http://", "", $5); print $5 }' | paste -sd, -)
    [[ $(etcdctl endpoint health 2>&1) == *'is healthy'* ]]
    [[ $(etcdctl endpoint status -w json) == *'"leader":'* ]]
    [[ $(ETCDCTL_ENDPOINTS=$each etcdctl endpoint status) == *3.5.0* ]]
    expect 'as many as members' "$(ETCDCTL_ENDPOINTS=$each etcdctl endpoint status | wc -l)" "${PONTOON_NODES:-1}"
    expect 'one hash' "$(ETCDCTL_ENDPOINTS=$each etcdctl endpoint hashkv | awk '{ print $2 }' | sort -u | wc -l)" 1
    expect 'no alarms' "$(etcdctl alarm list)" ''
    [[ $(etcdctl defrag) == *Finished* ]]
}

authentication() {
    expect 'no users' "$(etcdctl user list)" ''
    expect 'no roles' "$(etcdctl role list)" ''
    expect 'a name and a password do no harm' "$(etcdctl get none --user root:secret)" ''
    expect 'it is off' "$(etcdctl auth disable)" 'Authentication Disabled'
}

# The key that transactional clients poll is there for all, and empty at first.
safe_point() {
    local key=/tidb/store/gcworker/saved_safe_point
    expect 'nobody has written it' "$(etcdctl get "$key")" ''
    etcdctl put "$key" 440000000000000000 >/dev/null
    expect 'it is a key like others' "$(etcdctl get "$key" --print-value-only)" 440000000000000000
}

# Leases, keys and revisions outlive the server.
before_restart() {
    local lease
    lease=$(etcdctl lease grant 600 | awk '{ print $2 }')
    etcdctl put --lease "$lease" s/a 1 >/dev/null
    printf '%s\n' "$lease" >"$folder/lease"
    revision >"$folder/revision"
}

after_restart() {
    local before
    before=$(cat "$folder/revision")
    until_holds etcdctl get s/a
    expect 'the revision' "$(revision)" "$before"
    [[ $(etcdctl lease timetolive --keys "$(cat "$folder/lease")") == *'[s/a]'* ]]
    expect 'the next revision' "$(etcdctl put s/b 1 -w json | field revision)" $((before + 1))
}

restart() {
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    "$PONTOON" start --listen "$ETCDCTL_ENDPOINTS" --data-dir "$folder/data" >/dev/null 2>>"$folder/log" &
    server=$!
}

# Runs each in a shell of its own, in the background: there a failed command ends it.
run() {
    local subject
    for subject in "$@"; do
        (
            set -E
            trap - EXIT
            trap 'printf "%s: failed at line %s\n" "$subject" "$LINENO" >&2' ERR
            "$subject"
        ) &
        if wait $!; then
            printf 'ok %s\n' "$subject"
        else
            printf 'FAILED %s\n' "$subject"
            tail -n 5 "$folder/log"
        fi
    done
}

start
run put_and_get ranges revisions deletions transactions leases watches compaction locks elections members \
    endpoints authentication safe_point before_restart
# A node of `pontoon dev` cannot be killed alone.
if [[ -z ${PONTOON_NODES:-} ]]; then
    restart
    run after_restart
fi
