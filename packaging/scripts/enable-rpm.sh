# At boot the watchers are recovered, where the distribution's or the administrator's presets say
# so.
if [ -z "$upgraded" ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset oci-hotplug-recover.service || :
fi
