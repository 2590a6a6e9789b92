#!/usr/bin/env bash
# Builds the site of the documents, docs/book.toml, into target/book.
#
#   tests/site.sh              builds it, and draws every diagram in a browser; fails when mdBook or
#                              the browser reports an error
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
# WebKit and not Chromium or Firefox, which Ubuntu has only as snaps.
need gir1.2-webkit2-4.1 /usr/bin/python3 -c 'import gi; gi.require_version("WebKit2", "4.1")'
need python3-gi /usr/bin/python3 -c "import gi"
need xvfb command -v xvfb-run
need xauth command -v xauth
install_missing
mkdir -p target
say "mdbook build docs"
# mdBook also reports errors in the log alone.
"$mdbook" build docs 2>&1 | tee target/book.log
! grep -q '\[\(ERROR\|WARN\)\]' target/book.log
cp "$mermaid" target/book/mermaid.min.js

# Diagrams of the page, for each page that has some.
pages=()
for page in $(grep -l '^```mermaid' docs/*.md); do
    pages+=("target/book/$(basename "$page" .md).html=$(grep -c '^```mermaid' "$page")")
done
# Without a network: the site loads nothing from other sites.
say "diagrams of ${#pages[@]} pages in a browser"
unshare --net --map-root-user xvfb-run -a /usr/bin/python3 tests/drawn.py "${pages[@]}"
