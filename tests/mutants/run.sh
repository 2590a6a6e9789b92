#!/usr/bin/env bash
# Measures with cargo-mutants which changes of src/model and src/watcher/transaction.rs the unit
# tests notice.
#
#   tests/mutants/run.sh                          every mutant: about 3800, hours of processor time
#   tests/mutants/run.sh --shard 3/20             every twentieth of them
#   tests/mutants/run.sh -f src/model/policy.rs   one file
#   tests/mutants/run.sh --in-diff change.diff    what a change touches (`git diff main`)
#   tests/mutants/run.sh --table                  results of the last run again, and a table by file
#
# Other arguments go to `cargo mutants`. The environment variable MUTANTS_DIR says where the
# generated crate and the results go (default: target/mutants); CARGO_MUTANTS_JOBS, how many mutants
# are built and tested at once (default: one for each processor in a complete run, else one). It
# fails when a mutant survives that survivors.txt does not list, and when a complete run catches
# less than 95 % of the viable mutants. README.md explains the results.
set -euo pipefail
export HOME=${HOME:-/root} LC_ALL=C
here=$(dirname "$(realpath "$0")")
cd "$here/../.."
. packaging/prepare.sh
. tests/cargo-tool.sh

version=27.1.0
# What src/model and src/watcher/transaction.rs use, and their tests.
dependencies='glob nix regex-lite saphyr-parser serde serde_json thiserror toml tracing'
dev_dependencies='proptest rbpf'
# The least percentage of viable mutants that a complete run catches.
least=95

root=$PWD
work=${MUTANTS_DIR:-$root/target/mutants}
crate=$work/crate
results=$work/mutants.out
survivors=$here/survivors.txt

# The lines of Cargo.toml for these packages, each alone on its line.
dependency_lines() {
    local package
    for package; do
        grep -m 1 -E "^$package = " Cargo.toml || fail "Cargo.toml has no line for $package: adapt $0"
    done
}

# A crate of only these modules, because a build of the whole library takes six times as long and
# there are thousands.
generate_crate() {
    # But its target directory, which a run of one job after the other builds in.
    rm -rf "$crate"/[!t]* "$crate/tests" "$crate/.cargo"
    mkdir -p "$crate/src/watcher" "$crate/.cargo"
    cp -r src/model "$crate/src/"
    cp -r src/watcher/transaction* "$crate/src/watcher/"
    printf 'pub mod model;\npub mod watcher {\n    pub mod transaction;\n}\n' >"$crate/src/lib.rs"
    # cargo-mutants copies nothing that the repository around it ignores, such as target/.
    git init -q "$crate"
    # Their tests read files all over the repository.
    git ls-files -z -- . ':!src' ':!Cargo.toml' | xargs -0 cp --parents -t "$crate"
    {
        printf '[package]\nname = "oci-hotplug"\nversion = "0.0.0"\nedition = "2024"\nautotests = false\n'
        printf '\n[dependencies]\n'
        dependency_lines $dependencies
        printf '\n[dev-dependencies]\n'
        dependency_lines $dev_dependencies
        printf '\n[profile.dev]\ndebug = false\n\n[profile.dev.package."*"]\nopt-level = 2\n'
    } >"$crate/Cargo.toml"
    cp "$here/runner.sh" "$crate/.cargo/"
    printf '[target."cfg(all())"]\nrunner = ["%s", "%s"]\n\n[build]\nrustflags = ["-Awarnings"]\n' \
        "$crate/.cargo/runner.sh" "$work/original" >"$crate/.cargo/config.toml"
    rm -rf "$work/original"
    cp -r "$crate/src" "$work/original"
}

# Mutants' names without line and column, which change with every edit.
names() { sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' "$@" | sort; }

# The listed survivors: every line below a comment that gives the reason, up to an empty line.
listed() {
    awk -v file="$survivors" '
        /^#/ { reason = 1; next }
        /^$/ { reason = 0; next }
        !reason { print file ":" NR ": no reason is given for this mutant" >"/dev/stderr"; exit 1 }
        { print }' "$survivors" | sort
}

count() { wc -l <"$results/$1.txt"; }

# Caught, survived and so on, for each file and in all.
table() {
    local kind
    echo '| file | mutants | caught | timeouts | survived | unviable | caught of the viable |'
    echo '|---|---|---|---|---|---|---|'
    for kind in caught missed timeout unviable; do
        sed "s/^/$kind /" "$results/$kind.txt"
    done | awk '
        function row(file, c, m, t, u,   viable) {
            viable = c + m + t
            printf "| %s | %d | %d | %d | %d | %d | %s |\n", file, viable + u, c, t, m, u, \
                viable ? sprintf("%.1f %%", 100 * (c + t) / viable) : "-"
        }
        { split($2, place, ":"); file = place[1]; files[file]; n[file, $1]++; all[$1]++ }
        END {
            for (file in files)
                row("`" file "`", n[file, "caught"], n[file, "missed"], n[file, "timeout"], n[file, "unviable"])
            row("~ all", all["caught"], all["missed"], all["timeout"], all["unviable"])
        }' | sort
}

# Prints the results; fails on survivors that are not listed and, if `complete`, on too low a rate.
report() {
    local complete=$1 bad=0 caught missed timeouts viable unlisted stale
    caught=$(count caught) missed=$(count missed) timeouts=$(count timeout)
    viable=$((caught + missed + timeouts))
    [ "$viable" -gt 0 ] || { echo "no viable mutants"; return 0; }
    local listed=$work/listed.txt
    listed >"$listed"
    unlisted=$(comm -13 "$listed" <(names "$results/missed.txt"))
    # Listed, not survived, and noticed in this run; or, after a complete run, not even there.
    stale=$(comm -23 "$listed" <(names "$results/missed.txt"))
    [ "$complete" = yes ] || stale=$(comm -12 <(printf '%s\n' "$stale" | sort -u) \
        <(names "$results/caught.txt" "$results/timeout.txt" | sort -u))
    printf '\n'
    table
    printf '\nsurvivors:\n'
    sed 's/^/  /' "$results/missed.txt"
    if [ -n "$stale" ]; then
        printf '\nnot survivors any more, to be taken out of %s:\n%s\n' "${survivors#"$root/"}" "$stale"
    fi
    if [ -n "$unlisted" ]; then
        printf '\nNOT LISTED in %s (write a test, delete the code, or list it with the reason):\n%s\n' \
            "${survivors#"$root/"}" "$unlisted"
        bad=1
    fi
    printf '\n%d of %d viable mutants caught: %s %% (%d by a timeout; %d unviable)\n' $((caught + timeouts)) "$viable" \
        "$(awk "BEGIN { printf \"%.1f\", 100 * ($caught + $timeouts) / $viable }")" "$timeouts" "$(count unviable)"
    if [ "$complete" = yes ] && [ $(((caught + timeouts) * 100)) -lt $((viable * least)) ]; then
        printf 'FAILED: less than %d %% caught\n' "$least"
        bad=1
    fi
    return "$bad"
}

complete=yes
for argument; do
    case $argument in
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        --table)
            [ -e "$results/outcomes.json" ] || fail "no results in $results: run $0 first"
            report "$(cat "$work/complete")"
            exit ;;
        # What does not select mutants.
        -j* | --jobs* | --timeout* | --minimum-test-timeout*) ;;
        [0-9]*) ;;
        *) complete=no ;;
    esac
done
chosen=(-f 'src/model/**' -f src/watcher/transaction.rs -f 'src/watcher/transaction/*.rs')
case " $* " in
    *" -f"* | *" --file"*) chosen=() ;;
esac
case " $* " in
    *" --sharding"*) ;;
    # Spread over all files; cargo-mutants cuts the list into slices.
    *" --shard"*) chosen+=(--sharding round-robin) ;;
esac

mutants=$(cargo_tool cargo-mutants "$version")
generate_crate
printf '%s\n' "$complete" >"$work/complete"
# The same random cases in every run, and none remembered from the mutant before.
export PROPTEST_CASES=64 PROPTEST_RNG_SEED=1 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
# One job works in the crate itself; several need a copy each, and build all dependencies there.
place=()
if [ "$complete" = yes ]; then
    export CARGO_MUTANTS_JOBS=${CARGO_MUTANTS_JOBS:-$(nproc)}
elif [ "${CARGO_MUTANTS_JOBS:-1}" = 1 ]; then
    case " $* " in
        *" -j"* | *" --jobs"*) ;;
        *) place=(--in-place) ;;
    esac
fi
export CARGO_MUTANTS_MINIMUM_TEST_TIMEOUT=${CARGO_MUTANTS_MINIMUM_TEST_TIMEOUT:-60}
# Exit codes 2 and 3: some survived, some ran into the timeout; the report decides.
status=0
"$mutants" mutants -d "$crate" -o "$work" "${place[@]}" "${chosen[@]}" "$@" -- --lib || status=$?
case $status in
    0 | 2 | 3) ;;
    *) fail "cargo mutants failed (exit code $status)" ;;
esac
report "$complete"
