# Runs before the package's files are removed, and refuses while containers have a watcher: without the hooks nobody
# would tell it that its container has ended, and a restart of the container would fail for want of them.
watchers=
for exe in /proc/[0-9]*/exe; do
    case $(readlink "$exe" 2>/dev/null) in
        /usr/libexec/oci/hooks.d/oci-hotplug-watcher*)
            pid=${exe#/proc/}
            watchers="$watchers ${pid%/exe}"
            ;;
    esac
done
if [ -n "$watchers" ] && [ -z "${OCI_HOTPLUG_REMOVE_ANYWAY:-}" ]; then
    echo "oci-hotplug: watchers of running containers are at work (processes$watchers)." >&2
    echo 'Stop the containers first ("oci-hotplug list" names them); or set OCI_HOTPLUG_REMOVE_ANYWAY=1: they keep' >&2
    echo 'their devices and their watchers then, until they end.' >&2
    exit 1
fi
