#!/usr/bin/env bash
# Runs the fuzz targets: README.md here.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]    each target (all of them) for so long (60 s)
#   tests/fuzz/run.sh --minimise [TARGET...]   what was found worth keeping goes to tests/corpus
set -euo pipefail
cd "$(dirname "$0")/../.."
fuzz=tests/fuzz
working=${OCI_HOTPLUG_FUZZ_DIR:-$fuzz/corpus}
options=(-s none --fuzz-dir "$fuzz")
[ -z "${CARGO_TARGET_DIR:-}" ] || options+=(--target-dir "$CARGO_TARGET_DIR/fuzz")

minimise=
seconds=60
case ${1:-} in
    --minimise) minimise=yes; shift ;;
    [0-9]*) seconds=$1; shift ;;
esac
if [ $# -gt 0 ]; then
    targets=("$@")
else
    mapfile -t targets < <(cargo fuzz list --fuzz-dir "$fuzz")
fi
cargo fuzz build "${options[@]}"
for target in "${targets[@]}"; do
    mkdir -p "$working/$target" "tests/corpus/$target"
    if [ -n "$minimise" ]; then
        # Small inputs say as much as large ones, and are read by people.
        fresh=$(mktemp -d)
        cargo fuzz run "${options[@]}" "$target" "$fresh" "tests/corpus/$target" "$working/$target" -- -merge=1 -max_len=1024
        # Some of each length are enough for the replay; the fuzzer finds the others again by
        # itself.
        kept=$(find "$fresh" -type f | wc -l)
        rm -rf "tests/corpus/$target"
        mkdir "tests/corpus/$target"
        ls -S "$fresh" | awk -v step=$(((kept + 79) / 80)) 'NR % step == 0' \
            | while read -r file; do cp "$fresh/$file" "tests/corpus/$target/${file:0:12}"; done
        rm -rf "$fresh"
    else
        # What is new is written into the first directory.
        cargo fuzz run "${options[@]}" "$target" "$working/$target" "tests/corpus/$target" -- \
            -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1
    fi
done
