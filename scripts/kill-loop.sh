#!/usr/bin/env bash
# Kills the server under load again and again, and looks for every acknowledged write.
#
#     ./x kill-loop [ROUNDS [SEED]]        20 rounds when nothing is said
#     ./x kill-loop --txn [--nodes 3] ...  transfers between accounts, whose sum stays what it is; of a
#                                          cluster one node is killed in each round
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/clients.sh

need_pontoon
clients_cargo run --quiet --package kill-loop -- "$@"
