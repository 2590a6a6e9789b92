//! The kernel's virtual USB host controllers, vhci_hcd: their ports and the devices attached to
//! them.
//!
//! Follows the kernel's drivers/usb/usbip/vhci_sysfs.c. The first controller has the control files
//! for all controllers, and ports are numbered across them. Must not know which device should be
//! attached, or for which container.

mod attributes;
mod error;
mod local_device;
mod status;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use attributes::{attribute, write_at_once};
pub use error::VhciError;
pub use local_device::LocalDevice;
pub(super) use local_device::raw_node;
pub use status::{Slot, State, parse_status};

use self::error::failed;
use super::protocol::Speed;
use crate::model::remote::vhci;

/// The timeout for the kernel to release a device. Measured: 0.4 s.
pub const DETACH_TIMEOUT: Duration = Duration::from_secs(10);

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

fn status_file(controller: u32) -> String {
    match controller {
        0 => "status".into(),
        index => format!("status.{index}"),
    }
}

#[cfg(test)]
mod tests;
