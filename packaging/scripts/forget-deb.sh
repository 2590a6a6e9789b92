if [ -n "$purge" ] && command -v deb-systemd-helper >/dev/null; then
    for unit in oci-hotplug-recover.service oci-hotplug-metrics.timer; do
        deb-systemd-helper purge $unit >/dev/null || :
        deb-systemd-helper unmask $unit >/dev/null || :
    done
fi
if [ -n "$purge" ]; then
    # What "oci-hotplug allow" and "oci-hotplug class add" wrote is configuration, too.
    rm -f /etc/oci-hotplug/config.d/*.toml
    rmdir /etc/oci-hotplug/config.d /etc/oci-hotplug 2>/dev/null || :
fi
