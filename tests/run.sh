#!/usr/bin/env bash
# All tests, on a bare Debian or Ubuntu machine: installs what is missing, builds, tests, and ends
# with `N passed, N failed, N skipped` alone on a line.
#
#   tests/run.sh                 everything but the last three
#   tests/run.sh --unit          format, lints, licences, and the tests that need no privilege
#   tests/run.sh --privileged    as root: the real kernel, plain runc, cgroup v1 and v2, packages
#   tests/run.sh --vm            as root: every engine and real USB devices, in virtual machines
#                                (tests/vm/README.md)
#   tests/run.sh --cluster       as root: all tests of a whole cluster of Kubernetes (--vm has one
#                                of them); about 20 minutes
#   tests/run.sh --bench         as root: speed and size, ratios within one run
#                                (tests/bench/README.md; tests/bench/peer.sh, which needs a checkout
#                                of container-hotplug, compares with it)
#   tests/run.sh --mutants       what the unit tests do not notice when the code is changed; hours
#                                (tests/mutants/README.md)
#
#   --skips N                    fail when more than N tests are skipped (CI: 0)
#
# A level that lacks a prerequisite fails and says which. Tests run in a random order;
# OCI_HOTPLUG_SEED=N repeats an order and all other random choices. More arguments after `--` go to
# the tests (a name, say). The outputs stay in target/test-runs/.
set -euo pipefail
export HOME=${HOME:-/root}
cd "$(dirname "$0")/.."
. packaging/prepare.sh
. tests/runner/results.sh
. tests/runner/beside.sh

# The image of the virtual machine is built in the background, in a process group with this number.
image=
# The same of the build of the executables that are shipped.
building=
# Set while a level runs: whatever ends the script then is a failure.
now=
skips=
started=

# However the run ends, the last line has the numbers.
finish() {
    local status=$?
    trap - EXIT
    local background
    for background in $image $building; do
        kill -- "-$background" 2>/dev/null || :
    done
    stop_checks
    [ -n "$started" ] || exit "$status"
    [ -z "$now" ] || fact broken "level $now ended early" ""
    summary "$skips" || exit 1
    exit "$status"
}

# Instead of prepare.sh's: a missing prerequisite counts as one failure.
fail() {
    printf 'error: %s\n' "$*" >&2
    [ -z "$started" ] || { fact broken "$*" ""; now=; }
    exit 1
}

# Runs one check of a level that is not a test binary; counted only when it fails.
check() {
    say "$*"
    "$@" || fact broken "$*" ""
}

# Runs `cargo test`, by way of the command $around: each test binary runs in tests/runner/binary.sh,
# which records the results.
around=()
run_tests() {
    say "cargo test $*"
    local before after
    before=$(grep -c '^\(failed\|broken\)' "$OCI_HOTPLUG_RUN/results" || :)
    "${around[@]}" cargo test --locked --no-fail-fast \
        --config "target.'cfg(all())'.runner = '$PWD/tests/runner/binary.sh'" "$@" && return
    after=$(grep -c '^\(failed\|broken\)' "$OCI_HOTPLUG_RUN/results" || :)
    # No test failed and yet cargo did: something did not build.
    [ "$before" != "$after" ] || fact broken "cargo test $*" ""
}

# The executables that are shipped: what tests measure, and what they install into virtual machines.
release=(cargo build --release --locked --features kubernetes --bins)
build_release() { check "${release[@]}"; }

# The same beside tests that mostly wait. What fails here fails in build_release again, and is
# counted.
begin_release() {
    setsid nice -n 19 "${release[@]}" >/dev/null 2>&1 &
    building=$!
}

unit() {
    need_to_build
    cargo fmt --version >/dev/null 2>&1 \
        || fail "rustfmt is missing: rustup component add rustfmt, or the package rustfmt (rustfmt-web with rustc-web)"
    cargo clippy --version >/dev/null 2>&1 \
        || fail "clippy is missing: rustup component add clippy, or the package rust-clippy (rust-web-clippy with rustc-web)"
    need man-db command -v man
    need systemd command -v systemd-analyze
    need zsh command -v zsh
    need fish command -v fish
    # The tests of tests/bench/peer.sh.
    need git command -v git
    need prometheus command -v promtool
    install_missing
    check cargo fmt --check
    # These compute while cargo links and tests wait.
    begin_check tests/lint.sh
    begin_check tests/deny.sh
    begin_check tests/site.sh
    # The feature `kubernetes` adds the device plugin to the rest. One set of artifacts serves all
    # tests.
    run_tests --features kubernetes --lib --bins --tests -- "$@"
    run_tests --features kubernetes --test cdi -- --ignored
    end_checks
}

# run_privileged THREADS ARGUMENTS...: the tests of `privileged` that these arguments choose.
run_privileged() {
    local threads=$1
    shift
    OCI_HOTPLUG_LONG=1 run_tests --features kubernetes --test privileged -- --ignored --test-threads="$threads" "$@"
}

privileged() {
    need_to_build
    need_to_run
    need_to_package
    need python3-grpcio /usr/bin/python3 -c "import grpc"
    # Kills a watcher at a system call of choice.
    need strace command -v strace
    # Rootless podman, for an ordinary user that the tests create.
    need podman command -v podman
    need crun command -v crun
    need uidmap command -v newuidmap
    install_missing
    [ -e /dev/tty0 ] || fail "no virtual terminals (/dev/tty0): they are the character devices that the tests plug in"
    begin_release
    # Every ignored test of every test binary, but those of the virtual machine, which are a
    # separate level. Those of `privileged` have a network and a mount namespace each, so that
    # several of them run side by side; they wait for most of their time.
    local kernel=()
    for test in tests/*.rs tests/*/main.rs; do
        case $test in
            tests/vm/* | tests/privileged/*) ;;
            */main.rs) test=${test%/main.rs}; kernel+=(--test "${test##*/}") ;;
            *) test=${test##*/}; kernel+=(--test "${test%.rs}") ;;
        esac
    done
    local skip=()
    if ! grep -q '^devices[[:space:]]' /proc/cgroups; then
        skip=(--skip ::v1 --skip v1_)
        skip_all "this kernel has no devices controller of cgroup v1" "$(cargo test --locked --features kubernetes \
            "${kernel[@]}" --test privileged -- --ignored --list "$@" | grep -c '\(::v1\|^v1_.*\): test$')"
    fi
    # Rootless containers have nodes of the host, whose mode the udevd of another test changes.
    if [ $# -gt 0 ]; then
        run_privileged 2 "${skip[@]}" "$@"
    else
        run_privileged 4 "${skip[@]}" --skip rootless
        run_privileged 2 "${skip[@]}" rootless
    fi
    build_release
    run_tests --features kubernetes "${kernel[@]}" -- --ignored --test-threads=1 "${skip[@]}" "$@"
    # Again with an udevd on the host, as every real machine has: the tests that listen to events or
    # follow nodes and links of /dev.
    around=(tests/privileged/with-udevd.sh)
    run_tests --features kubernetes --test monitor_kernel -- --ignored --test-threads=1 "${@:-udevd}"
    [ $# -gt 0 ] || set -- announcing:: links:: attacks::forged attacks::an_event_of_udevd options:: placement:: framework_checks:: udevd
    run_tests --features kubernetes --test privileged -- --ignored --test-threads=2 "${skip[@]}" "$@"
    around=()
}

# skip_all REASON COUNT: a group of tests that this machine cannot run.
skip_all() { printf '%d\t%s\n' "$2" "$1" >> "$OCI_HOTPLUG_RUN/skipped"; }

vm() {
    need_to_build
    check tests/vm/prepare.sh
    build_release
    # Two machines with one processor each, and one test at a time in each.
    run_tests --features kubernetes --test vm -- --ignored --test-threads=2 --skip usbip::bench --skip cluster:: "$@"
}

cluster() {
    need_to_build
    check tests/vm/prepare.sh
    build_release
    run_tests --features kubernetes --test vm -- --ignored --test-threads=2 cluster:: "$@"
}

mutants() {
    need_to_build
    check tests/mutants/run.sh "$@"
}

bench() {
    need_to_build
    need_to_run
    [ -e /dev/tty0 ] || fail "no virtual terminals (/dev/tty0): they are the character devices that the benchmark plugs in"
    [ "${1:-}" = usbip ] || check cargo bench --locked --features kubernetes --bench oci-hotplug -- "$@"
    # The cost of a device of another host can only be measured on a whole machine.
    case ${1:-usbip} in
        usbip)
            check tests/vm/prepare.sh
            build_release
            run_tests --features kubernetes --test vm -- --ignored --nocapture usbip::bench
            ;;
    esac
}

# Builds tools of the unit level, once for each version, while cargo does other things.
begin_tools() {
    need_to_build
    # What fails here fails there again, and is counted.
    setsid nice -n 19 bash -c 'tests/deny.sh --prepare; tests/site.sh --prepare; tests/cdi_reference/build.sh' >/dev/null 2>&1 &
}

# Builds the virtual machine's image beside the other levels: from nothing that takes up to half an
# hour, most of it for programs of other projects. The level `vm` waits for it and reports its
# errors.
begin_image() {
    need_to_build
    # What fails here fails there again, and is counted.
    tests/vm/prepare.sh --packages || return 0
    say "building the virtual machine's image in the background"
    setsid nice -n 19 tests/vm/prepare.sh >/dev/null 2>&1 &
    image=$!
}

# Runs one level, and measures how long it takes.
level() {
    local name=$1 begin=$SECONDS
    now=$name
    printf '\n######## %s\n' "$name"
    "$@"
    now=
    fact level "$name" $((SECONDS - begin))
}

levels=()
while [ $# -gt 0 ]; do
    case $1 in
        --unit | --privileged | --vm | --cluster | --bench | --mutants) levels+=("${1#--}") ;;
        --skips) skips=${2:?--skips needs a number}; shift ;;
        --) shift; break ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        *) fail "unknown argument $1 (--help lists them)" ;;
    esac
    shift
done
[ ${#levels[@]} -gt 0 ] || levels=(unit privileged vm)

export OCI_HOTPLUG_SEED=${OCI_HOTPLUG_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
export PROPTEST_RNG_SEED=$OCI_HOTPLUG_SEED
export OCI_HOTPLUG_RUN=$PWD/target/test-runs/$(date +%Y%m%d-%H%M%S)-$OCI_HOTPLUG_SEED
export OCI_HOTPLUG_SKIPPED_LOG=$OCI_HOTPLUG_RUN/skipped
export OCI_HOTPLUG_INFRASTRUCTURE_LOG=$OCI_HOTPLUG_RUN/infrastructure
mkdir -p "$OCI_HOTPLUG_RUN"
: > "$OCI_HOTPLUG_RUN/results"
started=yes
trap finish EXIT
printf 'OCI_HOTPLUG_SEED=%s, outputs in %s\n' "$OCI_HOTPLUG_SEED" "${OCI_HOTPLUG_RUN#"$PWD/"}"
case $(id -u):${levels[*]} in
    0:*" vm"*) begin_image ;;
esac
case "${levels[*]}" in
    *unit*) begin_tools ;;
esac
for name in "${levels[@]}"; do
    level "$name" "$@"
done
