# Reads rows of kvbench, of etcd and of raw; prints both side by side, and what was to be reached.
#
# E is how many puts of 64 clients etcd carried in a second of its processor time: what everything else
# is measured by, because it blurs little from machine to machine.

BEGIN { FS = "\t" }

{
    at = $2 SUBSEP $3
    rate[$1, at] = $6; p50[$1, at] = $7; p99[$1, at] = $8; each[$1, at] = $10
    if ($1 == "etcd") order[++rows] = at
}

END {
    E = each["etcd", "put", 64]
    if (E == 0) { print "bench: etcd's put at 64 clients is missing"; exit 1 }
    print_table()
    printf "\nE = %d puts a server CPU second; the disk syncs 4 KiB in %.3f ms at the median\n\n", E, disk
    print_targets()
}

function print_table(    i, at, parts) {
    printf "%-5s %8s |%9s %8s %8s %9s |%9s %8s %8s %9s %7s\n", "", "",
        "etcd", "p50 ms", "p99 ms", "per CPU s", "Pontoon", "p50 ms", "p99 ms", "per CPU s", "/ E"
    for (i = 1; i <= rows; i++) {
        at = order[i]
        split(at, parts, SUBSEP)
        printf "%-5s %8d |%9d %8.2f %8.2f %9d |%9d %8.2f %8.2f %9d %7.2f\n", parts[1], parts[2],
            rate["etcd", at], p50["etcd", at], p99["etcd", at], each["etcd", at],
            rate["raw", at], p50["raw", at], p99["raw", at], each["raw", at], each["raw", at] / E
    }
}

function print_targets(    clients) {
    printf "%-58s %10s %10s\n", "what is to be reached", "target", "here"
    target("put per server CPU second, 64 clients, in E", 3.2, each["raw", "put", 64] / E)
    target("get per server CPU second, 64 clients, in E", 4.7, each["raw", "get", 64] / E)
    target("put per server CPU second, 16 clients, in E", 1.2, each["raw", "put", 16] / E)
    target("get per server CPU second, 16 clients, in E", 3.1, each["raw", "get", 16] / E)
    for (clients = 64; clients <= 256; clients *= 4) {
        if (!(("raw", "put", clients) in rate)) continue
        target("put a second, " clients " clients, in etcd's puts", 2,
            rate["raw", "put", clients] / rate["etcd", "put", clients])
        target("get a second, " clients " clients, in etcd's puts", 3,
            rate["raw", "get", clients] / rate["etcd", "put", clients])
    }
    target("puts that share a sync, 64 clients", 8, syncs)
    at_most("p50 of one client's put, in syncs of the disk", 3, p50["raw", "put", 1] / disk)
}

function target(what, least, here) {
    printf "%-58s %10s %10.2f  %s\n", what, ">= " least, here, (here >= least ? "ok" : "missed")
}

function at_most(what, most, here) {
    printf "%-58s %10s %10.2f  %s\n", what, "<= " most, here, (here <= most ? "ok" : "missed")
}
