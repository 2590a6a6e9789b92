# Sourced by package.sh and image.sh, which make one file of the built executables: their options,
# the build, and the working directory.

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
bins=
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
output=$here/target/package

fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# options ARGUMENT...: takes the arguments, which the head of the sourcing file explains.
options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --bin-dir | --output | --version)
                [ $# -gt 1 ] || fail "$1 needs a value"
                case $1 in
                    --bin-dir) bins=$2 ;;
                    --output) output=$2 ;;
                    --version) version=$2 ;;
                esac
                shift
                ;;
            -h | --help)
                sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
                exit 0
                ;;
            *) fail "unknown argument $1 (--help lists them)" ;;
        esac
        shift
    done
}

# begin [FEATURES]: builds with these features of cargo, unless the executables are given. Creates
# $output, and $tree in $work, which is removed at the end.
begin() {
    if [ -z "$bins" ]; then
        (cd "$here" && cargo build --release --locked --bins --features "${1:-}") >&2 || fail "the build failed"
        bins=${CARGO_TARGET_DIR:-$here/target}/release
    fi
    mkdir -p "$output"
    output=$(CDPATH='' cd -- "$output" && pwd)
    work=$(mktemp -d)
    # Image layers hold what was unpacked, whatever its modes.
    trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    tree=$work/tree
    mkdir "$tree"
}

# strip_programs FILE...: the release profile has stripped them already; others may have been built
# for debugging.
strip_programs() { for program in "$@"; do strip --strip-unneeded "$program" 2>/dev/null || :; done; }
