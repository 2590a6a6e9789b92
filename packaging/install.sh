#!/bin/sh
# Installs oci-hotplug: builds it, runs "oci-hotplug install", and prints what each engine still
# needs.
#
#   packaging/install.sh                   build and install; run it again to update
#   packaging/install.sh --bin-dir DIR     install the executables that are in DIR: nothing is built
#   packaging/install.sh --device-plugin   also the Kubernetes device plugin, for nodes where it is
#                                          not a DaemonSet
#   packaging/install.sh --uninstall       remove what was installed, but no configuration that was
#                                          changed
#   packaging/install.sh --uninstall --force    also while watchers run: their containers keep what
#                                          they have
#
# Variables: DESTDIR (a directory in place of /, for packages), PREFIX (/usr), SYSCONFDIR (/etc).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr}
SYSCONFDIR=${SYSCONFDIR:-/etc}

fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

build() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || fail "cargo is missing: install Rust ($(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$here/Cargo.toml") or newer), a C compiler, pkg-config and libudev-dev; or build as another user with \"cargo build --release\" and install with --bin-dir target/release"
    printf '%s\n' "building (cargo build --release)"
    # shellcheck disable=SC2086 # none, or two words
    (cd "$here" && cargo build --release --locked --bins $features) || fail "the build failed"
    bins=${CARGO_TARGET_DIR:-$here/target}/release
}

# install_verb PROGRAM ARGUMENT...: no configuration stands in the way of /dev/null.
install_verb() {
    program=$1
    shift
    if [ -n "$DESTDIR" ]; then set -- --staging "$DESTDIR" "$@"; fi
    "$program" --config /dev/null install --prefix "$PREFIX" --sysconfdir "$SYSCONFDIR" "$@"
}

next_steps() {
    cat <<EOF

Installed. Containers request devices by the annotation io.oci-hotplug.devices, for example usb:0403:6001
(man oci-hotplug-requests).
  podman      nothing more as root: podman run --annotation 'io.oci-hotplug.devices=usb:0403:6001' ...
  CRI-O       nothing more: the same annotation on the pod
  Docker      28.2 and newer: nothing more; 25 and newer: {"features": {"cdi": true}} in /etc/docker/daemon.json; then
              docker run --device oci-hotplug.dev/device=annotated --annotation 'io.oci-hotplug.devices=usb:0403:6001' ...
  containerd  2.0 and newer: nothing more; 1.7: enable_cdi = true in config.toml; then a CDI device with the request:
              oci-hotplug cdi generate board --device 'usb:0403:6001', which is oci-hotplug.dev/device=board
  runc, crun  both hooks in config.json: man oci-hotplug-prestart
Is this host ready? oci-hotplug check     Which containers have devices? oci-hotplug list
EOF
}

action=install
bins=
force=
plugin=
features=
while [ $# -gt 0 ]; do
    case $1 in
        --uninstall) action=uninstall ;;
        --force) force=--force ;;
        --device-plugin) plugin=--device-plugin features='--features kubernetes' ;;
        --bin-dir)
            [ $# -gt 1 ] || fail "--bin-dir needs a directory"
            bins=$2
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

if [ "$action" = uninstall ]; then
    installed=$DESTDIR$PREFIX/bin/oci-hotplug
    [ -x "$installed" ] || fail "cannot uninstall: $installed does not exist (nothing was installed by this script with these PREFIX and DESTDIR)"
    install_verb "$installed" --uninstall $force
    exit 0
fi
[ -n "$bins" ] || build
[ -x "$bins/oci-hotplug" ] || fail "cannot find $bins/oci-hotplug: build it, or omit --bin-dir"
install_verb "$bins/oci-hotplug" --from "$bins" --packaging "$here/packaging" $plugin
[ -n "$DESTDIR" ] || next_steps
