//! Admits a device that the kernel has just attached: verifies it before any driver can bind, and
//! authorizes it.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::attachments::{INTERVAL, Usbip};
use super::client::Imported;
use super::error::UsbipError;
use super::hubs::Hold;
use super::records::{Local, Record};
use super::vhci::LocalDevice;
use crate::model::remote::address::{RemoteDevice, ServerDevice, UsbIds};

impl Usbip {
    /// Waits for the device, verifies it before any driver can bind, and authorizes it.
    pub(super) fn admit(
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
        check(&record.requested, &record.remote, device.ids, Some(&serial))?;
        // The descriptions by the server and by the device itself must agree.
        let described = RemoteDevice {
            server: server.clone(),
            device: ServerDevice::Ids {
                number: 1,
                ids: imported.device.ids.into(),
                serial: None,
            },
        };
        check(&described, &record.remote, device.ids, None)?;
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
}

/// Whether a device is the requested one. Its serial number is known only after the kernel has read
/// it (`Some`).
pub(super) fn check(
    requested: &RemoteDevice,
    remote: &RemoteDevice,
    found: UsbIds,
    serial: Option<&Option<String>>,
) -> Result<(), UsbipError> {
    let Some((ids, _)) = requested.device.identity() else {
        return Ok(());
    };
    let is_right_serial = serial.is_none_or(|found| requested.device.matches_serial(found.as_deref()));
    if found.match_pattern(ids) && is_right_serial {
        return Ok(());
    }
    let serial = serial.cloned().flatten().unwrap_or_default();
    Err(UsbipError::WrongDevice {
        remote: remote.clone(),
        found: match serial.is_empty() {
            true => format!("it is {found}"),
            false => format!("it is {found} with serial number \"{}\"", serial.escape_debug()),
        },
        wanted: requested.device.to_string(),
    })
}

/// Authorizes the device, so that drivers bind. The kernel then sends requests to the device, and a
/// server that hangs blocks the calling thread in the kernel, even against signals, until the port
/// is detached. Therefore an extra thread makes the call.
fn authorize(
    device: &LocalDevice,
    record: &Record,
    connection: &TcpStream,
    deadline: Instant,
) -> Result<(), UsbipError> {
    let (answer, outcome) = mpsc::channel();
    let writer = device.clone();
    thread::spawn(move || {
        // If the receiver is gone, nothing needs the result.
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

/// Waits for one interval; fails if the connection breaks or the deadline has passed.
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
    // Do not read: incoming data is for the kernel.
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
