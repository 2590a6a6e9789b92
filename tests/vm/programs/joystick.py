"""Creates a joystick with the name of the first argument through uinput, until standard input ends."""

import fcntl
import struct
import sys

SET_EVBIT, SET_KEYBIT, SET_ABSBIT = 0x40045564, 0x40045565, 0x40045567
DEV_SETUP, ABS_SETUP, DEV_CREATE = 0x405C5503, 0x401C5504, 0x5501
EV_KEY, EV_ABS, BTN_JOYSTICK = 1, 3, 0x120

with open("/dev/uinput", "wb", buffering=0) as uinput:
    for request, value in [(SET_EVBIT, EV_KEY), (SET_EVBIT, EV_ABS), (SET_KEYBIT, BTN_JOYSTICK)]:
        fcntl.ioctl(uinput, request, value)
    for axis in range(2):
        fcntl.ioctl(uinput, SET_ABSBIT, axis)
        # struct uinput_abs_setup: code, padding, value, minimum, maximum, fuzz, flat, resolution.
        fcntl.ioctl(uinput, ABS_SETUP, struct.pack("HHiiiiii", axis, 0, 0, -128, 127, 0, 0, 0))
    # struct uinput_setup: bus, vendor, product, version, name, effects.
    fcntl.ioctl(uinput, DEV_SETUP, struct.pack("HHHH80sI", 3, 0x1234, 0x5678, 1, sys.argv[1].encode(), 0))
    fcntl.ioctl(uinput, DEV_CREATE)
    print("created", flush=True)
    sys.stdin.read()
