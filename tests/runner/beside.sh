# Sourced by tests/run.sh: checks that run beside the tests of a level. Needs results.sh.

# Of each check that runs: the number of its process group, and the file with its output.
beside=()

# begin_check COMMAND...: starts a check. What a level waits for comes first, so it has less of the
# processors.
begin_check() {
    mkdir -p "$OCI_HOTPLUG_RUN/logs"
    local name=${1##*/}
    local log=$OCI_HOTPLUG_RUN/logs/check-${name%.sh}.log
    printf '%s, with its output in %s\n' "$*" "$log"
    setsid nice -n 10 "$@" > "$log" 2>&1 &
    beside+=("$! $log")
}

# end_checks: waits for all of them, prints what they printed, and counts each that failed.
end_checks() {
    local check process log
    for check in "${beside[@]}"; do
        read -r process log <<< "$check"
        if wait "$process"; then
            printf '%s has passed:\n' "$log"
        else
            printf '%s has FAILED:\n' "$log"
            fact broken "${log##*/}" "$log"
        fi
        cat "$log"
    done
    beside=()
}

# stop_checks: ends those that still run.
stop_checks() {
    local check
    for check in "${beside[@]}"; do
        # The group exists once setsid runs.
        kill -- "-${check%% *}" 2>/dev/null || kill "${check%% *}" 2>/dev/null || :
    done
}
