# Sourced: tools of cargo for the tests, each built once for each version into
# ~/.cache/oci-hotplug/tools. Needs packaging/prepare.sh.

# cargo_tool NAME VERSION [ARGUMENT]...: prints the path of the executable, and builds it, with
# these arguments of cargo install, unless it exists. With `--path`, VERSION is the caller's name
# for those sources. If another process is building a tool (in the background, say), waits for it.
cargo_tool() {
    local tools=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/tools
    local tool=$tools/$1-$2
    printf '%s\n' "$tool"
    [ -f "$tool" ] && return 0
    need_to_build >&2
    mkdir -p "$tools"
    local crate=$1@$2
    case " $* " in *" --path "*) crate= ;; esac
    (
        flock 9
        [ -f "$tool" ] && exit 0
        say "building $1 $2" >&2
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        # A debug build is ready sooner, and these tools spend their time in cargo and rustc.
        CARGO_TARGET_DIR=$scratch/target CARGO_PROFILE_DEV_DEBUG=0 \
            cargo install --quiet --locked --debug --root "$scratch" "${@:3}" ${crate:+"$crate"} 9>&- >&2
        mv "$scratch/bin/$1" "$tool"
    ) 9>"$tools/lock"
}
