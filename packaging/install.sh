#!/bin/sh
# Installs oci-hotplug: builds it, puts every file in its place, and says what each engine still needs.
#
#   packaging/install.sh                   build and install; run it again to update
#   packaging/install.sh --bin-dir DIR     install the executables that are in DIR: nothing is built
#   packaging/install.sh --device-plugin   also the Kubernetes device plugin, for nodes where it is no DaemonSet
#   packaging/install.sh --uninstall       remove what was installed, but no configuration that was changed
#   packaging/install.sh --uninstall --force    also while watchers run: their containers keep what they have
#
# Variables: DESTDIR (a directory that stands for /, for packages), PREFIX (/usr), SYSCONFDIR (/etc).
set -eu
umask 022

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr}
SYSCONFDIR=${SYSCONFDIR:-/etc}

libexec=$PREFIX/libexec/oci/hooks.d
data=$PREFIX/share/oci-hotplug
man=$PREFIX/share/man
# Where podman and CRI-O look by default, wherever the rest goes.
hooks_json=/usr/share/containers/oci/hooks.d
config=$SYSCONFDIR/oci-hotplug/config.toml
cdi=$SYSCONFDIR/cdi
units=$PREFIX/lib/systemd/system
# What was installed: "dir PATH" for a directory that was made, "HASH PATH" for a file.
manifest=$data/installed
watcher=$libexec/oci-hotplug-watcher

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

hash_of() { sum=$(sha256sum <"$DESTDIR$1") && printf '%s\n' "${sum%% *}"; }

# The hash that a file had when it was installed; empty when it was not.
installed_hash() {
    [ -f "$DESTDIR$manifest" ] || return 0
    while read -r hash path; do
        [ "$hash" = dir ] || [ "$path" != "$1" ] || printf '%s\n' "$hash"
    done <"$DESTDIR$manifest"
}

# Makes a directory and those above it, and notes those that were not there.
make_dir() {
    [ -d "$DESTDIR$1" ] && return 0
    make_dir "$(dirname -- "$1")"
    mkdir "$DESTDIR$1"
    printf 'dir %s\n' "$1" >>"$notes"
}

note() { printf '%s %s\n' "$(hash_of "$1")" "$1" >>"$notes"; }

# put SOURCE PATH MODE: puts a file in its place by rename, so that a hook that just runs is not disturbed.
put() {
    make_dir "$(dirname -- "$2")"
    if [ -e "$DESTDIR$2" ] && cmp -s "$1" "$DESTDIR$2"; then
        chmod "$3" "$DESTDIR$2"
    else
        install -m "$3" "$1" "$DESTDIR$2.new"
        mv -f "$DESTDIR$2.new" "$DESTDIR$2"
        say "installed $2"
    fi
    note "$2"
}

# put_config SOURCE PATH: as put, but what the administrator changed stays.
put_config() {
    if [ -e "$DESTDIR$2" ] && ! cmp -s "$1" "$DESTDIR$2" && [ "$(hash_of "$2")" != "$(installed_hash "$2")" ]; then
        say "kept $2, which was changed (the one of this version: $data/config.toml)"
        # Not ours any more: no hash fits it.
        printf 'kept %s\n' "$2" >>"$notes"
        return 0
    fi
    put "$1" "$2" 644
}

running_watchers() {
    for exe in /proc/[0-9]*/exe; do
        target=$(readlink "$exe" 2>/dev/null) || continue
        case $target in
            "$DESTDIR$watcher" | "$DESTDIR$watcher (deleted)" | "$DESTDIR$watcher.new (deleted)")
                pid=${exe#/proc/}
                printf '%s ' "${pid%/exe}"
                ;;
        esac
    done
}

build() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || fail "cargo is missing: install Rust ($(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$here/Cargo.toml") or newer), a C compiler, pkg-config and libudev-dev; or build as another user with \"cargo build --release\" and install with --bin-dir target/release"
    say "building (cargo build --release)"
    # shellcheck disable=SC2086 # none, or two words
    (cd "$here" && cargo build --release --locked --bins $features) || fail "the build failed"
    bins=${CARGO_TARGET_DIR:-$here/target}/release
}

install_all() {
    [ -n "$bins" ] || build
    for program in oci-hotplug oci-hotplug-prestart oci-hotplug-poststop oci-hotplug-watcher oci-hotplug-usbip $plugin; do
        [ -x "$bins/$program" ] || fail "$bins/$program is not there: build it, or leave --bin-dir out"
    done
    [ -w "$(existing "$DESTDIR$PREFIX")" ] || fail "$DESTDIR$PREFIX is not writable: run this as root, or name a DESTDIR"
    # A container's start waits for none of this; and with /dev/null no configuration stands in its way.
    "$bins/oci-hotplug" --config /dev/null generate-docs "$scratch"

    for program in usbip watcher prestart poststop; do
        put "$bins/oci-hotplug-$program" "$libexec/oci-hotplug-$program" 755
    done
    put "$bins/oci-hotplug" "$PREFIX/bin/oci-hotplug" 755
    put_completions oci-hotplug
    if [ -n "$plugin" ]; then
        "$bins/$plugin" --generate-docs "$scratch"
        put "$bins/$plugin" "$PREFIX/bin/$plugin" 755
        put "$scratch/man/$plugin.8" "$man/man8/$plugin.8" 644
        put_completions $plugin
    fi
    for page in "$scratch"/man/*.1 "$here"/packaging/man/*.[5-8]; do
        put "$page" "$man/man${page##*.}/${page##*/}" 644
    done
    put "$here/packaging/config.toml" "$data/config.toml" 644
    put_config "$here/packaging/config.toml" "$config"
    install_units
    install_cdi
    # Last, for from here on podman and CRI-O start the hooks.
    for hook in prestart poststop; do
        sed "s|/usr/libexec/oci/hooks.d/|$libexec/|" "$here/hooks.d/oci-hotplug-$hook.json" >"$scratch/hook.json"
        put "$scratch/hook.json" "$hooks_json/oci-hotplug-$hook.json" 644
    done
}

put_completions() {
    put "$scratch/completions/$1.bash" "$PREFIX/share/bash-completion/completions/$1" 644
    put "$scratch/completions/_$1" "$PREFIX/share/zsh/site-functions/_$1" 644
    put "$scratch/completions/$1.fish" "$PREFIX/share/fish/vendor_completions.d/$1.fish" 644
}

install_units() {
    for unit in oci-hotplug-watcher@.service oci-hotplug.slice oci-hotplug-recover.service \
        oci-hotplug-metrics.service oci-hotplug-metrics.timer; do
        sed "s|/usr/libexec/oci/hooks.d/|$libexec/|; s|/usr/bin/|$PREFIX/bin/|" "$here/packaging/systemd/$unit" >"$scratch/unit"
        put "$scratch/unit" "$units/$unit" 644
    done
    reload_systemd
    # A package's scripts do this by themselves; an administrator who has disabled it has the last word.
    if systemd_is_ours && [ "$updates" = no ]; then
        systemctl --quiet enable oci-hotplug-recover.service || say "not enabled: systemctl enable oci-hotplug-recover.service"
    fi
}

# Whether systemd runs, and runs this tree.
systemd_is_ours() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

# systemd reads units anew.
reload_systemd() {
    if systemd_is_ours; then
        systemctl daemon-reload || say "systemd did not read its units anew: systemctl daemon-reload"
    fi
}

install_cdi() {
    make_dir "$cdi"
    # A package's tree is looked at by itself; otherwise all that the engines read.
    if [ -n "$DESTDIR" ]; then set -- --cdi-dir "$DESTDIR$cdi"; else set --; fi
    "$bins/oci-hotplug" --config /dev/null cdi generate annotated "$@" \
        --hook-dir "$libexec" --output "$DESTDIR$cdi" >"$scratch/cdi" || fail "the CDI device was not written"
    case $(cat "$scratch/cdi") in
        *": unchanged "*) ;;
        *) say "installed $cdi/oci-hotplug.dev-device_annotated.json" ;;
    esac
    note "$cdi/oci-hotplug.dev-device_annotated.json"
}

# The nearest directory above a path that is there.
existing() {
    path=$1
    while [ ! -d "$path" ]; do path=$(dirname -- "$path"); done
    printf '%s\n' "$path"
}

# Writes down what is installed now. With "all", what an earlier version had and this one has not is removed; without,
# something went wrong half-way, and what was there stays noted.
write_manifest() {
    make_dir "$data"
    if [ -f "$DESTDIR$manifest" ]; then
        while read -r hash path; do
            if [ "$hash" = dir ]; then
                printf 'dir %s\n' "$path" >>"$notes"
            elif ! awk -v path="$path" '$1 != "dir" && $2 == path { found = 1 } END { exit !found }' "$notes"; then
                if [ "$1" = all ]; then
                    rm -f "$DESTDIR$path"
                    say "removed $path, which this version has not"
                else
                    printf '%s %s\n' "$hash" "$path" >>"$notes"
                fi
            fi
        done <"$DESTDIR$manifest"
    fi
    sort -u "$notes" >"$DESTDIR$manifest.new"
    mv -f "$DESTDIR$manifest.new" "$DESTDIR$manifest"
    : >"$notes"
}

# However it ends: what is in its place is noted, so that --uninstall finds it.
leave() {
    if [ -s "$notes" ]; then write_manifest part; fi
    rm -rf "$scratch"
}

uninstall() {
    [ -f "$DESTDIR$manifest" ] || fail "$DESTDIR$manifest is not there: nothing was installed by this script (was it with another PREFIX or DESTDIR?)"
    pids=$(running_watchers)
    if [ -n "$pids" ] && [ "$force" = no ]; then
        fail "watchers of running containers are at work (processes ${pids% }): stop the containers first, or use --force and leave them what they have"
    fi
    if systemd_is_ours; then
        systemctl --quiet disable --now oci-hotplug-recover.service oci-hotplug-metrics.timer || :
    fi
    # The hooks' JSON first, so that no engine starts a hook that is gone.
    sort -r "$DESTDIR$manifest" >"$scratch/manifest"
    for round in json rest; do
        while read -r hash path; do
            case $hash:$round:$path in
                dir:*) ;;
                *:json:"$hooks_json"/* | *:rest:*) remove_file "$hash" "$path" ;;
            esac
        done <"$scratch/manifest"
    done
    rm -f "$DESTDIR$manifest"
    # The deepest first.
    sed -n 's/^dir //p' "$scratch/manifest" | sort -r | while read -r path; do
        rmdir "$DESTDIR$path" 2>/dev/null || :
    done
    reload_systemd
    say "oci-hotplug is removed"
}

remove_file() {
    [ -e "$DESTDIR$2" ] || return 0
    case $2 in
        "$config" | "$cdi"/*)
            if [ "$(hash_of "$2")" != "$1" ]; then
                say "left $2, which was changed"
                return 0
            fi
            ;;
    esac
    rm -f "$DESTDIR$2"
    say "removed $2"
}

next_steps() {
    cat <<EOF

Ready. Containers ask with the annotation io.oci-hotplug.devices, for example usb:0403:6001 (man oci-hotplug-requests).
  podman      nothing more as root: podman run --annotation 'io.oci-hotplug.devices=usb:0403:6001' ...
  CRI-O       nothing more: the same annotation on the pod
  Docker      28.2 and newer: nothing more; 25 and newer: {"features": {"cdi": true}} in /etc/docker/daemon.json; then
              docker run --device oci-hotplug.dev/device=annotated --annotation 'io.oci-hotplug.devices=usb:0403:6001' ...
  containerd  2.0 and newer: nothing more; 1.7: enable_cdi = true in config.toml; then a CDI device with the request:
              oci-hotplug cdi generate board --device 'usb:0403:6001', which is oci-hotplug.dev/device=board
  runc, crun  both hooks in config.json: man oci-hotplug-prestart
See what happens: oci-hotplug list
EOF
}

action=install
force=no
bins=
plugin=
features=
while [ $# -gt 0 ]; do
    case $1 in
        --uninstall) action=uninstall ;;
        --force) force=yes ;;
        --device-plugin) plugin=oci-hotplug-device-plugin features='--features kubernetes' ;;
        --bin-dir)
            [ $# -gt 1 ] || fail "--bin-dir needs a directory"
            bins=$2
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

if [ -n "$DESTDIR" ]; then
    mkdir -p "$DESTDIR"
    DESTDIR=$(CDPATH='' cd -- "$DESTDIR" && pwd)
fi
scratch=$(mktemp -d)
notes=$scratch/notes
: >"$notes"
trap leave EXIT
trap 'exit 1' HUP INT TERM

if [ "$action" = uninstall ]; then
    uninstall
    exit 0
fi
updates=no
[ ! -f "$DESTDIR$manifest" ] || updates=yes
install_all
write_manifest all
pids=$(running_watchers)
[ -z "$pids" ] || say "watchers that run (processes ${pids% }) stay as they are; \"oci-hotplug recover --restart-watchers\" moves them to this version, and no container notices"
[ -n "$DESTDIR" ] || next_steps
