#!/usr/bin/env bash
# Builds the site of the documents, docs/book.toml, into target/book.
#
#   tests/site.sh              builds it; fails when mdBook reports an error
#   tests/site.sh --prepare    only builds the tool: mdBook, once for each version, in ~/.cache/oci-hotplug/tools
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
. packaging/prepare.sh
. tests/cargo-tool.sh

# The newest that Rust 1.85 builds. Without search and local server, which need more than half of its crates.
mdbook=$(cargo_tool mdbook 0.4.52 --no-default-features)
[ "${1:-}" != --prepare ] || exit 0
mkdir -p target
say "mdbook build docs"
# mdBook also reports errors in the log alone.
"$mdbook" build docs 2>&1 | tee target/book.log
! grep -q '\[\(ERROR\|WARN\)\]' target/book.log
