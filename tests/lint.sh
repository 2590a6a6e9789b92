#!/usr/bin/env bash
# clippy over every target, and over what is built without the feature `kubernetes`.
#
# What it makes of dependencies is kept in ~/.cache/oci-hotplug/clippy, so that a fresh clone need
# not check them again. In target, `cargo build` would replace it.
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
kept=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/clippy
mkdir -p "$kept"
exec 9> "$kept/lock"
flock 9
# A directory for each compiler and set of dependencies. What nobody used for three days goes.
find "$kept" -mindepth 1 -maxdepth 1 -type d -mtime +3 -exec rm -rf {} +
CARGO_TARGET_DIR=$kept/$({ rustc --version; cat Cargo.lock; } | sha256sum | cut -c 1-16)
export CARGO_TARGET_DIR CARGO_INCREMENTAL=0
mkdir -p "$CARGO_TARGET_DIR"
touch "$CARGO_TARGET_DIR"
# cargo goes by time stamps, which say nothing about another clone at the same path.
cargo clean --quiet --locked --package oci-hotplug 9>&-
cargo clippy --locked --features kubernetes --all-targets --test vm -- -D warnings 9>&-
cargo clippy --locked -- -D warnings 9>&-
