# Ends what a test has started and removes what it has made, when standard input ends: the test
# holds the other end of the pipe, and the kernel closes that however the test ends. Runs in the
# test's mount namespace as `sh -c SCRIPT guard PID CGROUPS SCRATCH`: the process of the tests, the
# name of the parent of the test's cgroups, and the test's scratch directory.
#
# Of a test that was killed, virtual terminals and whole loop devices without a file stay.
tests=$1 cgroups=$2 scratch=$3
cat >/dev/null

# until_it_fails COMMAND: repeats it for at most ten seconds.
until_it_fails() {
    attempts=200
    while "$@" && [ $attempts -gt 0 ]; do
        attempts=$((attempts - 1))
        sleep 0.05
    done
}

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

# Removes the partitions of a disk; fails if none is left. udevd may have one open for a moment.
remove_partitions() {
    for partition in "/sys/block/$1/$1"p*; do
        [ -d "$partition" ] || return 1
        partx --delete "/dev/$1"
        return 0
    done
}

# Removes the test's cgroups, of v2 and of each hierarchy of v1; fails if none is left then. One is
# busy for a moment after its last process has ended.
remove_cgroups() {
    found=1
    for directory in "/sys/fs/cgroup/$cgroups" /sys/fs/cgroup/*/"$cgroups"; do
        [ -d "$directory" ] || continue
        find "$directory" -depth -type d -exec rmdir {} +
        [ ! -d "$directory" ] || found=0
    done
    return $found
}

# A process can start another one while this goes through the list.
until_it_fails kill_all
while read -r _ _ _ _ mount _; do
    case $mount in
        "$scratch"/*) umount --lazy "$mount" ;;
    esac
done <<LIST
$(cat /proc/self/mountinfo)
LIST
for file in /sys/block/loop*/loop/backing_file; do
    read -r backing <"$file" || continue
    case $backing in
        "$scratch"/*)
            disk=${file#/sys/block/}
            disk=${disk%%/*}
            until_it_fails remove_partitions "$disk"
            losetup --detach "/dev/$disk"
            ;;
    esac
done
until_it_fails remove_cgroups
umount --lazy "$scratch"
rmdir "$scratch"
