# Runs before the package's files are removed, and refuses while containers have a watcher: without
# the hooks, a restart of the container would fail.
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
    echo "oci-hotplug: containers are running with watchers (processes$watchers)." >&2
    echo 'Stop the containers first ("oci-hotplug list" names them). Or set OCI_HOTPLUG_REMOVE_ANYWAY=1: then they' >&2
    echo 'keep their devices and watchers until they end.' >&2
    exit 1
fi
