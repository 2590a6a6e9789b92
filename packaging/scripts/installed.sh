# Runs when the package's files are in place; $upgraded is empty the first time.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    systemd-tmpfiles --create oci-hotplug.conf || :
fi
# Watchers that run move to this version; their containers do not notice.
if [ -n "$upgraded" ] && oci-hotplug recover --help >/dev/null 2>&1; then
    oci-hotplug recover --restart-watchers \
        || echo 'oci-hotplug: some watchers still run the earlier version: "oci-hotplug check" names them' >&2
fi
