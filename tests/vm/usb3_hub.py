"""The two halves of a USB 3 hub, attached to peered ports of vhci_hcd, until this program is ended.

The machine's kernel drives them as the hubs that they say they are. Prints their names in sysfs.
"""

import signal
import socket
import struct
import sys
import threading

VHCI = "/sys/devices/platform/vhci_hcd.0/"
BOS = "14100400" + "5a" * 16
HALVES = {
    "hs": {
        "speed": 3,
        "descriptors": {
            1: "120110020900014009211328119001020001",
            2: "09021900010100e0320904000001090000000705810301000c",
            15: "050f20000207100202000000" + BOS,
        },
        "hub": "092904e900326400ff",
        "port": "00010000",
    },
    "ss": {
        "speed": 5,
        "descriptors": {
            1: "120100030900030909211308119001020001",
            2: "09021f00010100e000090400000109000000" + "07058113020008" + "063000000200",
            15: "050f2a000307100202000000" + "0a1003000e000308be00" + BOS,
        },
        "hub": "0c2a04090032640400000000",
        "port": "a0020000",
    },
}
SUBMIT, UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
UNLINKED = -104


def read(line, length):
    data = b""
    while len(data) < length:
        more = line.recv(length - len(data))
        if not more:
            sys.exit()
        data += more
    return data


def answer(half, setup):
    """What the hub answers to a control request that reads."""
    kind, request, value, _, length = struct.unpack("<BBHHH", setup)
    text = {
        (0x80, 6): half["descriptors"].get(value >> 8, "04030904"),
        (0xA0, 6): half["hub"],
        (0xA0, 0): "00000000",
        (0xA3, 0): half["port"],
        (0x80, 0): "0100",
    }.get((kind, request), "0000")
    return bytes.fromhex(text)[:length]


def serve(half, line):
    while True:
        header = read(line, 48)
        command, number, _, direction, endpoint = struct.unpack(">5I", header[:20])
        if command == UNLINK:
            line.sendall(struct.pack(">5Ii24x", RET_UNLINK, number, 0, 0, 0, UNLINKED))
            continue
        length = struct.unpack(">I", header[24:28])[0]
        data = b"" if direction else read(line, length)
        if endpoint:
            continue  # No port changes: the interrupt pipe stays unanswered.
        data = answer(half, header[40:48]) if direction else data
        reply = struct.pack(">5I5i8x", RET_SUBMIT, number, 0, 0, 0, 0, len(data), 0, 0, 0)
        line.sendall(reply + (data if direction else b""))


def first_port(hub):
    with open(VHCI + "status") as status:
        rows = [row.split() for row in status]
    return next(int(row[1]) for row in rows if row[0] == hub)


def attach(hub, half, device):
    listener = socket.create_server(("127.0.0.1", 0))
    kernels = socket.create_connection(listener.getsockname())
    own, _ = listener.accept()
    threading.Thread(target=serve, args=(half, own), daemon=True).start()
    with open(VHCI + "attach", "w") as file:
        file.write(f"{first_port(hub)} {kernels.fileno()} {device} {half['speed']}")
    return own, kernels


LINES = [attach(hub, half, 0x10002 + at) for at, (hub, half) in enumerate(HALVES.items())]
print("attached", flush=True)
signal.pause()
