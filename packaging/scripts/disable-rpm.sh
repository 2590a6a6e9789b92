if command -v systemctl >/dev/null; then
    systemctl --no-reload disable oci-hotplug-recover.service oci-hotplug-metrics.timer || :
fi
