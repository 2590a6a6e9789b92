#!/usr/bin/env bash
# Checks what the product is built of against tests/deny.toml: licences, banned crates, second versions, sources.
#
#   tests/deny.sh              everything
#   tests/deny.sh --prepare    only builds the tool: cargo-deny, once for each version, in ~/.cache/oci-hotplug/tools
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
. packaging/prepare.sh

# The newest that Rust 1.85 builds.
version=0.18.3
tools=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/tools
deny=$tools/cargo-deny-$version

# Builds cargo-deny unless it is there. The other one that is about to build it, in the background say, is waited for.
prepare() {
    [ -x "$deny" ] && return 0
    need_to_build
    mkdir -p "$tools"
    (
        flock 9
        [ -x "$deny" ] && exit 0
        say "building cargo-deny $version"
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        # Its checks take a second either way: what counts is how soon it is built.
        CARGO_TARGET_DIR=$scratch/target CARGO_PROFILE_DEV_DEBUG=0 \
            cargo install --quiet --locked --debug --root "$scratch" "cargo-deny@$version" 9>&-
        mv "$scratch/bin/cargo-deny" "$deny"
    ) 9>"$tools/lock"
}

# check WHAT ARGUMENT...: what these arguments of cargo-deny choose.
check() {
    say "cargo deny: $1"
    shift
    "$deny" --locked "$@"
}

prepare
[ "${1:-}" != --prepare ] || exit 0
root=$(pwd)
failed=0
# What is shipped. Each entry of the configuration must be needed for it, but those for tests.
check "what is shipped" --manifest-path "$root/Cargo.toml" --features kubernetes --exclude-dev check --config "$root/tests/deny.toml" \
    --deny unmatched-skip --allow unused-wrapper --allow license-exception-not-encountered bans licenses sources || failed=1
# What tests bring, too: there a second version of a crate does no harm.
for manifest in Cargo.toml tests/fuzz/Cargo.toml; do
    check "$manifest with its tests" --manifest-path "$root/$manifest" --all-features check --config "$root/tests/deny.toml" \
        --allow duplicate --allow unmatched-skip --allow unused-wrapper --allow license-not-encountered \
        --allow license-exception-not-encountered bans licenses sources || failed=1
done
exit $failed
