# Runs when the package's files are gone; $purge is not empty when nothing at all is to be left.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
if [ -n "$purge" ]; then
    # While a watcher holds a container's lock, that container's state is not ours to remove.
    is_held=
    for lock in /run/oci-hotplug/containers/*/lock; do
        if [ -e "$lock" ] && ! flock --nonblock "$lock" true; then is_held=yes; fi
    done
    if [ -z "$is_held" ]; then rm -rf /run/oci-hotplug; fi
    # What "oci-hotplug cdi generate" wrote: an engine would start hooks that are gone.
    for spec in /etc/cdi/oci-hotplug.dev-*.json; do
        if grep -qs /usr/libexec/oci/hooks.d/oci-hotplug-prestart "$spec"; then rm -f "$spec"; fi
    done
    rmdir /etc/cdi /etc/oci-hotplug/config.d /etc/oci-hotplug 2>/dev/null || :
fi
