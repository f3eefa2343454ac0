# What those need who use clients from their registries: interop/, examples/ and bench/. Sourced.

source scripts/setup.sh

# Where their builds go: out of the clone, like the server's, and beside it, because their
# dependencies are others.
clients_folder="${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/interop"
mkdir -p "$clients_folder"

need_pontoon() {
    [[ -x ${PONTOON:-} ]] || fail "PONTOON names no binary: run this through ./x"
    export PONTOON
}

# Cargo in the workspace of those that use the crate tikv-client.
clients_cargo() {
    local command=$1
    shift
    CARGO_TARGET_DIR="$clients_folder" \
        cargo "$command" --locked --manifest-path interop/rust/Cargo.toml "$@"
}

# Go, from Debian when there is none. The build cache is kept with the other builds.
need_go() {
    export GOCACHE="$clients_folder/go-build"
    command -v go >/dev/null && return
    need_debian_packages golang-go
    command -v go >/dev/null || fail "please install Go: https://go.dev"
}

# Whether the Go on this machine is at least of a version.
go_is_at_least() {
    local have
    have=$(go env GOVERSION)
    [[ $(printf '%s\n' "$1" "${have#go}" | sort --version-sort | head -n 1) == "$1" ]]
}
