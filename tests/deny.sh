#!/usr/bin/env bash
# Checks what the product is built of against deny.toml: licences, banned crates, second versions,
# sources.
#
#   tests/deny.sh              everything
#   tests/deny.sh --prepare    only builds the tool: cargo-deny, once for each version, in
#                              ~/.cache/oci-hotplug/tools
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
. packaging/prepare.sh
. tests/cargo-tool.sh

# The newest that Rust 1.85 builds.
version=0.18.3

# check WHAT ARGUMENT...: what these arguments of cargo-deny choose.
check() {
    say "cargo deny: $1"
    shift
    "$deny" --locked "$@"
}

deny=$(cargo_tool cargo-deny "$version")
[ "${1:-}" != --prepare ] || exit 0
root=$(pwd)
failed=0
# What is shipped. Each entry of the configuration must be needed for it, but those for tests.
check "what is shipped" --manifest-path "$root/Cargo.toml" --features kubernetes --exclude-dev check --config "$root/deny.toml" \
    --deny unmatched-skip --allow unused-wrapper --allow license-exception-not-encountered bans licenses sources || failed=1
# What tests bring, too: there a second version of a crate does no harm.
for manifest in Cargo.toml tests/cdi_reference/Cargo.toml tests/fuzz/Cargo.toml; do
    check "$manifest with its tests" --manifest-path "$root/$manifest" --all-features check --config "$root/deny.toml" \
        --allow duplicate --allow unmatched-skip --allow unused-wrapper --allow license-not-encountered \
        --allow license-exception-not-encountered bans licenses sources || failed=1
done
exit $failed
