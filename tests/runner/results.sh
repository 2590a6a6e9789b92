# Sourced by tests/run.sh and tests/runner/binary.sh: collects the results of one run and judges
# them.
#
# $OCI_HOTPLUG_RUN is the directory of the run:
#   results             one line for each fact, fields separated by tabs: `passed N`,
#                       `failed BINARY TEST LOG`, `broken WHAT LOG` (a check or a program that
#                       failed as a whole), `level NAME SECONDS`
#   skipped             one line for each test that this machine cannot run: `BINARY::TEST: REASON`
#   infrastructure      one line for each fault of the test equipment that was overcome (a machine
#                       that did not boot, say)
#   logs/               the output of each test binary and of each check that ran beside them
# Tests append to `skipped` and `infrastructure` themselves (OCI_HOTPLUG_SKIPPED_LOG,
# OCI_HOTPLUG_INFRASTRUCTURE_LOG).

fact() { (IFS=$'\t'; printf '%s\n' "$*") >> "$OCI_HOTPLUG_RUN/results"; }

# record BINARY STATUS LOG: what libtest printed into LOG before the binary ended with STATUS.
record() {
    local binary=$1 status=$2 log=$3 passed failed names
    # The last list below `failures:` has the names; the earlier one has the outputs of the tests.
    { read -r passed failed; names=$(cat); } < <(awk '
        /^failures:$/ { count = 0; next }
        /^    [^ ]+$/ { names[count++] = $1; next }
        /^test result: / { passed = $4; failed = $6 }
        END {
            print passed, failed
            for (i = 0; i < count && failed; i++) print names[i]
        }' "$log")
    # libtest prints no result when a test ends the whole process; it ends with 101 when tests
    # failed.
    if [ -z "$passed" ] || [ "$failed" != "$(printf '%s' "$names" | grep -c .)" ] || { [ "$status" != 0 ] && [ "$failed" = 0 ]; }; then
        fact broken "$binary ended with status $status" "$log"
        return
    fi
    fact passed "$passed"
    local name
    for name in $names; do
        fact failed "$binary" "$name" "$log"
    done
}

# Prints the entry of tests/unstable.txt for BINARY and TEST, if there is one.
unstable() {
    awk -F ' *[|] *' -v test="$1::$2" '!/^#/ && $1 == test' "${OCI_HOTPLUG_UNSTABLE:-tests/unstable.txt}"
}

# message TEST LOG: the panic message of TEST in what libtest printed into LOG, or else the end of
# the test's output; at most 16 lines, so that those who see only the end of a run's output know why
# it failed.
message() {
    awk -v header="---- $1 stdout ----" '
        /^---- .* stdout ----$/ { inside = ($0 == header); next }
        !inside || (panicked && /^(failures|stack backtrace):$/) { inside = 0; next }
        / panicked at / && !panicked { panicked = 1; count = 0 }
        panicked && count >= 16 { next }
        { lines[count++] = substr($0, 1, 400) }
        END { for (i = count > 16 ? count - 16 : 0; i < count; i++) if (lines[i] != "") print "    " lines[i] }' "$2"
}

# summary [SKIPS]: prints what failed, what was skipped and how long the levels took; the last line
# has the numbers. Fails when an unlisted test failed, when nothing was run, or when more than SKIPS
# tests were skipped.
summary() {
    local allowed=${1:-} passed=0 failed=0 skipped=0 kind first second third entry
    touch "$OCI_HOTPLUG_RUN/results" "$OCI_HOTPLUG_RUN/skipped" "$OCI_HOTPLUG_RUN/infrastructure"
    printf '\n'
    while IFS=$'\t' read -r kind first second third; do
        case $kind in
            passed) passed=$((passed + first)) ;;
            level) printf 'level %-12s %5d s\n' "$first" "$second" ;;
            broken)
                failed=$((failed + 1))
                printf 'FAILED: %s%s\n' "$first" "${second:+ (log: $second)}"
                ;;
            failed)
                entry=$(unstable "$first" "$second")
                if [ -n "$entry" ]; then
                    printf 'failed, and is listed as unstable: %s (log: %s)\n' "$entry" "$third"
                else
                    failed=$((failed + 1))
                    printf 'FAILED: %s::%s (log: %s)\n' "$first" "$second" "$third"
                    message "$second" "$third"
                fi
                ;;
        esac
    done < "$OCI_HOTPLUG_RUN/results"
    sed 's/^\(infrastructure: \)\{0,1\}/infrastructure: /' "$OCI_HOTPLUG_RUN/infrastructure"
    # A group of tests (those of cgroup v1) is one line with their number in front.
    while IFS=$'\t' read -r first second; do
        case $first in
            *[!0-9]*) second=$first; first=1 ;;
        esac
        skipped=$((skipped + first))
        printf 'skipped: %s (%d)\n' "$second" "$first"
    done < "$OCI_HOTPLUG_RUN/skipped"
    if [ -n "$allowed" ] && [ "$skipped" -gt "$allowed" ]; then
        failed=$((failed + 1))
        printf 'FAILED: %d tests were skipped, and this run allows %d\n' "$skipped" "$allowed"
    fi
    if [ "$passed" = 0 ] && [ "$failed" = 0 ]; then
        failed=1
        printf 'FAILED: no test was run\n'
    fi
    [ "$failed" = 0 ] || printf 'the same order and the same random values again: OCI_HOTPLUG_SEED=%s\n' "${OCI_HOTPLUG_SEED:-}"
    printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ]
}
