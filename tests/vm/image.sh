#!/bin/sh
# Builds the machine's disk, kernel and initial ramdisk into ~/.cache/oci-hotplug/vm/<hash of the
# recipe>, once, and prints that directory. The recipe is this file, engines.sh, what they source,
# and the trees guest/ and node/.
set -eu

here=$(dirname "$(realpath "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/oci-hotplug
hash=$(cd "$here" && find image.sh engines.sh ../go-module.sh guest node -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c 1-16)
image=$cache/vm/$hash

# One at a time: two checkouts may share the cache.
mkdir -p "$cache/vm"
exec 9> "$cache/vm/lock"
flock 9
# Nobody's any more: not used for three days.
find "$cache/vm" -mindepth 1 -maxdepth 1 -type d ! -path "$image" -mtime +2 -exec rm -rf {} +
if [ -e "$image/complete" ]; then
    touch "$image"
    echo "$image"
    exit
fi
"$here/engines.sh"
echo "vm: building the image ($image)" >&2
rm -rf "$image"
mkdir -p "$image"

# Prints the path of an archive with a Debian system that has the packages $1, built with
# mmdebstrap's further arguments. Packages take most of the time, and change least: they have a
# separate cache.
debian() {
    # shellcheck disable=SC2086 # a list of words
    include=$(echo $1 | tr ' ' ',')
    shift
    set -- --quiet --variant=minbase --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' "$@" --include="$include" trixie
    archive=$cache/vm/packages-$(echo "$*" | sha256sum | cut -c 1-16).tar
    if [ ! -e "$archive" ]; then
        echo "vm: installing Debian packages: $include" >&2
        mmdebstrap "$@" "$archive.part.tar" >&2
        mv "$archive.part.tar" "$archive"
    fi
    touch "$archive"
    echo "$archive"
}

find "$cache/vm" -name 'packages-*' -mtime +2 -delete
# The ramdisk has no udevd: on a busy host its own was seen to outlive the change to the disk, and
# to answer for devices, with fewer rules, beside the machine's.
# shellcheck disable=SC2016 # the hooks are mmdebstrap's to expand
base=$(debian "systemd systemd-sysv udev dbus kmod linux-image-amd64 initramfs-tools zstd
    openssh-server iproute2 iptables nftables netavark procps jq usbutils bpftool util-linux-extra
    podman crun runc conmon containerd docker.io docker-cli docker-compose uidmap dbus-user-session passt rootlesskit slirp4netns
    busybox-static python3 python3-pyudev usbip libseccomp2 libelf1t64 etcd-server kubernetes-client" \
    --dpkgopt='path-exclude=/usr/share/initramfs-tools/hooks/udev' --dpkgopt='path-exclude=/usr/share/initramfs-tools/scripts/*/udev' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"; echo MODULES=list > "$1/etc/initramfs-tools/conf.d/machine"' \
    --essential-hook='printf "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n" > "$1/etc/initramfs-tools/modules"')
# The root file system of programs.rs: programs that use devices, without what they need of a
# desktop, and without the codecs of libasound2-plugins, on which pulseaudio depends.
programs=$(debian "udev python3-pyudev usbutils python3-serial v4l-utils alsa-utils pipewire pipewire-bin wireplumber
    libinput-tools pcscd pcsc-tools libccid modemmanager dbus libsdl2-2.0-0 pulseaudio pulseaudio-utils nodejs" \
    --dpkgopt='path-exclude=*/libLLVM*' --dpkgopt='path-exclude=*/libgallium*' --dpkgopt='path-exclude=*/libavcodec*' \
    --dpkgopt='path-exclude=*/libx265*' --dpkgopt='path-exclude=*/libcodec2*' --dpkgopt='path-exclude=*/libaom*' \
    --dpkgopt='path-exclude=*/libSvtAv1*' --dpkgopt='path-exclude=*/librsvg*' --dpkgopt='path-exclude=/usr/share/xml/iso-codes/*' \
    --dpkgopt='path-exclude=/usr/share/iso-codes/*')
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
trap 'exit 1' HUP INT TERM
tar -xf "$base" -C "$tree"
mkdir "$tree/srv/programs"
tar -xf "$programs" -C "$tree/srv/programs" --exclude './dev/*' --exclude './var/cache/*' --exclude './var/lib/apt/*' \
    --exclude './usr/share/icons' --exclude './usr/share/mime' --exclude './usr/share/fonts' --exclude './usr/share/gtk-3.0' \
    --exclude './usr/share/perl' --exclude './usr/lib/*/perl' --exclude './usr/lib/*/libgtk-3*' --exclude './usr/lib/*/libz3*'

# Where Node.js finds modules from /opt, the directory of the tests' scripts.
tar -xf "$cache/bin/node_modules.tar" -C "$tree/srv/programs"

cp -r "$here/guest/." "$tree/"
for engine in crio pinns crictl youki nerdctl containerd-rootless.sh kubelet kube-apiserver kube-scheduler kube-controller-manager; do
    install -m 0755 "$cache/bin/$engine" "$tree/usr/local/bin/$engine"
done
echo oci-hotplug-vm > "$tree/etc/hostname"
echo '127.0.0.1 localhost oci-hotplug-vm' > "$tree/etc/hosts"
echo '/dev/vda / ext4 defaults 0 0' > "$tree/etc/fstab"
# The console is for people who look into a machine that has no ssh any more.
sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
# Where podman --userns=auto and dockerd's userns-remap take their ids from.
printf 'containers:2000000:1000000\ndockremap:4000000:65536\n' | tee "$tree/etc/subuid" > "$tree/etc/subgid"

ssh-keygen -q -t ed25519 -N '' -C oci-hotplug-vm -f "$image/key"
install -d -m 0700 "$tree/root/.ssh"
install -m 0600 "$image/key.pub" "$tree/root/.ssh/authorized_keys"
rm -f "$tree"/etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -f "$tree/etc/ssh/ssh_host_ed25519_key"

systemctl --quiet --root="$tree" enable systemd-networkd ssh
# The tests start the engines they need, in the order they need them; nothing else is to take
# processor time.
systemctl --quiet --root="$tree" disable docker.service docker.socket containerd.service podman.service podman.socket \
    etcd.service podman-auto-update.timer podman-restart.service podman-clean-transient.service \
    netavark-dhcp-proxy.socket netavark-dhcp-proxy.service
systemctl --quiet --root="$tree" mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer e2scrub_reap.service systemd-networkd-wait-online.service systemd-timesyncd.service getty@tty1.service \
    systemd-random-seed.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-networkd-persistent-storage.service
systemctl --quiet --root="$tree" set-default multi-user.target
# What the first boot would update (systemd-update-done.service(8)) was made with the packages.
touch "$tree/etc/.updated" "$tree/var/.updated"

# What the tests plug in: say now, and not in the middle of a test, that the kernel has no driver
# for it.
for module in ftdi_sio usb-storage usbhid dummy_hcd g_serial vivid vhci-hcd uhid uinput joydev xhci-pci cdc-acm tun; do
    chroot "$tree" modprobe --show-depends --set-version "$(ls "$tree/lib/modules")" "$module" > /dev/null
done

cp "$tree"/boot/vmlinuz-* "$image/vmlinuz"
cp "$tree"/boot/initrd.img-* "$image/initrd.img"
rm -rf "${tree:?}"/boot/* "$tree"/var/cache/apt/*.bin "$tree"/var/lib/apt/lists/*
mke2fs -q -t ext4 -O ^has_journal -d "$tree" "$image/disk.raw" 6G >&2
touch "$image/complete"
echo "$image"
