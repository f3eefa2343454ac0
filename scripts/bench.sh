#!/usr/bin/env bash
# This machine's figures.
#
#     ./x bench              put, get and mix at 1, 16, 64 and 256 clients: etcd and Pontoon in turn
#     ./x bench --quick      the same, fewer operations, up to 64 clients
#     ./x bench txn [--quick]   transactions beside etcd's and beside raw calls
#     ./x bench start        how long starts and stops take, bulk load, memory, idle processor time, disk
#     ./x bench regions      what 10,000 regions on one node cost
#     ./x bench cluster      three nodes beside one, and what it takes to move a large region
#
# Nothing else should run meanwhile. Servers run on fresh folders of the same disk, and each is ended by
# its process id, however this script ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/clients.sh
source bench/servers.sh

need_pontoon
need_go
kvbench="$clients_folder/kvbench"
env -C bench/kvbench go build -o "$kvbench" .

case "${1:-}" in
    '' | --quick)
        need_debian_packages etcd-server fio
        source bench/compare.sh
        compare "${1:-}"
        ;;
    txn)
        need_debian_packages etcd-server
        source bench/compare.sh
        source bench/nodes.sh
        source bench/txn.sh
        transactions "${2:-}"
        ;;
    start)
        source bench/figures.sh
        figures
        ;;
    cluster)
        source bench/figures.sh
        source bench/nodes.sh
        source bench/cluster.sh
        cluster
        ;;
    regions)
        source bench/figures.sh
        source bench/regions.sh
        regions
        ;;
    *) fail "unknown argument '$1': ./x bench [--quick], ./x bench txn|start|regions|cluster" ;;
esac
