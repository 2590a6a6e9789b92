"""Prints the events of devices with a tag, as libudev's clients receive them: action, node, serial number."""

import pyudev

monitor = pyudev.Monitor.from_netlink(pyudev.Context())
monitor.filter_by_tag("systemd")
monitor.start()
print("listening", flush=True)
for device in iter(monitor.poll, None):
    print(device.action, device.device_node, device.get("ID_SERIAL_SHORT"), flush=True)
