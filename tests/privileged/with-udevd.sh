#!/usr/bin/env bash
# with-udevd.sh COMMAND...: runs COMMAND on a host that has a systemd-udevd, as root.
#
# Starts one in the namespaces of the caller, as a machine has it, and stops it afterwards; removes
# what it left in /run/udev. On a host that already runs udevd, COMMAND runs beside that one. Exits
# with COMMAND's exit code, and with 125 where udevd cannot be started.
set -uo pipefail

answers() {
    [ -e /run/udev/control ] && udevadm control --ping --timeout=2 >/dev/null 2>&1
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 125
}

[ $# -gt 0 ] || fail "usage: $0 COMMAND..."
[ "$(id -u)" = 0 ] || fail "udevd needs root"
if answers; then
    "$@"
    exit
fi

program=
for path in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd; do
    [ ! -x "$path" ] || { program=$path; break; }
done
[ -n "$program" ] || fail "systemd-udevd is not installed: apt-get install udev"

before=$(mktemp)
udevd=
cleanup() {
    if [ -n "$udevd" ]; then
        # A udevd that has processed the last events has taken its links in /dev away.
        udevadm settle --timeout=30 || :
        kill "$udevd" 2>/dev/null || :
        wait "$udevd" 2>/dev/null || :
        # Deepest first: a directory is empty when it is its turn.
        find /run/udev -depth 2>/dev/null | grep -vxFf "$before" | while read -r path; do
            if [ -d "$path" ] && [ ! -L "$path" ]; then
                rmdir "$path" 2>/dev/null || :
            else
                rm -f "$path"
            fi
        done
    fi
    rm -f "$before"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# One line at least: grep -f with an empty file would match nothing, and remove everything.
printf '%s\n' / >"$before"
find /run/udev >>"$before" 2>/dev/null
# It ends with this script also where that is killed, and keeps no descriptor of the caller's (a
# lock, say).
setpriv --pdeathsig KILL bash -c 'for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-"
done
exec "$0"' "$program" </dev/null >/dev/null 2>&1 &
udevd=$!
for _ in $(seq 100); do
    answers && break
    kill -0 "$udevd" 2>/dev/null || fail "systemd-udevd ended as soon as it was started"
    sleep 0.1
done
answers || fail "systemd-udevd does not answer"
"$@"
