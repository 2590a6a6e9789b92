#!/usr/bin/env bash
# All tests, on a bare Debian or Ubuntu machine: installs what is missing, builds, tests, and ends with
# `N passed, N failed` alone on a line.
#
#   tests/run.sh                 everything but the last two
#   tests/run.sh --unit          format, lints, and the tests that need no privilege
#   tests/run.sh --privileged    as root: the real kernel, plain runc, cgroup v1 and v2 (no other machine needed)
#   tests/run.sh --vm            as root: every engine and real USB devices, in a virtual machine (tests/vm/README.md)
#   tests/run.sh --cluster       as root: the same machine as a whole cluster of Kubernetes; about 20 minutes
#   tests/run.sh --bench         as root: speed and size, ratios within one run (tests/bench/README.md)
#
# A level that lacks what it needs fails and says what. More arguments after `--` go to the tests (a name, say).
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
. packaging/prepare.sh

passed=0
failed=0
unsteady=()
log=$(mktemp)
image=

# However it ends, the last line tells.
finish() {
    rm -f "$log"
    [ -z "$image" ] || kill -- "-$image" 2>/dev/null || :
    [ ${#unsteady[@]} = 0 ] || printf '\nfailed at first: %s\n' "${unsteady[*]}"
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
}
trap finish EXIT

# Instead of prepare.sh's: what a level lacks counts as one failure.
fail() {
    failed=$((failed + 1))
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs one check of a level that is no test binary; counted only when it fails.
check() {
    say "$*"
    "$@" || { failed=$((failed + 1)); echo "FAILED: $*"; }
}

# Runs `cargo test` and adds up what its binaries say.
run_tests() {
    say "cargo test $*"
    local status=0
    cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
    local sums
    sums=$(awk '/^test result: / { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
    passed=$((passed + ${sums% *}))
    failed=$((failed + ${sums#* }))
    # No test failed and yet cargo did: it did not build.
    if [ "$status" != 0 ] && [ "${sums#* }" = 0 ]; then
        failed=$((failed + 1))
    fi
}

# As run_tests, for tests of a whole machine: what failed has one more chance, alone, and the last lines say so. A busy
# host, or emulation with a thread for each processor, was seen to fail single tests; a fault fails twice.
run_tests_and_again() {
    local before=$failed options=() again=()
    run_tests "$@"
    mapfile -t again < <(awk '/^test .* \.\.\. FAILED$/ { print $2 }' "$log")
    [ ${#again[@]} -gt 0 ] || return 0
    say "ONCE MORE: ${again[*]}"
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    # What crashed has no such line, and stays a failure.
    failed=$((before + $(grep -c '(signal: ' "$log" || :)))
    run_tests "${options[@]}" -- --ignored --test-threads=1 --exact "${again[@]}"
    unsteady+=("${again[@]}")
}

unit() {
    need_to_build
    cargo fmt --version >/dev/null 2>&1 \
        || fail "rustfmt is missing: rustup component add rustfmt, or the package rustfmt (rustfmt-web with rustc-web)"
    cargo clippy --version >/dev/null 2>&1 \
        || fail "clippy is missing: rustup component add clippy, or the package rust-clippy (rust-web-clippy with rustc-web)"
    need man-db command -v man
    install_missing
    check cargo fmt --check
    check cargo clippy --locked --all-targets -- -D warnings
    run_tests -- "$@"
    # The device plugin, which is built by its feature alone.
    check cargo clippy --locked --features kubernetes --lib --bin oci-hotplug-device-plugin --test kubernetes -- -D warnings
    run_tests --features kubernetes --lib kubernetes::
    run_tests --features kubernetes --test kubernetes -- "$@"
    # Our CDI rules against the CNCF's own library, which is no part of the product (Cargo.toml tells why).
    if at_least 1.86 "$(rustc --version | awk '{ print $2 }')"; then
        run_tests --features cncf-cdi --lib cdi::reference
    else
        say "NOT RUN: the comparison with the CNCF's CDI library, which wants Rust 1.86"
    fi
}

privileged() {
    need_to_build
    need_to_run
    need_to_package
    [ -e /dev/tty0 ] || fail "no virtual terminals (/dev/tty0): they are the character devices that the tests plug in"
    check cargo build --release --locked --bins
    local skip=()
    if ! grep -q '^devices[[:space:]]' /proc/cgroups; then
        say "NOT RUN on cgroup v1: this kernel has no v1 devices controller"
        skip=(--skip v1::)
    fi
    # Every ignored test of every test binary, but those of the virtual machine, which are a level of their own.
    local tests=()
    for test in tests/*.rs tests/*/main.rs; do
        case $test in
            tests/vm/* | tests/kubernetes/*) ;;
            */main.rs) test=${test%/main.rs}; tests+=(--test "${test##*/}") ;;
            *) test=${test##*/}; tests+=(--test "${test%.rs}") ;;
        esac
    done
    OCI_HOTPLUG_LONG=1 run_tests_and_again "${tests[@]}" -- --ignored --test-threads=1 "${skip[@]}" "$@"
    need python3-grpcio /usr/bin/python3 -c "import grpc"
    install_missing
    check cargo build --release --locked --features kubernetes --bin oci-hotplug-device-plugin
    run_tests --features kubernetes --test kubernetes -- --ignored --test-threads=1 "$@"
}

vm() {
    need_to_build
    check cargo clippy --locked --features kubernetes --test vm -- -D warnings
    check tests/vm/prepare.sh
    run_tests_and_again --release --features kubernetes --test vm -- --ignored --test-threads=1 --skip usbip::bench \
        --skip cluster:: "$@"
}

cluster() {
    need_to_build
    export OCI_HOTPLUG_VM_CLUSTER=1
    check tests/vm/prepare.sh
    run_tests_and_again --release --features kubernetes --test vm -- --ignored --test-threads=1 cluster:: "$@"
}

bench() {
    need_to_build
    need_to_run
    [ -e /dev/tty0 ] || fail "no virtual terminals (/dev/tty0): they are the character devices that the benchmark plugs in"
    [ "${1:-}" = usbip ] || check cargo bench --locked --bench oci-hotplug -- "$@"
    # What a device of another host costs, only a whole machine tells.
    case ${1:-usbip} in
        usbip)
            check tests/vm/prepare.sh
            run_tests --release --test vm -- --ignored --nocapture usbip::bench
            ;;
    esac
}

# Builds the virtual machine's image beside the other levels: from nothing that takes up to half an hour, most of it for
# programs of others, and they leave a processor idle for much of their time. `vm` waits for it, and tells what fails.
begin_image() {
    need_to_build
    # What fails here fails there again, and is counted.
    tests/vm/prepare.sh --packages || return 0
    say "building the virtual machine's image meanwhile"
    setsid nice -n 19 tests/vm/prepare.sh >/dev/null 2>&1 &
    image=$!
}

# Runs one level, with its name and how long it took.
level() {
    local begin=$SECONDS
    printf '\n######## %s\n' "$1"
    "$@"
    printf '\n######## %s: %d s\n' "$1" $((SECONDS - begin))
}

levels=()
while [ $# -gt 0 ]; do
    case $1 in
        --unit | --privileged | --vm | --cluster | --bench) levels+=("${1#--}") ;;
        --) shift; break ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; rm "$log"; trap - EXIT; exit 0 ;;
        *) fail "unknown argument $1 (--help tells)" ;;
    esac
    shift
done
[ ${#levels[@]} -gt 0 ] || levels=(unit privileged vm)
case $(id -u):${levels[*]} in
    0:*" vm") begin_image ;;
esac
for name in "${levels[@]}"; do
    level "$name" "$@"
done
[ "$failed" = 0 ]
