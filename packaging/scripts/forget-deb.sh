if [ -n "$purge" ] && command -v deb-systemd-helper >/dev/null; then
    for unit in oci-hotplug-recover.service oci-hotplug-metrics.timer; do
        deb-systemd-helper purge $unit >/dev/null || :
        deb-systemd-helper unmask $unit >/dev/null || :
    done
fi
