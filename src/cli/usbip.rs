//! `oci-hotplug usbip`

mod show;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::render::json::write_json;
use super::render::table::print_line;
use crate::model::remote::address::{RemoteDevice, Server};
use crate::usbip::records::Record;
use crate::usbip::{self as remote, Named, Purpose, client};

/// The verbs for USB devices of other hosts.
#[derive(Debug, Args)]
pub(super) struct Usbip {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the devices that a server exports and that are not in use.
    ///
    /// Examples: oci-hotplug usbip list lab; oci-hotplug usbip list [fd00::1]:3241.
    List {
        /// HOST[:PORT]; the default port is 3240; write an IPv6 address in brackets.
        #[arg(value_name = "SERVER")]
        server: Server,
        #[command(flatten)]
        timeout: Timeout,
    },
    /// Attach a device of another host to this one. Containers that request it get it as if it were
    /// plugged in.
    ///
    /// The device is verified before any driver binds to it, and is detached if it is not the
    /// requested one. For about a second, every device that is attached by USB/IP on this host
    /// waits for authorization. USB/IP has no encryption or authentication: use a tunnel, such as
    /// WireGuard, in a network that others use as well.
    ///
    /// Examples: oci-hotplug usbip attach lab/0403:6001; oci-hotplug usbip attach
    /// lab/0403:6001:FT001; oci-hotplug usbip attach [fd00::1]:3241/busid:1-1.4.
    Attach {
        /// HOST[:PORT]/VID:PID[:SERIAL], or HOST[:PORT]/busid:BUSID for any device at that port of
        /// the server.
        #[arg(value_name = "DEVICE")]
        device: RemoteDevice,
        #[command(flatten)]
        timeout: Timeout,
    },
    /// Detach a device that oci-hotplug attached.
    ///
    /// Examples: oci-hotplug usbip detach lab/0403:6001; oci-hotplug usbip detach 0.
    Detach {
        /// The device as it was attached, or its port, as `ports` shows it.
        #[arg(value_name = "DEVICE|PORT", value_parser = named)]
        named: Named,
    },
    /// List the attached devices, with their servers.
    Ports,
}

/// The timeout.
#[derive(Debug, Args)]
struct Timeout {
    /// Give up after this time, in seconds.
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

impl Timeout {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

fn named(text: &str) -> Result<Named, crate::model::remote::address::AddressError> {
    match text.parse() {
        Ok(port) => Ok(Named::Port(port)),
        Err(_) => text.parse().map(Named::Device),
    }
}

/// Runs one of the verbs.
pub(super) fn run(arguments: &Usbip, state_dir: &Path, as_json: bool) -> Result<()> {
    match &arguments.verb {
        Verb::List { server, timeout } => {
            let exported = client::list(server, Instant::now() + timeout.duration())?;
            show::list(server, &exported, as_json)
        }
        Verb::Attach { device, timeout } => {
            let usbip = remote::Usbip::open(state_dir)?;
            let attached = usbip.attach(device, &Purpose::default(), timeout.duration())?;
            wait_for_udevd();
            if let Some(note) = attached.record.as_ref().and_then(Record::note) {
                anstream::eprintln!(
                    "{}: {note}",
                    attached.record.as_ref().map_or(device, |record| &record.remote)
                );
            }
            show::print_attached(device, &attached, as_json)
        }
        Verb::Detach { named } => {
            let usbip = remote::Usbip::open(state_dir)?;
            let record = usbip.detach(named)?;
            let mut out = std::io::stdout().lock();
            if as_json {
                let what = json!({ "port": record.port, "device": record.requested.to_string() });
                write_json(&mut out, &what)?;
            } else {
                print_line!(out, "{} is detached from port {}", record.requested, record.port)?;
            }
            Ok(())
        }
        Verb::Ports => {
            let usbip = remote::Usbip::open(state_dir)?;
            show::ports(&usbip.attached()?, as_json)
        }
    }
}

/// Waits until udevd has processed the new device: it loads the drivers that the kernel lacks.
fn wait_for_udevd() {
    let _ = Command::new("udevadm")
        .args(["settle", "--timeout=10"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_takes_a_port_or_the_address_of_the_attachment() {
        assert_eq!(named("7"), Ok(Named::Port(7)));
        let device = "lab/0403:6001";
        assert_eq!(named(device), Ok(Named::Device(device.parse().unwrap())));
        assert!(named("lab").is_err() && named("-1").is_err());
    }
}
