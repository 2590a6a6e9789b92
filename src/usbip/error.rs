//! What can go wrong with a remote device, and the hint.

use super::client::ClientError;
use super::hubs::HubError;
use super::protocol::{Exported, Speed};
use super::records::RecordError;
use super::vhci::{DETACH_TIMEOUT, VhciError};
use crate::host::state::leases::LeaseError;
use crate::model::remote::address::{RemoteDevice, Server, UsbIdPattern};

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
        /// ServerDevice.
        server: Server,
        /// The ids that were requested.
        ids: UsbIdPattern,
        /// What is there.
        exported: Vec<Exported>,
    },
    /// Not the one.
    #[error("device {remote} is not the requested one: {found}, and not {wanted}; no driver was bound")]
    WrongDevice {
        /// ServerDevice, by its bus id.
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
        /// ServerDevice, by its bus id.
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
        /// ServerDevice, by its bus id.
        remote: RemoteDevice,
    },
    /// A server that does not know what it exports.
    #[error(
        "device {remote}: its server does not know its speed, and a wrong one breaks it (plug the device in again at the server, \
         or use another USB/IP server)"
    )]
    NoSpeed {
        /// ServerDevice, by its bus id.
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
        /// ServerDevice, by its bus id.
        remote: RemoteDevice,
        /// What, as a gerund.
        doing: &'static str,
    },
    /// It hangs.
    #[error(
        "device {remote}: not ready in time: its server hangs, or the network is slow (--timeout), while the kernel was {doing}"
    )]
    TooSlow {
        /// ServerDevice, by its bus id.
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
    #[error("port {port}: the kernel has not released the device within {} s", DETACH_TIMEOUT.as_secs())]
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
