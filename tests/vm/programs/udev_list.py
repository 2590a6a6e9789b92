"""Prints the nodes of the serial ports that udev's database has, by tag and property, one a line."""

import pyudev

ports = pyudev.Context().list_devices(subsystem="tty", tag="systemd", ID_VENDOR_ID="0403")
for node in sorted(port.device_node for port in ports):
    print(node)
