#!/usr/bin/env bash
# `./x fuzz`: libFuzzer looks for messages, in any order with anything else, that make a node of the consensus
# core panic. What it learns stays in the cache folder, so that the next run goes on from there.
#
#   ./x fuzz [--minutes M]     look for M minutes (10)
#   ./x fuzz FILE...           play what it found, action by action
#
# What cargo-fuzz would ask a nightly compiler for, the stable one does by these flags: it counts edges and
# shows the fuzzer what is compared. Addresses are not checked: our crates have no unsafe code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

# The longest story in bytes, and seconds after which one counts as endless.
readonly bytes_max=2000 seconds_max=10

# Beside the usual folder of what is built, where ./x says that is.
readonly cache="$(dirname "${CARGO_TARGET_DIR:?run it as ./x fuzz}")"
readonly corpus="$cache/fuzz-corpus/step" found="$cache/fuzz-found"
readonly target=$(rustc --version --verbose | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="$cache/fuzz"
readonly fuzzer="$CARGO_TARGET_DIR/$target/release/step"

# With --target the flags hold for what is fuzzed alone, and not for build scripts.
build() {
    local flags=(-Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing -Cllvm-args=-sanitizer-coverage-level=4)
    local option
    for option in trace-compares inline-8bit-counters pc-table; do
        flags+=("-Cllvm-args=-sanitizer-coverage-$option")
    done
    RUSTFLAGS="${flags[*]}" cargo build --release --quiet ${CI:+--locked} \
        --manifest-path fuzz/Cargo.toml --target "$target"
}

look() {
    local minutes=$1
    mkdir -p "$corpus" "$found"
    say "looking for $minutes minutes, on from $(find "$corpus" -type f | wc -l) stories in $corpus"
    if ! "$fuzzer" -max_total_time="$((minutes * 60))" -max_len="$bytes_max" -timeout="$seconds_max" \
        -len_control=20 -artifact_prefix="$found/" -print_final_stats=1 "$corpus" 2>&1 | without_chatter; then
        say "play it again: ./x fuzz $(newest "$found")"
        fail "a story ended badly"
    fi
    say "nothing found"
}

# A line for each new edge is too much; what is left is one whenever the number of stories has doubled.
without_chatter() {
    grep --line-buffered -vE '^#[0-9]+\s+(NEW|REDUCE|RELOAD)|NEW_FUNC|Failed to find function|# Uses:|^######'
}

newest() {
    local file latest=
    for file in "$1"/*; do
        [[ -z $latest || $file -nt $latest ]] && latest=$file
    done
    printf '%s' "$latest"
}

minutes=10
if [[ ${1:-} == --minutes ]]; then
    minutes=${2:?how many minutes?}
    [[ $minutes =~ ^[0-9]+$ ]] || fail "minutes are a whole number, not '$minutes'"
    shift 2
fi
build
if (($#)); then
    PONTOON_FUZZ_SHOW=1 exec "$fuzzer" -timeout="$seconds_max" "$@"
fi
look "$minutes"
