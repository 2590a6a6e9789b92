#!/usr/bin/env bash
# Cargo's runner for the test binaries of tests/run.sh (`cargo test --config target.….runner=…`):
# runs one of them with its tests in the order of OCI_HOTPLUG_SEED, keeps its output below
# OCI_HOTPLUG_RUN and records what it came to.
set -uo pipefail
. "$(dirname "$0")/results.sh"

binary=$1
shift
name=${binary##*/}
name=${name%-*}
mkdir -p "$OCI_HOTPLUG_RUN/logs"
number=1
until log=$OCI_HOTPLUG_RUN/logs/$name-$number.log; (set -o noclobber; : > "$log") 2>/dev/null; do
    number=$((number + 1))
done
# Their tests wait for processes and timers more than they compute.
case $name in
    kubernetes | usbip) export RUST_TEST_THREADS=8 ;;
esac
# libtest shuffles, and prints the time of each test, only as unstable options. A stable toolchain's
# libtest accepts those with this variable; it is set for the test binary alone: set while cargo
# builds, it would change what is built.
RUSTC_BOOTSTRAP=1 "$binary" -Z unstable-options --report-time --shuffle-seed "$OCI_HOTPLUG_SEED" "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
record "$name" "$status" "$log"
exit "$status"
