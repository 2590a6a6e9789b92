//! The records of remote devices: which device is attached to which port, and for which container.
//!
//! ```text
//! <state-dir>/usbip/port-<N>.json    0600; written before the device is attached, and after it is
//!                                    verified
//! ```
//! A record is valid only while the kernel shows the same device at the port: other tools use
//! ports, too. Must not know how a device is attached.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::protocol::Speed;
use super::vhci::{LocalDevice, Slot, State, attribute, raw_node};
use crate::host::regular_file;
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::state::flock;
use crate::model::device::SysPath;
use crate::model::device::inventory::Inventory;
use crate::model::remote::address::{RemoteDevice, UsbIdPattern};
use crate::model::remote::reservation::{Reservation, ReservedDevice};

/// The directory of records within the state directory.
pub(super) const DIRECTORY: &str = "usbip";
/// The version of the record's format.
const VERSION: u32 = 1;

/// A record could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source} (the state directory must be writable for root)", path.display())]
pub struct RecordError {
    /// What cannot be done, as a verb.
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// A device that was attached, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub port: u32,
    /// The requested address of the device.
    pub requested: RemoteDevice,
    /// Its address with its bus id.
    pub remote: RemoteDevice,
    /// Bus and number at the server, in one number.
    pub devid: u32,
    /// The kernel's number for the speed.
    pub speed: u32,
    /// The speed according to the server, if the kernel was given another one.
    #[serde(default)]
    pub reported_speed: Option<u32>,
    /// The path of the device in sysfs, known before the device exists.
    #[serde(default)]
    pub place: Option<PathBuf>,
    /// The container that it is reserved for; `None` if an operator attached it for all.
    #[serde(default)]
    pub container: Option<String>,
    /// The local TCP port of the connection. A new connection from this port makes a server release
    /// the device if the server has not noticed that the old connection is gone.
    #[serde(default)]
    pub local_port: u16,
    /// The id of this attempt: distinguishes two attachments of the same device to the same port.
    #[serde(default)]
    pub attempt: String,
    /// The device as created by the kernel; `None` until it is verified and authorized.
    pub local: Option<Local>,
}

/// A remote device as created by this host's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The name in sysfs, such as `3-1`.
    pub name: String,
    /// The number on its bus.
    pub devnum: u32,
    /// Vendor and product, in the format of lsusb(8).
    pub ids: String,
    /// Its serial number, if it has one.
    pub serial: Option<String>,
}

impl Local {
    /// The device, with the serial number that was read while the server could not block the
    /// reader.
    pub fn new(device: &LocalDevice, serial: Option<String>) -> Self {
        Self {
            name: device.name.clone(),
            devnum: device.devnum,
            ids: device.ids.to_string(),
            serial,
        }
    }

    /// Whether this is the same device: a bus does not reuse numbers at once.
    fn is(&self, device: &LocalDevice) -> bool {
        (&self.name, self.devnum, &self.ids) == (&device.name, device.devnum, &device.ids.to_string())
    }
}

impl Record {
    /// The record of a device that is about to be attached.
    pub fn new(port: u32, requested: RemoteDevice, remote: RemoteDevice, devid: u32, speed: u32) -> Self {
        Self {
            version: VERSION,
            port,
            requested,
            remote,
            devid,
            speed,
            reported_speed: None,
            place: None,
            container: None,
            local_port: 0,
            attempt: String::new(),
            local: None,
        }
    }

    /// How the attachment differs from an ordinary one, for messages.
    pub fn note(&self) -> Option<String> {
        let of = |number| Speed::new(number).map(|speed| speed.to_string());
        Some(format!(
            "its server reports {} speed; attached with {} speed, which every kernel supports",
            of(self.reported_speed?)?,
            of(self.speed)?
        ))
    }

    /// The container or operator that it is attached for, for messages.
    pub fn holder(&self) -> String {
        match &self.container {
            Some(id) => format!("container {id}"),
            None => "`oci-hotplug usbip attach`".into(),
        }
    }

    /// Whether the device at the port is the one of this record. The kernel shows which device it
    /// is only while the state is [`State::Used`].
    pub fn is_of(&self, slot: &Slot, device: Option<&LocalDevice>) -> bool {
        if slot.port != self.port {
            return false;
        }
        let is_told = (slot.devid, slot.speed) == (self.devid, self.speed);
        let is_same = match (&self.local, device) {
            (Some(local), Some(device)) => local.is(device),
            // The device is appearing.
            (None, _) => true,
            // The device is disappearing, or (unless used) another one is appearing.
            (Some(_), None) => slot.state == State::Used,
        };
        match slot.state {
            State::Free | State::NotReady => false,
            State::Used => is_told && is_same,
            State::Starting | State::Broken => is_same,
        }
    }

    /// Whether an operator's address means this device.
    pub fn is_named(&self, named: &RemoteDevice) -> bool {
        if *named == self.requested || *named == self.remote {
            return true;
        }
        let (Some((ids, _)), Some(local)) = (named.device.identity(), &self.local) else {
            return false;
        };
        let is_there = named
            .device
            .busid()
            .is_none_or(|busid| self.remote.device.busid() == Some(busid));
        let is_one = local
            .ids
            .parse::<UsbIdPattern>()
            .is_ok_and(|own| own.is_covered_by(ids));
        let is_it = named.device.matches_serial(local.serial.as_deref());
        named.server == self.remote.server && is_there && is_one && is_it
    }
}

/// The part of a record that a reservation needs. (Parsing all of it would add 20 KiB to a
/// watcher.)
#[derive(Deserialize)]
struct ReservationRecord {
    remote: String,
    place: Option<SysPath>,
    container: Option<String>,
    local: Option<LocalRecord>,
}

/// The part of [`Local`] that a reservation needs.
#[derive(Deserialize)]
struct LocalRecord {
    name: String,
    devnum: u32,
}

impl ReservationRecord {
    fn read(path: &Path) -> Option<Reservation> {
        let record: Self = serde_json::from_slice(&regular_file::read(path).ok()?).ok()?;
        let (local, syspath) = (record.local, record.place?);
        Some(Reservation {
            remote: record.remote,
            // The kernel answers this attribute without a request to the device.
            is_verified: local.is_some()
                || attribute(syspath.as_path(), "authorized").as_deref() == Some("1"),
            num: local.and_then(|local| raw_node(&local.name, local.devnum)),
            syspath,
            container: record.container,
        })
    }
}

/// The remote devices that this host has attached or is attaching.
pub(crate) fn reservations(state_dir: &Path) -> Vec<Reservation> {
    let entries = fs::read_dir(state_dir.join(DIRECTORY)).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    // The other files are locks, and records that are being written.
    let records = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    records
        .filter_map(|path| ReservationRecord::read(&path))
        .collect()
}

/// The devices that requests of a container for local devices must not select, because they are
/// reserved.
pub(crate) fn reserved_devices(
    state_dir: &Path,
    container: &str,
    inventory: &Inventory,
) -> Vec<ReservedDevice> {
    let reservations = reservations(state_dir);
    let reserved = reservations.iter();
    let reserved = reserved.filter_map(|reservation| reservation.against(container, inventory));
    reserved.collect()
}

#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    /// The records in a directory, which [`Records::make`] creates.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Creates the directory.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn make(&self) -> Result<(), RecordError> {
        flock::create_dir(&self.dir).map_err(|source| failed("create", &self.dir, source))
    }

    /// All readable records. Records in another version's format are ignored.
    pub(crate) fn all(&self) -> Vec<Record> {
        let mut records: Vec<Record> = fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| read(&entry.path()))
            .collect();
        records.sort_by_key(|record| record.port);
        records
    }

    /// The record of a port, if there is a readable one.
    pub(crate) fn at(&self, port: u32) -> Option<Record> {
        read(&self.path(port))
    }

    /// Writes a record, replacing the previous one of its port.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(record.port);
        serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|content| replace(&path, &content, 0o600, Durability::Volatile))
            .map_err(|source| failed("write", &path, source))
    }

    /// Removes the record of a port.
    pub(crate) fn remove(&self, port: u32) {
        let _ = fs::remove_file(self.path(port));
    }

    fn path(&self, port: u32) -> PathBuf {
        self.dir.join(format!("port-{port}.json"))
    }
}

fn read(path: &Path) -> Option<Record> {
    let record: Record = serde_json::from_slice(&regular_file::read(path).ok()?).ok()?;
    (record.version == VERSION).then_some(record)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> RecordError {
    RecordError {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
