//! The remote devices that are attached to this host: the kernel's ports together with
//! oci-hotplug's records.
//!
//! Must not know how a device is attached (`attach`) or detached (`detach`).

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::UsbipError;
use super::hubs;
use super::records::{self, Record, Records};
use super::vhci::{LocalDevice, Slot, State, Vhci, VhciError};
use crate::host::state::leases::{Hold as LeaseHold, LeaseError, Leases};
use crate::model::device::SysPath;
use crate::model::device::same_data::Extent;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::{Binding, LastConnection};

/// The interval of reading sysfs while the kernel enumerates or releases a device, and of trying to
/// get a lock.
pub(super) const INTERVAL: Duration = Duration::from_millis(10);
/// The lease for choosing and releasing ports.
const PORTS: &str = "usbip/ports";

#[derive(Debug)]
pub struct Attached {
    pub slot: Slot,
    /// The device, once the kernel has created it.
    pub device: Option<LocalDevice>,
    /// The record; `None` if another tool attached the device.
    pub record: Option<Record>,
}

impl Attached {
    /// Whether the device can be used. The kernel shows a port as starting until it sets the
    /// address of the device. If the connection was replaced during the enumeration, the kernel
    /// never sets it; then the record decides.
    pub fn is_up(&self) -> bool {
        let is_verified =
            self.device.is_some() && self.record.as_ref().is_some_and(|record| record.local.is_some());
        match self.slot.state {
            State::Used => true,
            State::Starting => is_verified,
            State::Free | State::Broken | State::NotReady => false,
        }
    }
}

/// What a device is attached for.
#[derive(Debug, Clone, Default)]
pub struct Purpose {
    /// The container that the device is reserved for; `None` if an operator attaches it for all.
    pub container: Option<String>,
    /// The previous connection, which broke.
    pub last: Option<LastConnection>,
}

/// A device that an operator wants to detach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Port(u32),
    Device(RemoteDevice),
}

/// The remote devices of this host.
#[derive(Debug)]
pub struct Usbip {
    pub(super) vhci: Vhci,
    state_dir: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) records: Records,
}

impl Usbip {
    /// Uses the controllers of this kernel. Restores the settings of root hubs that a killed
    /// process has changed.
    ///
    /// # Errors
    /// If the kernel has no controllers.
    pub fn open(state_dir: &Path) -> Result<Self, VhciError> {
        Ok(Self::new(Vhci::open()?, state_dir))
    }

    /// [`Usbip::open`] with given controllers.
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

    /// All ports that are in use.
    ///
    /// # Errors
    /// If the ports cannot be read.
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

    /// The record of a device, if it is attached to this host.
    pub(super) fn record_of(&self, remote: &RemoteDevice) -> Result<Option<Record>, UsbipError> {
        let mut ours = self
            .attached()?
            .into_iter()
            .filter_map(|attached| attached.record);
        Ok(ours.find(|record| record.remote == *remote))
    }

    /// The lock for choosing or releasing a port. It is held only briefly.
    pub(super) fn lock_ports(&self, remote: &RemoteDevice, deadline: Instant) -> Result<Leases, UsbipError> {
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

    pub(super) fn take_lease(&self, name: &str) -> Result<Option<Leases>, LeaseError> {
        let mut leases = Leases::new(&self.state_dir);
        let name = SysPath::new(name);
        let held = leases.take(&name, &[Extent::whole(name.clone())], LeaseHold::Exclusive)?;
        Ok(held.map(|_| leases))
    }
}

/// The local device of a remote device, for whatever purpose it is attached.
pub fn binding_of(state_dir: &Path, remote: &RemoteDevice) -> Option<Binding> {
    let attached = Usbip::open(state_dir).ok()?.attached().ok()?;
    let is_named = |attached: &&Attached| {
        let record = attached.record.as_ref();
        record.is_some_and(|record| record.is_named(remote))
    };
    binding(attached.iter().find(is_named)?)
}

/// The local device of an attached remote device.
pub(super) fn binding(attached: &Attached) -> Option<Binding> {
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
