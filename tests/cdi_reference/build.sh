#!/usr/bin/env bash
# Prints the path of the program of this directory, and builds it, once for each version of its
# sources, in ~/.cache/oci-hotplug/tools.
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")"
. ../../packaging/prepare.sh
. ../cargo-tool.sh

version=$(cat Cargo.toml Cargo.lock src/main.rs | sha256sum | cut -c 1-16)
# The library says that it needs Rust 1.86, and works with 1.85. What the tests' runner sets for a
# test binary is not meant for a build.
export -n RUSTC_BOOTSTRAP
cargo_tool oci-hotplug-cdi-reference "$version" --path . --ignore-rust-version
