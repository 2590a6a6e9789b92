#!/usr/bin/env bash
# Shows what oci-hotplug does: installs what it needs, builds, and runs `oci-hotplug demo`. Needs
# root, and Debian or Ubuntu.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1-}" in
    -h | --help)
        echo "usage: sudo packaging/try.sh [OPTION OF oci-hotplug demo]..."
        echo "Installs what the demonstration needs, builds the programs, and runs oci-hotplug demo."
        exit 0
        ;;
esac
. packaging/prepare.sh

need_to_build
need_to_run
say "building (a few minutes the first time)"
cargo build --release --locked --bins
say "oci-hotplug demo"
exec "${CARGO_TARGET_DIR:-target}/release/oci-hotplug" demo "$@"
