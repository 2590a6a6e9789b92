#!/bin/sh
# Makes the container image of the Kubernetes device plugin: from scratch, without a registry or a base image.
#
#   packaging/image.sh                      build the executables, and the image into target/package
#     --bin-dir DIR                         take the executables that are in DIR: nothing is built
#     --output DIR                          put the image there
#     --version VERSION                     another version than Cargo.toml's
#
# Prints the image's path: an OCI archive, which "podman load", "ctr images import" and "skopeo copy" take, tagged
# localhost/oci-hotplug-device-plugin:VERSION. Wants buildah, and the libraries that the executables are linked with.
#
# In it: oci-hotplug-device-plugin, which it starts; oci-hotplug, hooks and watcher, which "oci-hotplug install --to /host"
# puts on the node; and the shared libraries that they want. Not linked statically: no distribution has a static libudev;
# a node has its own (any with systemd and glibc 2.34 or newer: "install" tries before it changes what engines start).
# It runs as root, for kubelet's directory is root's: the manifests take everything else away.
set -eu
umask 022

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
programs="oci-hotplug oci-hotplug-device-plugin oci-hotplug-prestart oci-hotplug-poststop oci-hotplug-watcher"

fail() { printf 'image.sh: %s\n' "$*" >&2; exit 1; }

build() {
    (cd "$here" && cargo build --release --locked --features kubernetes --bins) >&2 || fail "the build failed"
    bins=${CARGO_TARGET_DIR:-$here/target}/release
}

# The image's files.
make_tree() {
    mkdir -p "$tree/usr/bin" "$tree/usr/libexec/oci/hooks.d" "$tree/tmp" "$tree/usr/share/licenses/oci-hotplug"
    chmod 1777 "$tree/tmp"
    for program in $programs; do
        [ -x "$bins/$program" ] || fail "$bins/$program is not there: build it, or leave --bin-dir out"
        case $program in
            oci-hotplug | *-device-plugin) to=$tree/usr/bin ;;
            *) to=$tree/usr/libexec/oci/hooks.d ;;
        esac
        install -m 755 "$bins/$program" "$to/$program"
        # The release profile has stripped them already; others may have been built for debugging.
        strip --strip-unneeded "$to/$program" 2>/dev/null || :
    done
    install -m 644 -t "$tree/usr/share/licenses/oci-hotplug" "$here/LICENSE" "$here/LICENSE-APACHE" "$here/LICENSE-MIT"
    # At the very paths where the loader of these executables looks (ldd(1)).
    for program in $programs; do ldd "$bins/$program"; done \
        | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u >"$work/libraries"
    while read -r library; do
        case $library in
            */lib*.so.* | */ld-linux*) install -D -m 755 "$library" "$tree$library" ;;
        esac
    done <"$work/libraries"
}

commit() {
    # A store of its own: nothing is left behind, and no other image is touched.
    set -- --root "$work/store" --runroot "$work/run" --storage-driver vfs
    container=$(buildah "$@" from --name oci-hotplug-device-plugin scratch)
    buildah "$@" add --quiet "$container" "$tree" / >/dev/null
    buildah "$@" config \
        --entrypoint '["/usr/bin/oci-hotplug-device-plugin"]' --cmd '' --user 0:0 \
        --env PATH=/usr/bin \
        --label org.opencontainers.image.title=oci-hotplug-device-plugin \
        --label org.opencontainers.image.description="Device hotplug for running pods: the Kubernetes device plugin of oci-hotplug" \
        --label org.opencontainers.image.version="$version" \
        --label org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
        "$container"
    rm -f "$output/$name.tar"
    # One layer, and the same bytes of the same files whenever it is built.
    buildah "$@" commit --quiet --format oci --timestamp "${SOURCE_DATE_EPOCH:-0}" --rm "$container" \
        "oci-archive:$output/$name.tar:localhost/oci-hotplug-device-plugin:$version" >/dev/null
}

bins=
version=$(sed -n 's/^version *= *"\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
output=$here/target/package
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
        *) fail "unknown argument $1 (--help tells)" ;;
    esac
    shift
done
command -v buildah >/dev/null || fail "buildah is missing: apt-get install buildah"
[ -n "$bins" ] || build
mkdir -p "$output"
output=$(CDPATH='' cd -- "$output" && pwd)
name=oci-hotplug-device-plugin_$version
work=$(mktemp -d)
# vfs layers hold what was unpacked from the image, whatever its modes.
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tree=$work/tree
mkdir "$tree"
make_tree
commit
printf '%s\n' "$output/$name.tar"
