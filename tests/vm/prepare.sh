#!/bin/sh
# Makes this machine able to run the tests of tests/vm: installs what they need (Debian 12, 13,
# Ubuntu) and builds the image of the virtual machine, unless it is in the cache; with --packages,
# installs alone. As root.
set -eu

here=$(dirname "$(realpath "$0")")
missing=
for package in qemu-system-x86 qemu-utils buildah mmdebstrap e2fsprogs openssh-client util-linux curl python3-minimal \
    debian-archive-keyring gcc libc6-dev pkg-config clang libseccomp-dev libdbus-1-dev libsystemd-dev libelf-dev libudev-dev; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
command -v go > /dev/null || missing="$missing golang-go"
command -v npm > /dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
fi
[ "${1:-}" = --packages ] || exec "$here/image.sh"
