#!/usr/bin/env bash
# Shows what oci-hotplug is for: installs what it needs, builds, and runs `oci-hotplug demo`. Root, Debian or Ubuntu.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/prepare.sh

need_to_build
need_to_run
say "building (a few minutes the first time)"
cargo build --release --locked --bins
say "oci-hotplug demo"
exec "${CARGO_TARGET_DIR:-target}/release/oci-hotplug" demo "$@"
