# Reads rows of kvbench, of etcd, raw and txn (`-3`: on three nodes); prints them, and what was to be
# reached. Of rows of one kind the one with the median of p50 counts.
#
# E is how many puts of 64 clients etcd carried in a second of its processor time.

BEGIN { FS = "\t" }

{
    at = $1 SUBSEP $2 SUBSEP $3
    if (!(at in runs)) order[++rows] = at
    # In the order of p50.
    for (i = runs[at]++; i > 0 && run[at, i - 1, 7] > $7 + 0; i--)
        for (field = 6; field <= 10; field++) run[at, i, field] = run[at, i - 1, field]
    for (field = 6; field <= 10; field++) run[at, i, field] = $field + 0
}

END {
    for (at in runs) {
        middle = int(runs[at] / 2)
        rate[at] = run[at, middle, 6]; p50[at] = run[at, middle, 7]
        p99[at] = run[at, middle, 8]; each[at] = run[at, middle, 10]
    }
    E = each["etcd", "put", 64]
    if (E == 0) { print "bench: etcd's put at 64 clients is missing"; exit 1 }
    printf "%-10s %-6s %8s %9s %8s %8s %9s %7s\n", "", "", "clients", "a second", "p50 ms", "p99 ms",
        "per CPU s", "/ E"
    for (i = 1; i <= rows; i++) {
        at = order[i]
        split(at, parts, SUBSEP)
        printf "%-10s %-6s %8d %9d %8.2f %8.2f %9d %7.2f\n", parts[1], parts[2], parts[3], rate[at],
            p50[at], p99[at], each[at], each[at] / E
    }
    printf "\nE = %d puts a server CPU second\n\n%-58s %10s %10s\n", E, "what is to be reached",
        "target", "here"
    for (clients = 64; clients <= 256; clients *= 4) {
        if (!(("txn", "put", clients) in rate)) continue
        least("put per server CPU second, " clients " clients, in E", clients == 64 ? 1.25 : 1.9,
            each["txn", "put", clients] / E)
        least("get per server CPU second, " clients " clients, in E", clients == 64 ? 2.7 : 4.1,
            each["txn", "get", clients] / E)
    }
    least("swap per server CPU second, in etcd's", 3,
        each["txn", "swap", 64] / each["etcd", "swap", 64])
    least("get at a timestamp a second, 64 clients, in raw gets", 0.8,
        rate["txn", "getat", 64] / rate["raw", "get", 64])
    most("CPU of two keys in one phase, in raw puts of their bytes", 1.6,
        each["raw", "put", 64] / each["txn", "put2", 64])
    most("p50 of an asynchronous commit, in replicated raw puts", 1.4,
        p50["txnasync-3", "commit", 1] / p50["raw-3", "put", 1])
}

function least(what, target, here) {
    printf "%-58s %10s %10.2f  %s\n", what, ">= " target, here, (here >= target ? "ok" : "missed")
}

function most(what, target, here) {
    printf "%-58s %10s %10.2f  %s\n", what, "<= " target, here, (here <= target ? "ok" : "missed")
}
