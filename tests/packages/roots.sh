#!/bin/sh
# Makes bare Debian 12 and 13 systems, bookworm.tar and trixie.tar, in
# ~/.cache/oci-hotplug/roots/<hash of the recipe>, once, and prints that directory. Wants mmdebstrap
# and root.
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug/roots
# What every Debian has, and no more; libudev1 comes with its util-linux.
set -- --quiet --variant=essential --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' --include=libudev1,libgcc-s1
roots=$cache/$(echo "$*" | sha256sum | cut -c 1-16)

# One at a time: two checkouts may share the cache.
mkdir -p "$roots"
exec 9>"$cache/lock"
flock 9
find "$cache" -mindepth 1 -maxdepth 1 -type d ! -path "$roots" -mtime +2 -exec rm -rf {} +
touch "$roots"
make() {
    suite=$1
    shift
    [ ! -e "$roots/$suite.tar" ] || return 0
    echo "packages: making a bare Debian ($suite)" >&2
    mmdebstrap "$@" "$suite" "$roots/$suite.part.tar" >&2
    mv "$roots/$suite.part.tar" "$roots/$suite.tar"
}
# Both at once: they wait for the network most of the time.
make bookworm "$@" &
make trixie "$@"
wait $!
echo "$roots"
