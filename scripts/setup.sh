# What a build needs of the machine. Sourced by ./x and by the scripts beside this file.
#
# As root on Debian (or Ubuntu) missing packages are installed, quietly; anywhere else they are named.

say() { printf 'x: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

# Everything `./x run`, `test` and `check` need: a C++ compiler and libclang for RocksDB, and Rust.
need_build_tools() {
    need_debian_packages g++ libclang-dev
    need_rust
    leave_no_stale_crates
}

# Installs those of the Debian packages named that are missing, or says what to install.
need_debian_packages() {
    if ! command -v dpkg-query >/dev/null; then
        need_elsewhere
        return
    fi
    local missing=() package
    for package in "$@"; do
        debian_has "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        fail "please install: sudo apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    apt_get_install "${missing[@]}" || fail "apt-get could not install: ${missing[*]}"
}

debian_has() {
    [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

apt_get_install() {
    local log
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if apt-get install --yes --no-install-recommends "$@" >"$log" 2>&1 ||
        { apt-get update && apt-get install --yes --no-install-recommends "$@"; } >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    cat "$log" >&2
    rm -f "$log"
    return 1
}

# Not Debian: look for the programs themselves. libclang is found by the build, which names it if it fails.
need_elsewhere() {
    command -v c++ >/dev/null || fail "please install a C++ compiler and libclang (clang-devel, llvm)"
}

# Cargo and the toolchain that rust-toolchain.toml names.
need_rust() {
    command -v cargo >/dev/null || fail "please install Rust: https://rustup.rs"
    command -v rustup >/dev/null || return 0
    local wanted
    wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if ! rustup toolchain list | grep -q "^$wanted-"; then
        say "installing Rust $wanted"
        rustup toolchain install "$wanted" --profile minimal --component clippy,rustfmt >/dev/null ||
            use_installed_rust "$wanted"
    fi
}

# No toolchain can be fetched: take the one that is there, if it is new enough.
use_installed_rust() {
    local wanted=$1 have toolchain
    toolchain=$(rustup default 2>/dev/null | cut -d' ' -f1)
    have=$(RUSTUP_TOOLCHAIN=$toolchain rustc --version 2>/dev/null | cut -d' ' -f2)
    if [[ -z $have || $(printf '%s\n' "$wanted" "$have" | sort --version-sort | head -n 1) != "$wanted" ]]; then
        fail "Rust $wanted is needed and could not be installed (there is: ${have:-none})"
    fi
    say "Rust $wanted could not be installed; going on with $have"
    export RUSTUP_TOOLCHAIN=$toolchain
}

# Clones share one build folder, and Cargo tells their crates apart by file times only. After a build
# from another clone, forget ours (not the other crates'), so that nothing stale is taken for fresh.
leave_no_stale_crates() {
    local stamp="$CARGO_TARGET_DIR/last-clone"
    mkdir -p "$CARGO_TARGET_DIR"
    if [[ -f $stamp && $(<"$stamp") != "$PWD" ]]; then
        rm -rf "$CARGO_TARGET_DIR"/*/.fingerprint/pontoon-*
    fi
    printf '%s\n' "$PWD" >"$stamp"
}

# RocksDB, compiled once a machine and handed to every build.
#
# Left to itself, Cargo compiles it again for each set of packages that is built: the features of what its
# build script uses differ between `--workspace` and `--package`. So the library of the first build is kept,
# and its build script is told where it is.
need_rocksdb() {
    [[ -z ${ROCKSDB_LIB_DIR:-} ]] || return 0
    local version folder
    version=$(sed -n '/^name = "rust-librocksdb-sys"/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
    folder="${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/rocksdb"
    if [[ ! -f $folder/librocksdb.a || $(cat "$folder/version" 2>/dev/null) != "$version" ]]; then
        say "compiling RocksDB: this takes a while, and only once a machine"
        cargo build --release --package pontoon-storage
        keep_rocksdb "$folder" "$version"
    fi
    ROCKSDB_INCLUDE_DIR=$(rocksdb_source "$version")/rocksdb/include
    export ROCKSDB_INCLUDE_DIR ROCKSDB_LIB_DIR=$folder ROCKSDB_STATIC=1
}

# `keep_rocksdb FOLDER VERSION`: keeps the library that Cargo built last.
keep_rocksdb() {
    local built
    mapfile -t built < <(ls -t "$CARGO_TARGET_DIR"/release/build/rust-librocksdb-sys-*/out/librocksdb.a)
    mkdir -p "$1"
    cp "${built[0]}" "$1/librocksdb.a.new"
    mv "$1/librocksdb.a.new" "$1/librocksdb.a"
    printf '%s\n' "$2" >"$1/version"
}

# Where Cargo unpacks the sources of a version: the headers lie there.
rocksdb_source() {
    local pattern="${CARGO_HOME:-$HOME/.cargo}/registry/src/*/rust-librocksdb-sys-$1"
    compgen -G "$pattern" >/dev/null || cargo fetch >&2
    compgen -G "$pattern" | head -n 1
}
