# Ends what a test has started and removes what it has made, when standard input ends: the test
# holds the other end of the pipe, and the kernel closes that however the test ends. Runs in the
# test's mount namespace as `sh -c SCRIPT guard PID CGROUPS SCRATCH`: the process of the tests, the
# name of the parent of the test's cgroups, and the test's scratch directory.
#
# Two things stay when a test was killed: virtual terminals, and whole loop devices without a file.
tests=$1 cgroups=$2 scratch=$3
cat >/dev/null

# Whether a process is in the test's mount namespace or in one of its cgroups.
is_of_the_test() {
    [ ! "/proc/$1/ns/mnt" -ef /proc/$$/ns/mnt ] || return 0
    while read -r line; do
        case $line in
            */"$cgroups" | */"$cgroups"/*) return 0 ;;
        esac
    done <"/proc/$1/cgroup"
    return 1
}

# Kills these processes; fails if there were none. One that has ended has no executable any more.
kill_all() {
    found=1
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        [ "$pid" != $$ ] && [ "$pid" != "$tests" ] && [ -e "$directory/exe" ] || continue
        if is_of_the_test "$pid"; then
            kill -KILL "$pid"
            found=0
        fi
    done
    return $found
}

# A process can start another one while this goes through the list.
attempts=200
while kill_all && [ $attempts -gt 0 ]; do
    attempts=$((attempts - 1))
    sleep 0.05
done

for file in /sys/block/loop*/loop/backing_file; do
    read -r backing <"$file" || continue
    case $backing in
        "$scratch"/*)
            disk=${file#/sys/block/}
            disk=/dev/${disk%%/*}
            partx --delete "$disk"
            losetup --detach "$disk"
            ;;
    esac
done

# Those of v2, and of each hierarchy of v1.
for directory in "/sys/fs/cgroup/$cgroups" /sys/fs/cgroup/*/"$cgroups"; do
    [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} +
done
umount --lazy "$scratch"
rmdir "$scratch"
