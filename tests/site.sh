#!/usr/bin/env bash
# Builds the site of the documents, docs/book.toml, into target/book.
#
#   tests/site.sh              builds it, and draws every diagram in a browser; fails when mdBook or the
#                              browser reports an error
#   tests/site.sh --prepare    only gets mdBook and Mermaid, once for each version, into
#                              ~/.cache/oci-hotplug/tools
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
. packaging/prepare.sh
. tests/cargo-tool.sh

# Mermaid as a file, from the crate that has it: the site loads nothing from other sites, and the
# repository has no generated code. cargo checks and unpacks the crate.
mermaid() {
    local crate=mdbook-mermaid-0.17.1
    local kept=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/tools/$crate.js
    printf '%s\n' "$kept"
    [ -f "$kept" ] && return 0
    need_rust >&2
    cargo info --quiet "${crate%-*}@${crate##*-}" >/dev/null 2>&1 || fail "cargo cannot get the crate $crate"
    mkdir -p "${kept%/*}"
    cp "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate"/src/bin/assets/mermaid.min.js "$kept.part"
    mv "$kept.part" "$kept"
}

# The newest that Rust 1.85 builds. Without search and local server, which need more than half of
# its crates.
mdbook=$(cargo_tool mdbook 0.4.52 --no-default-features)
mermaid=$(mermaid)
[ "${1:-}" != --prepare ] || exit 0
need chromium command -v chromium
install_missing
mkdir -p target
say "mdbook build docs"
# mdBook also reports errors in the log alone.
"$mdbook" build docs 2>&1 | tee target/book.log
! grep -q '\[\(ERROR\|WARN\)\]' target/book.log
cp "$mermaid" target/book/mermaid.min.js

# drawn PAGE: how many diagrams a browser without network draws on a page of the site. Mermaid draws
# a diagram with an error as a picture of that role.
drawn() {
    unshare --net --map-root-user chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=60000 \
        --user-data-dir="$scratch" --dump-dom "file://$PWD/target/book/$1" 2>/dev/null \
        | grep -o 'aria-roledescription="[a-zA-Z0-9-]*"' | grep -vc '"error"' || :
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for page in $(grep -l '^```mermaid' docs/*.md); do
    wanted=$(grep -c '^```mermaid' "$page")
    page=$(basename "$page" .md).html
    found=$(drawn "$page")
    [ "$found" = "$wanted" ] || fail "$page has $wanted diagrams, and $found are drawn"
    say "$page: $found diagrams are drawn"
done
