# At boot the watchers are recovered; what the administrator has said about that stays
# (deb-systemd-helper(1p)).
deb-systemd-helper unmask oci-hotplug-recover.service >/dev/null || :
if deb-systemd-helper --quiet was-enabled oci-hotplug-recover.service; then
    deb-systemd-helper enable oci-hotplug-recover.service >/dev/null || :
else
    deb-systemd-helper update-state oci-hotplug-recover.service >/dev/null || :
fi
