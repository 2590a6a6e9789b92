#!/usr/bin/env bash
# Compares oci-hotplug with lowRISC's container-hotplug on this machine (tests/bench/README.md):
# builds the commit that is checked out in CHECKOUT and runs both in turns. As root, on cgroup v2.
#
#   tests/bench/peer.sh [--filter FILE] CHECKOUT [SECTION]...
#                                     prints tables; the last one is for docs/comparison.md
#   tests/bench/peer.sh --sources CHECKOUT DIRECTORY
#                                     only writes the sources that are built into DIRECTORY
#
# CHECKOUT stays as it is: the copy has two changes, both below in `sources`. Its device filter is
# FILE, which was compiled from it elsewhere; or compiled as the project does it if bpf-linker is
# installed, and a nightly toolchain with rust-src; otherwise peer/filter.c takes its place.
# Executables are kept in ~/.cache/oci-hotplug/peer, one for each commit and filter. An interruption
# ends everything that was started and removes everything else.
set -euo pipefail
export HOME=${HOME:-/root}
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../packaging/prepare.sh"

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

# A build in the background, in a process group with this number.
building=
# The benchmark, which ends and cleans up when nobody holds descriptor 9 any more.
measuring=
scratch=

clean_up() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$building" ] || { kill -- "-$building" 2>/dev/null || :; wait "$building" || :; }
    exec 9>&-
    [ -z "$measuring" ] || wait "$measuring" || :
    [ -z "$scratch" ] || rm -rf "$scratch"
    exit "$status"
}

# Runs a program so that an interruption of this script is handled at once.
in_background() {
    local status=0
    setsid "$@" &
    building=$!
    wait "$building" || status=$?
    building=
    return "$status"
}

# build_in DIRECTORY: cargo reads its settings from there.
build_in() { in_background env -u CARGO_TARGET_DIR -C "$1" cargo build --quiet --release --locked; }

# change FILE OLD NEW: replaces OLD, which exactly one line of FILE must have.
change() {
    local text
    [ "$(grep -cF -- "$2" "$1" 2>/dev/null || :)" = 1 ] \
        || fail "${1##*/} of this commit does not have $2 in exactly one line: adapt tests/bench/peer.sh"
    text=$(cat "$1")
    printf '%s\n' "${text/"$2"/"$3"}" > "$1"
}

# sources CHECKOUT DIRECTORY: the commit's files with the changes.
sources() {
    git -C "$1" archive --format=tar HEAD | tar -x -C "$2"
    # The filter is built before the program, which has it included.
    [ -f "$2/build.rs" ] || fail "$1 has no build.rs: it is not container-hotplug"
    echo 'fn main() {}' > "$2/build.rs"
    # The machine's log would get a line for each event, if it has one at all.
    change "$2/src/util/log.rs" '"/dev/log"' \
        'std::path::Path::new(&std::env::var_os("OCI_HOTPLUG_PEER").unwrap()).join("log")'
}

# filter DIRECTORY own|c|given: puts the device filter where the program includes it from.
filter() {
    local place=$1/cgroup_device_filter/target/bpfel-unknown-none/release
    case $2 in
        own) build_in "$1/cgroup_device_filter" ;;
        given) mkdir -p "$place"; cp "$given" "$place/cgroup_device_filter" ;;
        c)
            mkdir -p "$place"
            clang -O2 -Wall -Werror -target bpf -c "$here/peer/filter.c" -o "$place/cgroup_device_filter"
            ;;
    esac
}

# Sets `program`, the directory with the executables, and `kind`, which filter they have. Builds
# them unless they are kept.
build() {
    local kept=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/peer version copy=$scratch/sources
    version=$commit-$({ declare -f change sources; cat "$here/peer/filter.c" ${given:+"$given"}; } | sha256sum | cut -c 1-12)
    if [ -n "$given" ]; then kind=given; elif command -v bpf-linker >/dev/null; then kind=own; else kind=c; fi
    program=$kept/$version-$kind
    [ ! -d "$program" ] || return 0
    need_to_build
    mkdir "$copy"
    sources "$checkout" "$copy"
    say "building container-hotplug $commit"
    if [ $kind = own ] && ! filter "$copy" own; then
        say "its filter cannot be compiled here: taking tests/bench/peer/filter.c"
        kind=c
        program=$kept/$version-$kind
    fi
    if [ $kind = c ]; then
        need clang command -v clang
        install_missing
    fi
    [ $kind = own ] || filter "$copy" $kind
    build_in "$copy"
    mkdir -p "$scratch/kept" "$kept"
    mv "$copy/target/release/container-hotplug" "$scratch/kept/"
    strip -o "$scratch/kept/stripped" "$scratch/kept/container-hotplug"
    rm -rf "$copy" "$program"
    mv "$scratch/kept" "$program"
}

# Sets `bench`, the path of the benchmark, which is built if necessary.
build_benchmark() {
    say "building the benchmark"
    in_background cargo bench --locked --features kubernetes --bench oci-hotplug --no-run \
        --message-format=json-render-diagnostics > "$scratch/messages"
    bench=$(sed -n 's/.*"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p' "$scratch/messages")
    [ -x "$bench" ] || fail "cargo has not built the benchmark"
}

load() { cut -d ' ' -f 1-3 /proc/loadavg; }

# What the figures are valid for.
conditions() {
    local filter="compiled from its source"
    [ $kind != c ] || filter="compiled from tests/bench/peer/filter.c"
    printf 'Measured on %s: oci-hotplug %s against container-hotplug %s (device filter %s), in turns on the same machine (Linux %s, %s CPUs, runc %s, systemd-udevd %s, cgroup v2). Load average of 1, 5 and 15 minutes: %s before, %s after.\n' \
        "$(date +%F)" "$(git describe --always --dirty 2>/dev/null || echo of unknown commit)" "${commit:0:7}" "$filter" \
        "$(uname -r)" "$(nproc)" "$(runc --version | sed -n 's/^runc version //p')" \
        "$(udevadm --version)" "$before" "$(load)"
}

given=
if [ "${1:-}" = --filter ]; then
    [ -f "${2:-}" ] || fail "--filter needs an object file"
    given=$(realpath "$2")
    shift 2
fi
case ${1:-} in
    -h | --help) usage; exit 0 ;;
    --sources) [ $# = 3 ] || { usage >&2; exit 2; }; checkout=$2 ;;
    '' | -*) usage >&2; exit 2 ;;
    *) checkout=$1 ;;
esac
need git command -v git
install_missing
[ -d "$checkout" ] || fail "$checkout is not a directory"
checkout=$(cd "$checkout" && pwd)
commit=$(git -C "$checkout" rev-parse --verify --quiet 'HEAD^{commit}') \
    || fail "$checkout is not a git checkout with a commit"
if [ "$1" = --sources ]; then
    mkdir -p "$3"
    sources "$checkout" "$3"
    exit 0
fi

shift
cd "$here/../.."
need_to_run
need iproute2 command -v ip
need binutils command -v strip
install_missing
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
scratch=$(mktemp -d)
build
build_benchmark
# The path of the executable is this run's, so that its processes can be found by it.
export OCI_HOTPLUG_PEER=$scratch/run
mkdir "$OCI_HOTPLUG_PEER"
cp "$program/container-hotplug" "$program/stripped" "$OCI_HOTPLUG_PEER/"
mkfifo "$scratch/hold"
exec 9<> "$scratch/hold"
before=$(load)
say "measuring for about six minutes"
setsid "$bench" "$@" < "$scratch/hold" 9>&- &
measuring=$!
wait "$measuring" || { measuring=; fail "the comparison has failed"; }
measuring=
[ -f "$OCI_HOTPLUG_PEER/table" ] || fail "the comparison is not complete"
say "for docs/comparison.md"
echo
conditions
echo
cat "$OCI_HOTPLUG_PEER/table"
