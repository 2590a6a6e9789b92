//! USB/IP: a USB device of another host, attached to this one. From then on it is a device like any other.
//!
//! ```text
//! attach:  client::list (which bus ids) -> lease -> client::import -> hubs::Hold -> Vhci::attach
//!            -> the device appears, without drivers -> is it the one? -> authorize -> record
//! detach:  record -> is it still that device? -> Vhci::detach -> port and sysfs are empty
//! ```
//! A device that is not the one that was asked for is detached before any driver has seen it. Nothing is detached that
//! is not known to be what was named. All waits end.

pub mod client;
pub mod hubs;
pub mod protocol;
pub mod records;
pub mod vhci;
pub mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::client::{ClientError, Imported};
use self::hubs::{Hold, HubError};
use self::protocol::{Exported, Speed};
use self::records::{Local, Record, RecordError, Records};
use self::vhci::{LocalDevice, Slot, State, Vhci, VhciError};
use crate::host::leases::{Hold as LeaseHold, LeaseError, Leases};
use crate::model::device::SysPath;
use crate::model::usbip::{Bound, BusId, RemoteDevice, Server, UsbIds, Which};

/// How often sysfs is looked at while the kernel enumerates, lets a device go, or another holds a lock.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long the kernel may take to let go of a device. Seen: 0.4 s.
const DETACH: Duration = Duration::from_secs(10);
/// The lease under which ports are chosen and given up.
const PORTS: &str = "usbip/ports";

/// A remote device could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum UsbipError {
    /// The server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// This kernel.
    #[error(transparent)]
    Vhci(#[from] VhciError),
    /// Its root hubs.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The state directory.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The same.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Not in the server's list.
    #[error(
        "usbip server {server} exports no device {ids} that is free (a device in use is not in its list); it has: {has}",
        has = listing(.exported)
    )]
    NotFound {
        /// Which.
        server: Server,
        /// What was asked for.
        ids: UsbIds,
        /// What is there.
        exported: Vec<Exported>,
    },
    /// Not the one.
    #[error(
        "device {remote} is not the one that was asked for: {found}, and not {wanted}; it was not let in"
    )]
    WrongDevice {
        /// Which, by its bus id.
        remote: RemoteDevice,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// We have it already.
    #[error(
        "device {remote} is attached to this host already, at port {port} for {holder} (`oci-hotplug usbip ports`)"
    )]
    AlreadyAttached {
        /// Which, by its bus id.
        remote: RemoteDevice,
        /// Where.
        port: u32,
        /// Who wants it.
        holder: String,
    },
    /// Someone else here is at it.
    #[error(
        "device {remote} is being attached by another process of this host (`oci-hotplug usbip detach` ends that)"
    )]
    InProgress {
        /// Which, by its bus id.
        remote: RemoteDevice,
    },
    /// A server that does not know what it exports.
    #[error("device {remote}: its server does not know its speed, without which it can't be attached")]
    NoSpeed {
        /// Which, by its bus id.
        remote: RemoteDevice,
    },
    /// No port.
    #[error(
        "no port of the virtual USB host controllers is free for a device of {speed} speed (`oci-hotplug usbip ports`)"
    )]
    NoPort {
        /// Of the device.
        speed: Speed,
    },
    /// The connection ended.
    #[error(
        "device {remote}: the connection broke while the kernel was {doing} (the kernel's log may tell more: `dmesg`)"
    )]
    Broken {
        /// Which, by its bus id.
        remote: RemoteDevice,
        /// What, as a gerund.
        doing: &'static str,
    },
    /// It hangs.
    #[error(
        "device {remote}: not ready in time: its server hangs, or the network is slow (--timeout), while the kernel was {doing}"
    )]
    TooSlow {
        /// Which, by its bus id.
        remote: RemoteDevice,
        /// What, as a gerund.
        doing: &'static str,
    },
    /// Nothing to detach.
    #[error("{named} is not attached to this host (`oci-hotplug usbip ports` shows what is)")]
    NotAttached {
        /// As a person named it.
        named: String,
    },
    /// Not ours.
    #[error(
        "port {port} holds {what}, which oci-hotplug did not attach: it is left alone (`usbip detach -p {port}` \
         detaches whatever is there)"
    )]
    Foreign {
        /// The port.
        port: u32,
        /// What is there.
        what: String,
    },
    /// More than one.
    #[error(
        "{named} names several attached devices, at ports {ports}: name one by its port or its serial number"
    )]
    Ambiguous {
        /// As a person named it.
        named: String,
        /// Where they are.
        ports: String,
    },
    /// The kernel does not let go.
    #[error("port {port}: the kernel has not let go of the device within {} s", DETACH.as_secs())]
    Stuck {
        /// The port.
        port: u32,
    },
}

fn listing(exported: &[Exported]) -> String {
    let all: Vec<String> = exported
        .iter()
        .take(8)
        .map(|device| format!("{} {}", device.busid, device.ids))
        .collect();
    match (all.is_empty(), exported.len() - all.len()) {
        (true, _) => "none".into(),
        (_, 0) => all.join(", "),
        (_, more) => format!("{} and {more} more", all.join(", ")),
    }
}

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

/// For whom a device is attached, and what is known of its last connection.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// The container whose watcher asks for it; `None` for a person.
    pub owner: Option<String>,
    /// Where it was before its connection broke.
    pub last: Option<Last>,
}

/// Where a device was whose connection broke. `FromStr` and `Display` are each other's inverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// At the server.
    pub busid: BusId,
    /// The port of this host's controllers. The next one is another: the old device may be slow to go.
    pub port: u32,
    /// The port of TCP at this end.
    pub local_port: u16,
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.busid, self.port, self.local_port)
    }
}

impl FromStr for Last {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut words = text.splitn(3, ',');
            Some(Self {
                busid: words.next()?.parse().ok()?,
                port: words.next()?.parse().ok()?,
                local_port: words.next()?.parse().ok()?,
            })
        };
        read().ok_or("write BUSID,PORT,LOCALPORT")
    }
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

    /// Attaches a remote device. When this returns, it is the one that was asked for, and those of its
    /// drivers that are loaded are bound.
    ///
    /// # Errors
    /// When it is not had within `patience`. Then nothing of it is left.
    pub fn attach(
        &self,
        asked: &RemoteDevice,
        cause: &Cause,
        patience: Duration,
    ) -> Result<Attached, UsbipError> {
        self.records.make()?;
        let deadline = Instant::now() + patience;
        if let Some(attached) = self.attached_before(asked, cause)? {
            return Ok(attached);
        }
        let mut refused = None;
        // Where it was, it most likely is; and a server that has not noticed the break does not list it.
        let begun = self.undo_what_was_begun(asked, cause)?;
        let last = cause.last.as_ref().map(|last| last.busid.clone());
        let mut busids: VecDeque<BusId> = begun.or(last).into_iter().collect();
        let mut looked = busids.is_empty();
        if looked {
            busids.extend(self.candidates(asked, deadline)?);
        }
        while let Some(busid) = busids.pop_front() {
            let remote = RemoteDevice {
                server: asked.server.clone(),
                which: Which::BusId(busid.clone()),
            };
            let outcome = self.attach_one(asked, &remote, &busid, cause, deadline);
            if outcome.is_err() && !std::mem::replace(&mut looked, true) {
                // Plugged in elsewhere meanwhile.
                let found = self.candidates(asked, deadline).unwrap_or_default();
                busids.extend(found.into_iter().filter(|found| *found != busid));
            }
            match outcome {
                // Of several devices with the same ids, another may be free, or have the right serial number.
                Err(
                    error @ (UsbipError::Client(ClientError::Busy { .. } | ClientError::Refused { .. })
                    | UsbipError::WrongDevice { .. }
                    | UsbipError::AlreadyAttached { .. }
                    | UsbipError::InProgress { .. }),
                ) => {
                    refused.get_or_insert(error);
                }
                outcome => return outcome,
            }
        }
        Err(refused.expect("there is a candidate, and it was refused"))
    }

    /// Takes away what an earlier watcher of the same container had begun to attach; where that was. A watcher has one at
    /// work for a device: who began it was killed.
    fn undo_what_was_begun(&self, asked: &RemoteDevice, cause: &Cause) -> Result<Option<BusId>, UsbipError> {
        let is_it = |record: &Record| {
            let is_ours = record.owner.is_some() && record.owner == cause.owner;
            is_ours && record.asked == *asked && record.local.is_none()
        };
        let Some(record) = self.records.all().into_iter().find(is_it) else {
            return Ok(None);
        };
        self.unplug(&record)?;
        match record.remote.which {
            Which::BusId(busid) => Ok(Some(busid)),
            Which::Ids { .. } => Ok(None),
        }
    }

    /// What an earlier watcher of the same container attached, and what is up.
    fn attached_before(&self, asked: &RemoteDevice, cause: &Cause) -> Result<Option<Attached>, UsbipError> {
        if cause.owner.is_none() {
            return Ok(None);
        }
        let is_it =
            |record: &Record| record.owner == cause.owner && record.asked == *asked && record.local.is_some();
        let mut attached = self.attached()?.into_iter();
        Ok(attached.find(|one| one.slot.state == State::Used && one.record.as_ref().is_some_and(is_it)))
    }

    fn candidates(&self, asked: &RemoteDevice, deadline: Instant) -> Result<Vec<BusId>, UsbipError> {
        candidates(asked, deadline).map_err(|error| self.had_already(asked, error))
    }

    /// What is not in the server's list because we have it ourselves is said to be so.
    fn had_already(&self, asked: &RemoteDevice, error: UsbipError) -> UsbipError {
        let attached = match &error {
            UsbipError::NotFound { .. } => self.attached().unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut ours = attached.into_iter().filter_map(|one| one.record);
        match ours.find(|record| record.is_named(asked)) {
            Some(record) => already_attached(&record),
            None => error,
        }
    }

    fn attach_one(
        &self,
        asked: &RemoteDevice,
        remote: &RemoteDevice,
        busid: &BusId,
        cause: &Cause,
        deadline: Instant,
    ) -> Result<Attached, UsbipError> {
        let _lease = self.lease(remote, cause, deadline)?;
        match self.record_of(remote)? {
            // Whoever began this was killed: the lease is ours, and so not his.
            Some(record) if record.local.is_none() => self.unplug(&record)?,
            Some(record) => return Err(already_attached(&record)),
            None => {}
        }
        let from = cause.last.as_ref().map(|last| last.local_port);
        let imported = client::import(&remote.server, busid, from, deadline)?;
        check(asked, remote, imported.device.ids, None)?;
        let hold = Hold::take(&self.dir, &self.vhci, deadline)?;
        let mut record = self.plug(asked, remote, cause, &imported, deadline)?;
        let admitted = self.admit(&record, &imported, hold, deadline).and_then(|local| {
            record.local = Some(local);
            Ok(self.records.write(&record)?)
        });
        if let Err(error) = admitted {
            // Whoever waits in the kernel for an answer of this server waits no longer.
            let _ = imported.connection.shutdown(Shutdown::Both);
            // The connection may have broken, and the port be free by itself.
            let _ = self.unplug(&record);
            return Err(error);
        }
        let mut attached = self.attached()?.into_iter();
        attached
            .find(|one| one.record.as_ref() == Some(&record))
            .ok_or_else(|| UsbipError::Broken {
                remote: remote.clone(),
                doing: "binding drivers to it",
            })
    }

    /// Hands the connection to the kernel at a free port, and writes down beforehand which.
    fn plug(
        &self,
        asked: &RemoteDevice,
        remote: &RemoteDevice,
        cause: &Cause,
        imported: &Imported,
        deadline: Instant,
    ) -> Result<Record, UsbipError> {
        let device = &imported.device;
        let speed = device.speed.ok_or_else(|| UsbipError::NoSpeed {
            remote: remote.clone(),
        })?;
        let devid = device.devid();
        let _ports = self.lock_ports(remote, deadline)?;
        self.forget_the_gone()?;
        // Other tools may take a port between our look and our write: the kernel says so, and the next is tried.
        while Instant::now() < deadline {
            let last = cause.last.as_ref().map(|last| last.port);
            let port = self
                .vhci
                .free_port(speed, last)?
                .ok_or(UsbipError::NoPort { speed })?;
            let mut record = Record::new(port, asked.clone(), remote.clone(), devid, speed.number());
            // Before the kernel knows of it: from the first moment on, everybody here is to know whose it is.
            record.place = self.vhci.device_dir(port);
            record.owner = cause.owner.clone();
            record.local_port = imported.connection.local_addr().map_or(0, |own| own.port());
            record.attempt = attempt();
            self.records.write(&record)?;
            match self.vhci.attach(port, &imported.connection, devid, speed) {
                Ok(true) => return Ok(record),
                Ok(false) => self.records.remove(port),
                Err(error) => {
                    self.records.remove(port);
                    return Err(error.into());
                }
            }
        }
        Err(UsbipError::NoPort { speed })
    }

    /// Drops the records of devices that went by themselves: their servers ended, or unplugged them.
    fn forget_the_gone(&self) -> Result<(), UsbipError> {
        for record in self.records.all() {
            if self.vhci.is_empty(record.port)? {
                self.records.remove(record.port);
            }
        }
        Ok(())
    }

    /// Waits for the device, looks at it while no driver may, and lets it in.
    fn admit(
        &self,
        record: &Record,
        imported: &Imported,
        hold: Hold,
        deadline: Instant,
    ) -> Result<Local, UsbipError> {
        let device = self.wait_for_device(record, &imported.connection, deadline)?;
        drop(hold);
        let RemoteDevice { server, .. } = &record.remote;
        let serial = device.serial();
        check(&record.asked, &record.remote, device.ids, Some(&serial))?;
        // What the server says and what the device says may differ only when one of them lies.
        let told = RemoteDevice {
            server: server.clone(),
            which: Which::Ids {
                ids: imported.device.ids,
                serial: None,
            },
        };
        check(&told, &record.remote, device.ids, None)?;
        authorize(&device, record, &imported.connection, deadline)?;
        Ok(Local::new(&device, serial))
    }

    fn wait_for_device(
        &self,
        record: &Record,
        connection: &TcpStream,
        deadline: Instant,
    ) -> Result<LocalDevice, UsbipError> {
        let doing = "asking it for its descriptors";
        loop {
            if let Some(device) = self.vhci.device(record.port) {
                return Ok(device);
            }
            wait_on(connection, INTERVAL, record, doing, deadline)?;
        }
    }

    /// Detaches a device that we attached, or that is just being attached. Whoever does that may be stuck in the kernel
    /// until this is done: so nothing is asked of him.
    ///
    /// # Errors
    /// When it is not attached, or is not ours, or the kernel does not let go of it.
    pub fn detach(&self, named: &Named) -> Result<Record, UsbipError> {
        let record = self.find(named)?;
        self.unplug(&record)?;
        Ok(record)
    }

    /// Detaches what was attached, or begun to be, for containers of which `is_gone` is true, if `is_meant` is. All of it
    /// is tried.
    ///
    /// # Errors
    /// When the kernel does not let go of one.
    pub fn release(
        &self,
        is_gone: impl Fn(&str) -> bool,
        is_meant: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, UsbipError> {
        let mut records = self.records.all();
        records.retain(|record| record.owner.as_deref().is_some_and(&is_gone) && is_meant(record));
        let mut failure = None;
        for record in &records {
            if let Err(error) = self.unplug(record) {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(records), Err)
    }

    fn find(&self, named: &Named) -> Result<Record, UsbipError> {
        let attached = self.attached()?;
        match named {
            Named::Port(port) => match attached.into_iter().find(|one| one.slot.port == *port) {
                None => Err(UsbipError::NotAttached {
                    named: format!("port {port}"),
                }),
                Some(Attached {
                    record: Some(record), ..
                }) => Ok(record),
                Some(Attached { device, .. }) => Err(UsbipError::Foreign {
                    port: *port,
                    what: device.map_or_else(|| "a device".into(), |device| format!("device {}", device.ids)),
                }),
            },
            Named::Device(device) => {
                let mut ours: Vec<Record> = attached.into_iter().filter_map(|one| one.record).collect();
                ours.retain(|record| record.is_named(device));
                match ours.len() {
                    0 => Err(UsbipError::NotAttached {
                        named: device.to_string(),
                    }),
                    1 => Ok(ours.remove(0)),
                    _ => Err(UsbipError::Ambiguous {
                        named: device.to_string(),
                        ports: ours
                            .iter()
                            .map(|record| record.port.to_string())
                            .collect::<Vec<_>>()
                            .join(", "),
                    }),
                }
            }
        }
    }

    /// Detaches what a record tells of, if it is still there, and waits until the port can be used again.
    fn unplug(&self, record: &Record) -> Result<(), UsbipError> {
        let port = record.port;
        let deadline = Instant::now() + DETACH;
        {
            let _ports = self.lock_ports(&record.remote, deadline)?;
            // Last of all before the write: the kernel knows ports, and no devices.
            match self.is_there(record)? {
                true => match self.vhci.detach(port) {
                    // It went by itself.
                    Err(VhciError::File { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {}
                    outcome => outcome?,
                },
                // It is on its way out by itself; nobody is to take it for one of this host's own meanwhile.
                false if self.is_leaving(port)? => {}
                false => {
                    if self.is_recorded(record) {
                        self.records.remove(port);
                    }
                    return Ok(());
                }
            }
        }
        while !self.vhci.is_empty(port)? && self.is_recorded(record) {
            if Instant::now() > deadline {
                return Err(UsbipError::Stuck { port });
            }
            thread::sleep(INTERVAL);
        }
        let _ports = self.lock_ports(&record.remote, deadline)?;
        if self.is_recorded(record) && !self.is_there(record)? {
            self.records.remove(port);
        }
        Ok(())
    }

    /// Whether the port is free, and its last device still in sysfs.
    fn is_leaving(&self, port: u32) -> Result<bool, VhciError> {
        let slot = self.vhci.slot(port)?;
        Ok(slot.is_some_and(|slot| slot.state == State::Free) && !self.vhci.is_empty(port)?)
    }

    /// Whether the port has what the record tells of.
    fn is_there(&self, record: &Record) -> Result<bool, VhciError> {
        let device = self.vhci.device(record.port);
        let slot = self.vhci.slot(record.port)?;
        Ok(self.is_recorded(record) && slot.is_some_and(|slot| record.is_of(&slot, device.as_ref())))
    }

    /// Whether nobody of ours has attached another device at the port since.
    fn is_recorded(&self, record: &Record) -> bool {
        let now = self.records.at(record.port);
        now.is_some_and(|now| (now.remote, now.attempt) == (record.remote.clone(), record.attempt.clone()))
    }

    /// What is known of the device, when this host has it.
    fn record_of(&self, remote: &RemoteDevice) -> Result<Option<Record>, UsbipError> {
        let mut ours = self.attached()?.into_iter().filter_map(|one| one.record);
        Ok(ours.find(|record| record.remote == *remote))
    }

    /// The right to attach this device, on this host. Between hosts, the server decides.
    fn lease(&self, remote: &RemoteDevice, cause: &Cause, deadline: Instant) -> Result<Leases, UsbipError> {
        let name = format!("usbip/{remote}");
        loop {
            if let Some(lease) = self.take_lease(&name)? {
                return Ok(lease);
            }
            let others = || UsbipError::InProgress {
                remote: remote.clone(),
            };
            // A watcher has one at work for a device: this one is of a watcher that was killed. It may be stuck in the
            // kernel, and is done when its device is taken away.
            let record = self.record_of(remote)?.filter(|record| {
                record.local.is_none() && record.owner.is_some() && record.owner == cause.owner
            });
            self.unplug(&record.ok_or_else(others)?)?;
            if Instant::now() > deadline {
                return Err(others());
            }
            thread::sleep(INTERVAL);
        }
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
        let held = leases.take(&SysPath::new(name), LeaseHold::Exclusive)?;
        Ok(held.map(|_| leases))
    }
}

fn already_attached(record: &Record) -> UsbipError {
    UsbipError::AlreadyAttached {
        remote: record.remote.clone(),
        port: record.port,
        holder: record.holder(),
    }
}

/// A word that no other attaching of this host has.
fn attempt() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{}", std::process::id(), now.as_nanos())
}

/// Attaches a device for a container.
///
/// # Errors
/// As of [`Usbip::open`] and [`Usbip::attach`].
pub fn attach_for(
    state_dir: &Path,
    device: &RemoteDevice,
    cause: &Cause,
    patience: Duration,
) -> Result<Attached, UsbipError> {
    Usbip::open(state_dir)?.attach(device, cause, patience)
}

/// Which of this host's devices a remote one is, when it is attached for anybody.
pub fn bound_here(state_dir: &Path, remote: &RemoteDevice) -> Option<Bound> {
    let attached = Usbip::open(state_dir).ok()?.attached().ok()?;
    let is_it = |one: &&Attached| one.record.as_ref().is_some_and(|record| record.is_named(remote));
    worker::bound(attached.iter().find(is_it)?)
}

/// The bus ids under which the server has what was asked for.
fn candidates(asked: &RemoteDevice, deadline: Instant) -> Result<Vec<BusId>, UsbipError> {
    let ids = match &asked.which {
        Which::BusId(busid) => return Ok(vec![busid.clone()]),
        Which::Ids { ids, .. } => *ids,
    };
    let exported = client::list(&asked.server, deadline)?;
    let busids: Vec<BusId> = exported
        .iter()
        .filter(|device| device.ids == ids)
        .map(|device| device.busid.clone())
        .collect();
    if busids.is_empty() {
        return Err(UsbipError::NotFound {
            server: asked.server.clone(),
            ids,
            exported,
        });
    }
    Ok(busids)
}

/// Whether a device is the one. Its serial number is known only when the kernel has read it (`Some`).
fn check(
    asked: &RemoteDevice,
    remote: &RemoteDevice,
    found: UsbIds,
    serial: Option<&Option<String>>,
) -> Result<(), UsbipError> {
    let Which::Ids { ids, serial: wanted } = &asked.which else {
        return Ok(());
    };
    let is_right_serial = match (wanted, serial) {
        (Some(wanted), Some(found)) => found.as_ref() == Some(wanted),
        _ => true,
    };
    if *ids == found && is_right_serial {
        return Ok(());
    }
    let serial = serial.cloned().flatten().unwrap_or_default();
    Err(UsbipError::WrongDevice {
        remote: remote.clone(),
        found: match serial.is_empty() {
            true => format!("it is {found}"),
            false => format!("it is {found} with serial number \"{}\"", serial.escape_debug()),
        },
        wanted: asked.which.to_string(),
    })
}

/// Lets the drivers have it. The kernel asks the device for more then, and a server that hangs stops whoever waits in
/// the kernel, beyond all signals, until the port is detached: so a thread waits, and not we.
fn authorize(
    device: &LocalDevice,
    record: &Record,
    connection: &TcpStream,
    deadline: Instant,
) -> Result<(), UsbipError> {
    let (answer, outcome) = mpsc::channel();
    let writer = device.clone();
    thread::spawn(move || {
        // Nobody waits any more.
        let _ = answer.send(writer.authorize());
    });
    let doing = "binding drivers to it";
    loop {
        match outcome.recv_timeout(INTERVAL) {
            Ok(outcome) => return Ok(outcome?),
            Err(RecvTimeoutError::Timeout) => wait_on(connection, Duration::ZERO, record, doing, deadline)?,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread answers before it ends"),
        }
    }
}

/// Waits for a while, unless the connection breaks or it has been too long.
fn wait_on(
    connection: &TcpStream,
    interval: Duration,
    record: &Record,
    doing: &'static str,
    deadline: Instant,
) -> Result<(), UsbipError> {
    let remote = record.remote.clone();
    if Instant::now() > deadline {
        return Err(UsbipError::TooSlow { remote, doing });
    }
    // Nothing is read here: what comes is the kernel's.
    let mut fds = [PollFd::new(
        connection.as_fd(),
        PollFlags::from_bits_retain(libc::POLLRDHUP),
    )];
    let timeout = PollTimeout::try_from(interval).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, timeout) {
        Ok(ready) if ready > 0 => Err(UsbipError::Broken { remote, doing }),
        _ => Ok(()),
    }
}
