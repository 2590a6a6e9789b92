#!/bin/sh
# Makes the container image of the Kubernetes device plugin: from scratch, without a registry or a
# base image.
#
#   packaging/image.sh                      build the executables, and the image into target/package
#     --bin-dir DIR                         take the executables that are in DIR: nothing is built
#     --output DIR                          put the image there
#     --version VERSION                     another version than Cargo.toml's
#
# Prints the image's path: an OCI archive, which "podman load", "ctr images import" and "skopeo
# copy" read, tagged localhost/oci-hotplug-device-plugin:VERSION. Needs buildah, and the libraries
# that the executables are linked with.
#
# The image has oci-hotplug-device-plugin, which it starts; oci-hotplug, hooks, watcher and USB/IP
# worker, which "oci-hotplug install --to /host" installs on the node; and the shared libraries that
# they need. They are not linked statically, because no distribution has a static libudev. Every
# node with systemd and glibc 2.34 or newer has the libraries, and "install" tests the programs
# there before it changes what engines start. The plugin runs as root, because kubelet's directory
# belongs to root; the manifests take every other right away.
set -eu
umask 022

. "$(dirname -- "$0")/artifact.sh"
programs="oci-hotplug oci-hotplug-device-plugin oci-hotplug-prestart oci-hotplug-poststop oci-hotplug-watcher oci-hotplug-usbip"

# The image's files.
make_tree() {
    mkdir -p "$tree/usr/bin" "$tree/usr/libexec/oci/hooks.d" "$tree/tmp" "$tree/usr/share/licenses/oci-hotplug"
    chmod 1777 "$tree/tmp"
    for program in $programs; do
        [ -x "$bins/$program" ] || fail "cannot find $bins/$program: build it, or omit --bin-dir"
        case $program in
            oci-hotplug | *-device-plugin) to=$tree/usr/bin ;;
            *) to=$tree/usr/libexec/oci/hooks.d ;;
        esac
        install -m 755 "$bins/$program" "$to/$program"
        strip_programs "$to/$program"
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
    # A separate store: nothing is left behind, and other images stay unchanged.
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

options "$@"
command -v buildah >/dev/null || fail "buildah is missing: apt-get install buildah"
begin kubernetes
name=oci-hotplug-device-plugin_$version
make_tree
commit
printf '%s\n' "$output/$name.tar"
