//! Errors of attaching and detaching remote devices, with hints.

use super::client::ClientError;
use super::hubs::HubError;
use super::protocol::{Exported, Speed};
use super::records::RecordError;
use super::vhci::{DETACH_TIMEOUT, VhciError};
use crate::host::state::leases::LeaseError;
use crate::model::remote::address::{RemoteDevice, Server, UsbIdPattern};

/// Why a remote device could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum UsbipError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Vhci(#[from] VhciError),
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The server's list does not contain it.
    #[error(
        "usbip server {server} exports no device {ids} that is free (a device in use is not in its list); it has: {has}",
        has = listing(.exported)
    )]
    NotFound {
        server: Server,
        ids: UsbIdPattern,
        /// The devices in the list.
        exported: Vec<Exported>,
    },
    /// The attached device differs from the requested one.
    #[error("device {remote} is not the requested one: {found}, and not {wanted}; no driver was bound")]
    WrongDevice {
        /// With its bus id.
        remote: RemoteDevice,
        found: String,
        wanted: String,
    },
    #[error(
        "device {remote} is attached to this host already, at port {port} for {holder} (`oci-hotplug usbip ports`)"
    )]
    AlreadyAttached {
        /// With its bus id.
        remote: RemoteDevice,
        port: u32,
        /// The container or operator that it is attached for.
        holder: String,
    },
    #[error(
        "device {remote} is being attached by another process of this host (`oci-hotplug usbip detach` ends that)"
    )]
    InProgress {
        /// With its bus id.
        remote: RemoteDevice,
    },
    /// The server does not know the device's speed.
    #[error(
        "device {remote}: its server does not know its speed, and a wrong one breaks it (plug the device in again at the server, \
         or use another USB/IP server)"
    )]
    NoSpeed {
        /// With its bus id.
        remote: RemoteDevice,
    },
    #[error(
        "no port of the virtual USB host controllers is free for a device of {speed} speed (`oci-hotplug usbip ports`)"
    )]
    NoPort {
        /// The speed of the device.
        speed: Speed,
    },
    #[error(
        "device {remote}: the connection broke while the kernel was {doing} (the kernel's log may tell more: `dmesg`)"
    )]
    Broken {
        /// With its bus id.
        remote: RemoteDevice,
        /// The operation, as a gerund.
        doing: &'static str,
    },
    #[error(
        "device {remote} was not ready in time: its server hangs, or the network is slow; the kernel was {doing} (--timeout allows more time)"
    )]
    TooSlow {
        /// With its bus id.
        remote: RemoteDevice,
        /// The operation, as a gerund.
        doing: &'static str,
    },
    #[error("{named} is not attached to this host (`oci-hotplug usbip ports` shows what is)")]
    NotAttached {
        /// The port or address that the operator gave.
        named: String,
    },
    /// Another tool attached it.
    #[error(
        "cannot detach port {port}: it holds {what}, which oci-hotplug did not attach (`usbip detach -p {port}` detaches it)"
    )]
    Foreign {
        port: u32,
        /// A description of the device.
        what: String,
    },
    #[error(
        "{named} names several attached devices, at ports {ports}: name one by its port or its serial number"
    )]
    Ambiguous {
        /// The address that the operator gave.
        named: String,
        ports: String,
    },
    #[error("port {port}: the kernel has not released the device within {} s", DETACH_TIMEOUT.as_secs())]
    Stuck { port: u32 },
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
