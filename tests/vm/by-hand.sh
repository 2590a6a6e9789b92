#!/bin/sh
# A machine to look around in: boots the tests' image, in which nothing of ours is installed, and
# opens a shell. The machine is removed when the shell ends. Arguments are a command to run instead
# of a shell.
set -eu

here=$(dirname "$(realpath "$0")")
image=$("$here/image.sh")
directory=$(mktemp -d /tmp/oci-hotplug-vm.XXXXXX)
qemu=
trap 'kill $qemu 2>/dev/null || true; rm -rf "$directory"' EXIT
trap 'exit 1' INT TERM HUP
qemu-img create -q -f qcow2 -F raw -b "$image/disk.raw" "$directory/disk.qcow2"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
qemu-system-x86_64 -accel tcg,tb-size=2047 -smp 1 -cpu max,erms=off -m 3072 -nodefaults -display none \
    -append 'root=/dev/vda rw console=ttyS0 quiet mitigations=off clearcpuid=rep_good norandmaps nokaslr' -kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
    -device qemu-xhci,id=xhci -device virtio-rng-pci -device virtio-net-pci,netdev=net \
    -drive "file=$directory/disk.qcow2,if=virtio,format=qcow2,cache=unsafe" \
    -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" \
    -serial "file:$directory/console.log" -qmp "unix:$directory/qmp,server=on,wait=off" < /dev/null &
qemu=$!
echo "vm: booting; QMP is at $directory/qmp, the console at $directory/console.log" >&2
reach() {
    ssh -F none -i "$image/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
        -o ConnectTimeout=20 -p "$port" root@127.0.0.1 "$@"
}
until reach true 2> /dev/null; do
    kill -0 $qemu
    sleep 1
done
reach "$@"
