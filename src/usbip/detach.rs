//! Detaches devices: a single one by name, or all devices of a container; never a device that
//! another tool attached.
//!
//! Must not know how a device is attached (`attach`).

use std::io;
use std::thread;
use std::time::Instant;

use super::attachments::{Attached, INTERVAL, Named, Usbip};
use super::error::UsbipError;
use super::records::Record;
use super::vhci::{DETACH_TIMEOUT, State, VhciError};

impl Usbip {
    /// Detaches a device that oci-hotplug has attached or is attaching. Does not involve the
    /// process that attaches it, which may be blocked in the kernel until the device is detached.
    ///
    /// # Errors
    /// If it is not attached, another tool attached it, or the kernel does not release it.
    pub fn detach(&self, named: &Named) -> Result<Record, UsbipError> {
        let record = self.find(named)?;
        self.unplug(&record)?;
        Ok(record)
    }

    /// Detaches the devices that were attached for containers, completely or not, and for which
    /// `is_meant` returns true, given the container and the record. Tries all of them.
    ///
    /// # Errors
    /// If the kernel does not release one of them.
    pub fn release(&self, is_meant: impl Fn(&str, &Record) -> bool) -> Result<Vec<Record>, UsbipError> {
        let mut records = self.records.all();
        records.retain(|record| {
            record
                .container
                .as_deref()
                .is_some_and(|container| is_meant(container, record))
        });
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
            Named::Port(port) => match attached.into_iter().find(|device| device.slot.port == *port) {
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
                let mut ours: Vec<Record> = attached.into_iter().filter_map(|device| device.record).collect();
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

    /// Detaches the device of a record if it is still attached, and waits until the port can be
    /// used again.
    pub(super) fn unplug(&self, record: &Record) -> Result<(), UsbipError> {
        let port = record.port;
        let deadline = Instant::now() + DETACH_TIMEOUT;
        {
            let _ports = self.lock_ports(&record.remote, deadline)?;
            // Check directly before the write: the kernel detaches a port, whatever device it has.
            match self.is_there(record)? {
                true => match self.vhci.detach(port) {
                    // The device disappeared by itself.
                    Err(VhciError::File { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {}
                    outcome => outcome?,
                },
                // The device is disappearing by itself. Keep the record until then, so that it does
                // not count as a local device.
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

    /// Whether the port is free while its last device is still in sysfs.
    fn is_leaving(&self, port: u32) -> Result<bool, VhciError> {
        let slot = self.vhci.slot(port)?;
        Ok(slot.is_some_and(|slot| slot.state == State::Free) && !self.vhci.is_empty(port)?)
    }

    /// Whether the port has the device of the record.
    fn is_there(&self, record: &Record) -> Result<bool, VhciError> {
        let device = self.vhci.device(record.port);
        let slot = self.vhci.slot(record.port)?;
        Ok(self.is_recorded(record) && slot.is_some_and(|slot| record.is_of(&slot, device.as_ref())))
    }

    /// Whether this is still the record of its port.
    fn is_recorded(&self, record: &Record) -> bool {
        let now = self.records.at(record.port);
        now.is_some_and(|now| (now.remote, now.attempt) == (record.remote.clone(), record.attempt.clone()))
    }
}
