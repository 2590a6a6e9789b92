//! Attaches a remote device: from its address to a verified device with bound drivers, undoing
//! everything if a step fails.
//!
//! Must not know how a device is verified (`admit`), nor how it is found and detached (`detach`).

use std::collections::VecDeque;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::admit::check;
use super::attachments::{Attached, INTERVAL, Purpose, Usbip};
use super::client::{self, ClientError, Imported};
use super::error::UsbipError;
use super::hubs::Hold;
use super::records::Record;
use crate::host::state::leases::Leases;
use crate::model::remote::address::{BusId, RemoteDevice, ServerDevice};

impl Usbip {
    /// Attaches a remote device. On return, it is verified as the requested device, and loaded
    /// drivers are bound.
    ///
    /// # Errors
    /// If it could not be attached within the timeout. Nothing remains of the attempt.
    pub fn attach(
        &self,
        requested: &RemoteDevice,
        purpose: &Purpose,
        timeout: Duration,
    ) -> Result<Attached, UsbipError> {
        self.records.make()?;
        let deadline = Instant::now() + timeout;
        if let Some(attached) = self.attached_before(requested, purpose)? {
            return Ok(attached);
        }
        let mut refused = None;
        // The device is probably at its previous port, and a server that has not noticed the broken
        // connection does not list it.
        let begun = self.undo_what_was_begun(requested, purpose)?;
        let last = purpose.last.as_ref().map(|last| last.busid.clone());
        let mut busids: VecDeque<BusId> = begun.or(last).into_iter().collect();
        let mut looked = busids.is_empty();
        if looked {
            busids.extend(self.candidates(requested, deadline)?);
        }
        while let Some(busid) = busids.pop_front() {
            let remote = RemoteDevice {
                server: requested.server.clone(),
                device: ServerDevice::BusId(busid.clone()),
            };
            let outcome = self.attach_one(requested, &remote, &busid, purpose, deadline);
            if outcome.is_err() && !std::mem::replace(&mut looked, true) {
                // It may have been plugged in at another port.
                let found = self.candidates(requested, deadline).unwrap_or_default();
                busids.extend(found.into_iter().filter(|found| *found != busid));
            }
            match outcome {
                Err(error) if concerns_only_this(&error) => {
                    refused.get_or_insert(error);
                }
                outcome => return outcome,
            }
        }
        Err(refused.expect("there is a candidate, and it was refused"))
    }

    /// Detaches what an earlier watcher of the same container had begun to attach, and returns its
    /// bus id. A watcher has only one worker per device, so the process that began it was killed.
    fn undo_what_was_begun(
        &self,
        requested: &RemoteDevice,
        purpose: &Purpose,
    ) -> Result<Option<BusId>, UsbipError> {
        let mut all = self.records.all().into_iter();
        let Some(record) = all.find(|record| was_begun(record, requested, purpose)) else {
            return Ok(None);
        };
        self.unplug(&record)?;
        Ok(record.remote.device.busid().cloned())
    }

    /// The attached device of an earlier watcher of the same container, if it can be used.
    fn attached_before(
        &self,
        requested: &RemoteDevice,
        purpose: &Purpose,
    ) -> Result<Option<Attached>, UsbipError> {
        if purpose.container.is_none() {
            return Ok(None);
        }
        let is_meant = |record: &Record| {
            record.container == purpose.container && record.requested == *requested && record.local.is_some()
        };
        let mut attached = self.attached()?.into_iter();
        Ok(attached.find(|device| device.is_up() && device.record.as_ref().is_some_and(is_meant)))
    }

    fn candidates(&self, requested: &RemoteDevice, deadline: Instant) -> Result<Vec<BusId>, UsbipError> {
        candidates(requested, deadline).map_err(|error| self.had_already(requested, error))
    }

    /// A device that this host has imported is missing in the server's list: reports it as
    /// attached.
    fn had_already(&self, requested: &RemoteDevice, error: UsbipError) -> UsbipError {
        let attached = match &error {
            UsbipError::NotFound { .. } => self.attached().unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut ours = attached.into_iter().filter_map(|device| device.record);
        match ours.find(|record| record.is_named(requested)) {
            Some(record) => already_attached(&record),
            None => error,
        }
    }

    fn attach_one(
        &self,
        requested: &RemoteDevice,
        remote: &RemoteDevice,
        busid: &BusId,
        purpose: &Purpose,
        deadline: Instant,
    ) -> Result<Attached, UsbipError> {
        let _lease = self.lease(requested, remote, purpose, deadline)?;
        match self.record_of(remote)? {
            // The process that began this was killed: this process holds the lease now.
            Some(record) if record.local.is_none() => self.unplug(&record)?,
            Some(record) => return Err(already_attached(&record)),
            None => {}
        }
        let from = purpose.last.as_ref().map(|last| last.local_port);
        let imported = client::import(&remote.server, busid, from, deadline)?;
        check(requested, remote, imported.device.ids, None)?;
        let hold = Hold::take(&self.dir, &self.vhci, deadline)?;
        let mut record = self.plug(requested, remote, purpose, &imported, deadline)?;
        let admitted = self.admit(&record, &imported, hold, deadline).and_then(|local| {
            record.local = Some(local);
            Ok(self.records.write(&record)?)
        });
        if let Err(error) = admitted {
            // Ends every wait in the kernel for an answer of this server.
            let _ = imported.connection.shutdown(Shutdown::Both);
            // If the connection is broken, the port may already be free.
            let _ = self.unplug(&record);
            return Err(error);
        }
        let mut attached = self.attached()?.into_iter();
        attached
            .find(|device| device.record.as_ref() == Some(&record))
            .ok_or_else(|| UsbipError::Broken {
                remote: remote.clone(),
                doing: "binding drivers to it",
            })
    }

    /// Passes the connection to the kernel at a free port, and records the port before.
    fn plug(
        &self,
        requested: &RemoteDevice,
        remote: &RemoteDevice,
        purpose: &Purpose,
        imported: &Imported,
        deadline: Instant,
    ) -> Result<Record, UsbipError> {
        let device = &imported.device;
        let reported = device.speed.ok_or_else(|| UsbipError::NoSpeed {
            remote: remote.clone(),
        })?;
        let speed = reported.for_kernel();
        let devid = device.devid();
        let _ports = self.lock_ports(remote, deadline)?;
        self.forget_the_gone()?;
        // Another tool may take a port between choosing and writing. The kernel then reports it as
        // busy, and the next free port is used.
        while Instant::now() < deadline {
            let last = purpose.last.as_ref().map(|last| last.port);
            let port = self
                .vhci
                .free_port(speed, last)?
                .ok_or(UsbipError::NoPort { speed })?;
            let mut record = Record::new(port, requested.clone(), remote.clone(), devid, speed.number());
            // Write the record before the kernel gets the connection, so that every process of this
            // host always knows for which container the device is attached.
            record.place = self.vhci.device_dir(port);
            record.container = purpose.container.clone();
            record.reported_speed = Some(reported.number()).filter(|_| reported != speed);
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

    /// Removes the records of devices that disappeared by themselves: their servers ended or
    /// unplugged them.
    fn forget_the_gone(&self) -> Result<(), UsbipError> {
        for record in self.records.all() {
            if self.vhci.is_empty(record.port)? {
                self.records.remove(record.port);
            }
        }
        Ok(())
    }

    /// The lease for attaching this device on this host. Between hosts, the server decides.
    fn lease(
        &self,
        requested: &RemoteDevice,
        remote: &RemoteDevice,
        purpose: &Purpose,
        deadline: Instant,
    ) -> Result<Leases, UsbipError> {
        let name = format!("usbip/{remote}");
        loop {
            if let Some(lease) = self.take_lease(&name)? {
                return Ok(lease);
            }
            let others = || UsbipError::InProgress {
                remote: remote.clone(),
            };
            // A watcher has only one worker per request. A worker for the same request therefore
            // belongs to a watcher that was killed. It may be blocked in the kernel, and ends when
            // its device is detached. A worker that uses another address of the device belongs to
            // the same watcher.
            let record = self.record_of(remote)?;
            let record = record.filter(|record| was_begun(record, requested, purpose));
            self.unplug(&record.ok_or_else(others)?)?;
            if Instant::now() > deadline {
                return Err(others());
            }
            thread::sleep(INTERVAL);
        }
    }
}

/// Whether another device with the same ids may be free, or have the right serial number.
fn concerns_only_this(error: &UsbipError) -> bool {
    matches!(
        error,
        UsbipError::Client(ClientError::Busy { .. } | ClientError::Refused { .. })
            | UsbipError::WrongDevice { .. }
            | UsbipError::AlreadyAttached { .. }
            | UsbipError::InProgress { .. }
    )
}

/// Whether a watcher of the same container had begun to attach the same device for it, and has not
/// finished.
fn was_begun(record: &Record, requested: &RemoteDevice, purpose: &Purpose) -> bool {
    let is_ours = record.container.is_some() && record.container == purpose.container;
    is_ours && record.requested == *requested && record.local.is_none()
}

fn already_attached(record: &Record) -> UsbipError {
    UsbipError::AlreadyAttached {
        remote: record.remote.clone(),
        port: record.port,
        holder: record.holder(),
    }
}

/// An id that no other attempt on this host has.
fn attempt() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{}", std::process::id(), now.as_nanos())
}

/// The bus ids of the devices at the server that match the request.
fn candidates(requested: &RemoteDevice, deadline: Instant) -> Result<Vec<BusId>, UsbipError> {
    let ids = match &requested.device {
        ServerDevice::BusId(busid) | ServerDevice::Both { busid, .. } => return Ok(vec![busid.clone()]),
        ServerDevice::Ids { ids, .. } => *ids,
    };
    let exported = client::list(&requested.server, deadline)?;
    let busids: Vec<BusId> = exported
        .iter()
        .filter(|device| device.ids.match_pattern(ids))
        .map(|device| device.busid.clone())
        .collect();
    if busids.is_empty() {
        return Err(UsbipError::NotFound {
            server: requested.server.clone(),
            ids,
            exported,
        });
    }
    Ok(busids)
}
