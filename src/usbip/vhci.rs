//! The kernel's virtual USB host controllers, vhci_hcd: their ports and the devices attached to
//! them.
//!
//! Follows the kernel's drivers/usb/usbip/vhci_sysfs.c. The first controller has the control files
//! for all controllers, and ports are numbered across them. Must not know which device should be
//! attached, or for which container.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::Speed;
use crate::model::device::{DevKind, DevNum};
use crate::model::remote::address::UsbIds;
use crate::model::remote::vhci;

/// The timeout for the kernel to release a device. Measured: 0.4 s.
pub const DETACH_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest attribute that is read, in bytes; sysfs has no longer ones.
const MAX_TEXT: usize = 4096;
/// The kernel's major number for the nodes of USB devices, and the number of minors per bus
/// (drivers/usb/core/usb.h).
const USB_MAJOR: u32 = 189;
const NODES_OF_A_BUS: u32 = 128;
/// The number of digits of the socket in `status` for a controller that has not started
/// (vhci_sysfs.c, status_show_not_ready).
const NOT_READY_SOCKET: usize = 16;

/// A file of the controllers cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VhciError {
    /// The module is not loaded.
    #[error(
        "this kernel has no virtual USB host controller ({} is missing): load its module with `modprobe vhci-hcd`, and \
         at each boot with a line \"vhci-hcd\" in /etc/modules-load.d/usbip.conf",
        path.display()
    )]
    Missing {
        /// The missing file.
        path: PathBuf,
    },
    /// This process may not do it.
    #[error("cannot {action} {}: {source} (run this as root)", path.display())]
    Denied {
        /// The operation, as a gerund.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Any other error.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The operation, as a gerund.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A line of `status` has an unknown form.
    #[error("{}: \"{line}\" is not a port of a virtual USB host controller: is this a newer kernel than this program knows?", path.display())]
    Status { path: PathBuf, line: String },
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> VhciError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => VhciError::Denied { action, path, source },
        _ => VhciError::File { action, path, source },
    }
}

/// The state of a port: the kernel's `enum usbip_device_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// 4: no device attached.
    Free,
    /// 5: attached; the device has no address yet.
    Starting,
    /// 6: attached.
    Used,
    /// 7: attached, but the connection is broken.
    Broken,
    /// The controller has not started yet; shown as 5 with a longer socket number.
    NotReady,
}

/// A port according to `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The number among the ports of all controllers.
    pub port: u32,
    /// Whether it belongs to a SuperSpeed hub.
    pub is_super: bool,
    pub state: State,
    /// The speed of the attached device, as the kernel's number; 0 unless [`State::Used`].
    pub speed: u32,
    /// Bus and number of the attached device at its server; 0 unless [`State::Used`].
    pub devid: u32,
}

/// Parses a `status` file.
///
/// # Errors
/// The line that differs from those of all known kernels.
pub fn parse_status(text: &str) -> Result<Vec<Slot>, String> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    // Before Linux 4.13, there was no SuperSpeed hub and no column for it.
    let has_hub = match header.first() {
        Some(&"hub") => true,
        Some(&"port" | &"prt") => false,
        _ => return Err(header.join(" ")),
    };
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| parse_slot(line, has_hub).ok_or_else(|| line.escape_debug().to_string()))
        .collect()
}

fn parse_slot(line: &str, has_hub: bool) -> Option<Slot> {
    let mut words = line.split_whitespace();
    let is_super = match has_hub.then(|| words.next()) {
        None | Some(Some("hs")) => false,
        Some(Some("ss")) => true,
        _ => return None,
    };
    let port = words.next()?.parse().ok()?;
    let state = match words.next()?.parse::<u32>().ok()? {
        4 => State::Free,
        5 => State::Starting,
        6 => State::Used,
        7 => State::Broken,
        _ => return None,
    };
    let speed = words.next()?.parse().ok()?;
    let devid = u32::from_str_radix(words.next()?, 16).ok()?;
    let is_unready = has_hub && state == State::Starting && words.next()?.len() == NOT_READY_SOCKET;
    Some(Slot {
        port,
        is_super,
        state: if is_unready { State::NotReady } else { state },
        speed,
        devid,
    })
}

/// The position of a port: its controller, one of the controller's two hubs, and the port of the
/// hub, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    controller: u32,
    is_super: bool,
    hub_port: u32,
}

#[derive(Debug, Clone)]
pub struct Vhci {
    platform: PathBuf,
    /// How many ports each hub has.
    hub_ports: u32,
    controllers: u32,
    /// Two per controller. Read once, because they do not change while the module is loaded.
    hubs: Vec<RootHub>,
}

impl Vhci {
    /// The controllers of this kernel.
    ///
    /// # Errors
    /// If the module is not loaded.
    pub fn open() -> Result<Self, VhciError> {
        Self::open_below(Path::new(vhci::PLATFORM))
    }

    /// [`Vhci::open`] with another directory, for tests.
    ///
    /// # Errors
    /// If there are no controllers.
    pub fn open_below(platform: &Path) -> Result<Self, VhciError> {
        let control = vhci::controller(platform, 0);
        let path = control.join("nports");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VhciError::Missing { path: control });
            }
            Err(error) => return Err(failed("read", &path, error)),
        };
        let controllers = (0..)
            .take_while(|index| control.join(status_file(*index)).exists())
            .count() as u32;
        let ports: u32 = text.trim().parse().unwrap_or(0);
        if controllers == 0 || ports < 2 * controllers {
            return Err(VhciError::Status {
                path,
                line: text.escape_debug().to_string(),
            });
        }
        let hubs = (0..controllers).flat_map(|controller| RootHub::all_of(platform, controller));
        Ok(Self {
            platform: platform.to_owned(),
            hub_ports: ports / (2 * controllers),
            controllers,
            hubs: hubs.collect(),
        })
    }

    fn control(&self, file: &str) -> PathBuf {
        vhci::controller(&self.platform, 0).join(file)
    }

    /// The current state of all ports.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn slots(&self) -> Result<Vec<Slot>, VhciError> {
        let mut slots = Vec::new();
        for controller in 0..self.controllers {
            let path = self.control(&status_file(controller));
            let text = fs::read_to_string(&path).map_err(|error| failed("read", &path, error))?;
            slots.extend(parse_status(&text).map_err(|line| VhciError::Status { path, line })?);
        }
        Ok(slots)
    }

    /// The current state of one port; `None` if there is no port with this number.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn slot(&self, port: u32) -> Result<Option<Slot>, VhciError> {
        Ok(self.slots()?.into_iter().find(|slot| slot.port == port))
    }

    /// A free port for a device of this speed, if possible not `last`. A port whose last device is
    /// still in sysfs is not free: that device would take over the new connection.
    ///
    /// # Errors
    /// If the ports cannot be read.
    pub fn free_port(&self, speed: Speed, last: Option<u32>) -> Result<Option<u32>, VhciError> {
        let mut slots = self.slots()?;
        slots.retain(|slot| slot.state == State::Free && slot.is_super == speed.is_super());
        slots.sort_by_key(|slot| (Some(slot.port) == last, slot.port));
        // Without a root hub, the device could not be verified before drivers bind to it.
        let has_left = |port: &u32| self.device_dir(*port).is_some_and(|dir| !dir.exists());
        Ok(slots.into_iter().map(|slot| slot.port).find(has_left))
    }

    /// Passes a connection to the kernel, which then enumerates the device. The kernel has its own
    /// reference to the socket. Returns `false` if the port is not free.
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub fn attach(
        &self,
        port: u32,
        connection: impl AsFd,
        devid: u32,
        speed: Speed,
    ) -> Result<bool, VhciError> {
        let fd = connection.as_fd().as_raw_fd();
        let path = self.control("attach");
        match write_at_once(&path, &format!("{port} {fd} {devid} {}", speed.number())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            Err(error) => Err(failed("attach a device by writing to", &path, error)),
        }
    }

    /// Detaches the device of a port. The kernel has finished when [`Vhci::is_empty`] returns true.
    ///
    /// # Errors
    /// If no device is attached to it.
    pub fn detach(&self, port: u32) -> Result<(), VhciError> {
        let path = self.control("detach");
        write_at_once(&path, &port.to_string())
            .map_err(|error| failed("detach a device by writing to", &path, error))
    }

    /// Whether a port is free and its last device is gone from sysfs.
    ///
    /// # Errors
    /// If the ports cannot be read.
    pub fn is_empty(&self, port: u32) -> Result<bool, VhciError> {
        let is_free = self.slot(port)?.is_none_or(|slot| slot.state == State::Free);
        Ok(is_free && !self.device_dir(port).is_some_and(|dir| dir.exists()))
    }

    /// The device at a port, once the kernel has created one.
    pub fn device(&self, port: u32) -> Option<LocalDevice> {
        LocalDevice::read(self.device_dir(port)?)
    }

    /// The sysfs directory of the device at a port, even before it exists. Not read from
    /// `local_busid` in `status`, which the kernel updates late.
    pub fn device_dir(&self, port: u32) -> Option<PathBuf> {
        let place = self.place(port);
        let mut hubs = self.hubs.iter();
        let hub = hubs.find(|hub| (hub.controller, hub.is_super) == (place.controller, place.is_super))?;
        Some(hub.dir.join(format!("{}-{}", hub.bus, place.hub_port + 1)))
    }

    fn place(&self, port: u32) -> Place {
        Place {
            controller: port / (2 * self.hub_ports),
            is_super: port % (2 * self.hub_ports) >= self.hub_ports,
            hub_port: port % self.hub_ports,
        }
    }

    /// The root hubs of all controllers.
    pub fn root_hubs(&self) -> impl Iterator<Item = &Path> {
        self.hubs.iter().map(|hub| hub.dir.as_path())
    }
}

/// The bus numbers of root hubs depend on the order in which modules were loaded; the speed
/// distinguishes the hubs of a controller.
#[derive(Debug, Clone)]
struct RootHub {
    controller: u32,
    dir: PathBuf,
    bus: u32,
    is_super: bool,
}

impl RootHub {
    fn all_of(platform: &Path, controller: u32) -> impl Iterator<Item = Self> {
        let dir = vhci::controller(platform, controller);
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(move |entry| Self::read(controller, entry.path()))
    }

    fn read(controller: u32, dir: PathBuf) -> Option<Self> {
        let bus = dir.file_name()?.to_str()?.strip_prefix("usb")?.parse().ok()?;
        let speed: u32 = attribute(&dir, "speed")?.parse().ok()?;
        Some(Self {
            controller,
            dir,
            bus,
            is_super: speed >= 5000,
        })
    }
}

/// A remote device as this host's kernel sees it: by its descriptors, not by its server's
/// description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDevice {
    /// The directory in sysfs.
    pub dir: PathBuf,
    /// The name in sysfs, such as `3-1`.
    pub name: String,
    /// The number on its bus: a bus does not give two devices in a row the same number.
    pub devnum: u32,
    pub ids: UsbIds,
}

impl LocalDevice {
    fn read(dir: PathBuf) -> Option<Self> {
        let id = |name| u16::from_str_radix(&attribute(&dir, name)?, 16).ok();
        Some(Self {
            name: dir.file_name()?.to_str()?.to_owned(),
            devnum: attribute(&dir, "devnum")?.parse().ok()?,
            ids: UsbIds {
                vendor: id("idVendor")?,
                product: id("idProduct")?,
            },
            dir,
        })
    }

    /// The number of its raw node in /dev/bus/usb.
    pub fn raw_node(&self) -> Option<DevNum> {
        raw_node(&self.name, self.devnum)
    }

    /// The serial number, if it has one. Reading it waits for the lock of the device
    /// (drivers/usb/core/sysfs.c, usb_string_attr), which the kernel holds while it configures the
    /// device: a server that hangs then would block the reader.
    pub fn serial(&self) -> Option<String> {
        attribute(&self.dir, "serial")
    }

    /// Lets the kernel configure the device and bind drivers. Takes as long as the device needs to
    /// answer: if its server hangs, until the device is detached.
    ///
    /// # Errors
    /// If the kernel refuses, or the device is gone.
    pub fn authorize(&self) -> Result<(), VhciError> {
        let path = self.dir.join("authorized");
        write_at_once(&path, "1").map_err(|error| failed("authorize a device by writing to", &path, error))
    }
}

/// The number of the raw node of the device with this name in sysfs, such as `3-1`, and this number
/// on its bus.
pub(super) fn raw_node(name: &str, devnum: u32) -> Option<DevNum> {
    let bus: u32 = name.split_once('-')?.0.parse().ok()?;
    Some(DevNum {
        kind: DevKind::Char,
        major: USB_MAJOR,
        minor: bus.checked_sub(1)? * NODES_OF_A_BUS + devnum.checked_sub(1)?,
    })
}

fn status_file(controller: u32) -> String {
    match controller {
        0 => "status".into(),
        index => format!("status.{index}"),
    }
}

/// An attribute without its trailing newline, safe to display.
pub(super) fn attribute(dir: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(dir.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]);
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// Writes in a single write(2), as a sysfs attribute requires.
pub(super) fn write_at_once(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;
