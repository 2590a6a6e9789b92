//! USB/IP: a USB device of another host, attached to this one. From then on it is a device like any other.
//!
//! ```text
//! attach:  client::list (which bus ids) -> lease -> client::import -> hubs::Hold -> Vhci::attach
//!            -> the device appears, without drivers -> is it the one? -> authorize -> record
//! detach:  record -> is it still that device? -> Vhci::detach -> port and sysfs are empty
//! ```
//! A device that is not the one that was asked for is detached before any driver has seen it. Nothing is detached that
//! is not known to be what was named. All waits end.

mod attach;
pub mod client;
pub mod command;
mod detach;
mod error;
pub mod hubs;
pub mod protocol;
pub mod records;
pub mod task;
pub mod vhci;
pub mod worker;

pub use error::UsbipError;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use self::records::{Record, Records};
use self::vhci::{LocalDevice, Slot, State, Vhci, VhciError};
use crate::host::state::leases::{Hold as LeaseHold, LeaseError, Leases};
use crate::model::device::SysPath;
use crate::model::device::same_data::Extent;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::{Binding, LastConnection};

/// How often sysfs is looked at while the kernel enumerates, lets a device go, or another holds a lock.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long the kernel may take to let go of a device. Seen: 0.4 s.
const DETACH: Duration = Duration::from_secs(10);
/// The lease under which ports are chosen and given up.
const PORTS: &str = "usbip/ports";

/// What is at a port.
#[derive(Debug)]
pub struct Attached {
    /// As the kernel tells it.
    pub slot: Slot,
    /// The device, when there is one already.
    pub device: Option<LocalDevice>,
    /// Ours, or `None` for what others attached.
    pub record: Option<Record>,
}

impl Attached {
    /// Whether the device can be used. The kernel shows a port as starting until it sets the address of its device, and it
    /// sets none when the connection was replaced while it was enumerating the device: then our record tells.
    pub fn is_up(&self) -> bool {
        let is_let_in =
            self.device.is_some() && self.record.as_ref().is_some_and(|record| record.local.is_some());
        match self.slot.state {
            State::Used => true,
            State::Starting => is_let_in,
            State::Free | State::Broken | State::NotReady => false,
        }
    }
}

/// For whom a device is attached, and what is known of its last connection.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// The container whose watcher asks for it; `None` for a person.
    pub owner: Option<String>,
    /// Where it was before its connection broke.
    pub last: Option<LastConnection>,
}

/// What a person names to detach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A port of this host.
    Port(u32),
    /// A device.
    Device(RemoteDevice),
}

/// This host's end of USB/IP.
#[derive(Debug)]
pub struct Usbip {
    vhci: Vhci,
    state_dir: PathBuf,
    dir: PathBuf,
    records: Records,
}

impl Usbip {
    /// With this kernel's controllers; what was left undone by one who was killed is mended.
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn open(state_dir: &Path) -> Result<Self, VhciError> {
        Ok(Self::new(Vhci::open()?, state_dir))
    }

    /// The same with given controllers.
    pub fn new(vhci: Vhci, state_dir: &Path) -> Self {
        let dir = state_dir.join(records::DIRECTORY);
        hubs::heal(&dir);
        Self {
            vhci,
            state_dir: state_dir.to_owned(),
            records: Records::new(dir.clone()),
            dir,
        }
    }

    /// Everything that is attached to this host.
    ///
    /// # Errors
    /// When the ports can't be read.
    pub fn attached(&self) -> Result<Vec<Attached>, VhciError> {
        let records = self.records.all();
        let slots = self.vhci.slots()?.into_iter();
        let used = slots.filter(|slot| !matches!(slot.state, State::Free | State::NotReady));
        let attached = used.map(|slot| {
            let device = self.vhci.device(slot.port);
            let record = records
                .iter()
                .find(|record| record.is_of(&slot, device.as_ref()))
                .cloned();
            Attached { slot, device, record }
        });
        Ok(attached.collect())
    }

    /// What is known of the device, when this host has it.
    fn record_of(&self, remote: &RemoteDevice) -> Result<Option<Record>, UsbipError> {
        let mut ours = self.attached()?.into_iter().filter_map(|one| one.record);
        Ok(ours.find(|record| record.remote == *remote))
    }

    /// The right to choose a port or to give one up: had for moments only.
    fn lock_ports(&self, remote: &RemoteDevice, deadline: Instant) -> Result<Leases, UsbipError> {
        loop {
            if let Some(lease) = self.take_lease(PORTS)? {
                return Ok(lease);
            }
            if Instant::now() > deadline {
                return Err(UsbipError::InProgress {
                    remote: remote.clone(),
                });
            }
            thread::sleep(INTERVAL);
        }
    }

    fn take_lease(&self, name: &str) -> Result<Option<Leases>, LeaseError> {
        let mut leases = Leases::new(&self.state_dir);
        let name = SysPath::new(name);
        let held = leases.take(&name, &[Extent::whole(name.clone())], LeaseHold::Exclusive)?;
        Ok(held.map(|_| leases))
    }
}

/// The device of this host that a remote device is, whoever it is attached for.
pub fn binding_of(state_dir: &Path, remote: &RemoteDevice) -> Option<Binding> {
    let attached = Usbip::open(state_dir).ok()?.attached().ok()?;
    let is_it = |one: &&Attached| one.record.as_ref().is_some_and(|record| record.is_named(remote));
    binding(attached.iter().find(is_it)?)
}

/// The device of this host that an attached remote device is.
fn binding(attached: &Attached) -> Option<Binding> {
    let (device, record) = (attached.device.as_ref()?, attached.record.as_ref()?);
    let last = LastConnection {
        busid: record.remote.device.busid()?.clone(),
        port: record.port,
        local_port: record.local_port,
    };
    Some(Binding {
        syspath: SysPath::new(device.dir.to_str()?),
        num: device.raw_node()?,
        last,
    })
}
