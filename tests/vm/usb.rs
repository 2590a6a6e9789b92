//! USB devices that QEMU emulates, plugged into the running machine and pulled out again. The
//! machine's kernel drives them with the drivers of real devices.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::machine::{Machine, poll};
use crate::shell::PATIENCE;

/// An FTDI serial adapter (0403:6001): /dev/ttyUSB0 and so on.
#[derive(Debug, Clone, Copy)]
pub struct UsbSerial {
    /// Its serial number.
    pub serial: &'static str,
    /// The port of the machine ("3") or of a hub ("1.2").
    pub port: &'static str,
}

/// A device that can be plugged in.
pub trait Device {
    /// The arguments of QEMU's `device_add`, without id and bus. Creates what the device needs
    /// through `machine`.
    fn arguments(&self, machine: &Machine, id: &str) -> Value;
}

/// A hub (0409:55aa) at a port of the machine.
pub struct Hub(pub &'static str);

/// A drawing tablet (0627:0001): a hidraw and input nodes.
pub struct Tablet(pub &'static str);

/// A keyboard (0627:0001): a hidraw and an input node.
pub struct Keyboard(pub &'static str);

/// A memory stick (46f4:0001) with one partition, which has the label HOTPLUG.
pub struct Stick(pub &'static str);

/// A sound card (46f4:0002) that plays to nobody.
pub struct Audio(pub &'static str);

/// A reader of smart cards (08e6:4433) without a card.
pub struct CardReader(pub &'static str);

impl Device for UsbSerial {
    fn arguments(&self, machine: &Machine, id: &str) -> Value {
        let backend = json!({ "type": "socket", "data": {
            "addr": { "type": "unix", "data": { "path": socket(machine, id) } }, "server": true, "wait": false } });
        machine
            .qmp()
            .execute("chardev-add", json!({ "id": id, "backend": backend }));
        json!({ "driver": "usb-serial", "chardev": id, "always-plugged": true, "serial": self.serial, "port": self.port })
    }
}

impl Device for Hub {
    fn arguments(&self, _: &Machine, _: &str) -> Value {
        json!({ "driver": "usb-hub", "port": self.0 })
    }
}

impl Device for Tablet {
    fn arguments(&self, _: &Machine, _: &str) -> Value {
        json!({ "driver": "usb-tablet", "port": self.0 })
    }
}

impl Device for Audio {
    fn arguments(&self, _: &Machine, _: &str) -> Value {
        json!({ "driver": "usb-audio", "audiodev": "silent", "port": self.0 })
    }
}

impl Device for CardReader {
    fn arguments(&self, _: &Machine, _: &str) -> Value {
        json!({ "driver": "usb-ccid", "port": self.0 })
    }
}

impl Device for Keyboard {
    fn arguments(&self, _: &Machine, _: &str) -> Value {
        json!({ "driver": "usb-kbd", "port": self.0 })
    }
}

impl Device for Stick {
    fn arguments(&self, machine: &Machine, id: &str) -> Value {
        let path = machine.directory.join(format!("{id}.raw"));
        // One partition of type Linux from sector 2048 on; the partition table is at the end of the
        // first sector (MBR).
        let mut disk = vec![0_u8; 4 << 20];
        disk[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[2048 * 512..2048 * 512 + 8].copy_from_slice(b"hotplug\n");
        // An area for swapping (mkswap(8)) is the shortest header with a label: version, last page
        // and label from byte 1024 on, and its name at the end of the first page.
        let swap = &mut disk[2048 * 512..];
        swap[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
        swap[1028..1032].copy_from_slice(&511_u32.to_le_bytes());
        swap[1052..1059].copy_from_slice(b"HOTPLUG");
        swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
        std::fs::write(&path, disk).expect("writing the stick's content");
        let file =
            json!({ "driver": "raw", "node-name": id, "file": { "driver": "file", "filename": path } });
        machine.qmp().execute("blockdev-add", file);
        json!({ "driver": "usb-storage", "drive": id, "port": self.0, "serial": "STICK1" })
    }
}

/// A device that is plugged in. It is pulled out when this is dropped.
pub struct Plugged<'a> {
    machine: &'a Machine,
    id: String,
    inside: bool,
}

impl Machine {
    /// Plugs `device` in. Does not wait until the machine notices.
    pub fn plug(&self, device: &impl Device) -> Plugged<'_> {
        let id = self.new_name("d");
        let mut arguments = device.arguments(self, &id);
        arguments["id"] = json!(id);
        arguments["bus"] = json!("xhci.0");
        self.qmp().execute("device_add", arguments);
        Plugged {
            machine: self,
            id,
            inside: true,
        }
    }
}

impl Plugged<'_> {
    /// Pulls the device out.
    pub fn unplug(mut self) {
        self.pull();
    }

    fn pull(&mut self) {
        self.inside = false;
        let mut qmp = self.machine.qmp();
        if qmp.try_execute("device_del", &json!({ "id": self.id })).is_ok() {
            qmp.wait_until_deleted(&self.id);
        }
        // A device with a back end has one of the two.
        let _ = qmp.try_execute("chardev-remove", &json!({ "id": self.id }));
        let _ = qmp.try_execute("blockdev-del", &json!({ "node-name": self.id }));
    }

    /// The other end of a serial adapter's line.
    pub fn line(&self) -> Line {
        let path = socket(self.machine, &self.id);
        let stream = poll(PATIENCE, || UnixStream::connect(&path).ok()).expect("the adapter's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        Line(stream)
    }
}

impl Drop for Plugged<'_> {
    fn drop(&mut self) {
        if self.inside {
            self.pull();
        }
    }
}

/// The other end of a serial adapter's line, outside of the machine.
pub struct Line(UnixStream);

impl Line {
    /// Sends `text` to the adapter.
    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("writing to the line");
    }

    /// Sends `answer` when the adapter has sent a text that ends with `end`. Returns whether it has
    /// before the adapter was unplugged.
    pub fn answers(&mut self, end: &str, answer: &str) -> bool {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(end.as_bytes()) {
            match self.0.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => return false,
            }
        }
        self.0.write_all(answer.as_bytes()).is_ok()
    }

    /// Waits until the adapter has sent `wanted`. Panics with what it sent instead.
    pub fn expect(&mut self, wanted: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            match self.0.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                end => panic!(
                    "the line said {:?} and not {wanted:?}: {end:?}",
                    String::from_utf8_lossy(&seen)
                ),
            }
        }
    }
}

fn socket(machine: &Machine, id: &str) -> String {
    machine.directory.join(id).display().to_string()
}
