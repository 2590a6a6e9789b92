//! `oci-hotplug usbip`

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::matching;
use super::render::json::{write_json, write_json_list};
use super::render::table::{self, print_line};
use crate::model::oci::engine::short_id;
use crate::model::remote::address::{RemoteDevice, Server};
use crate::usbip::protocol::{Exported, Speed};
use crate::usbip::records::{Local, Record};
use crate::usbip::vhci::State;
use crate::usbip::{self as remote, Attached, Named, Purpose, client};

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
        Verb::List { server, timeout } => list(server, timeout, as_json),
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
            print_attached(device, &attached, as_json)
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
            ports(&usbip.attached()?, as_json)
        }
    }
}

fn list(server: &Server, timeout: &Timeout, as_json: bool) -> Result<()> {
    let exported = client::list(server, Instant::now() + timeout.duration())?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let all: Vec<Value> = exported
            .iter()
            .map(|device| exported_json(server, device))
            .collect();
        write_json_list(&mut out, "devices", &all)?;
        return Ok(());
    }
    if exported.is_empty() {
        print_line!(
            out,
            "{server} exports no free device. On that host: `usbip bind --busid BUSID`; a device in use is not listed."
        )?;
        return Ok(());
    }
    let rows: Vec<[String; 5]> = exported
        .iter()
        .map(|device| {
            [
                device.busid.to_string(),
                device.ids.to_string(),
                speed_of(device),
                classes(device).join(" "),
                device.path.clone(),
            ]
        })
        .collect();
    table::write(&mut out, ["BUSID", "ID", "SPEED", "CLASS", "PATH THERE"], &rows)?;
    Ok(())
}

fn speed_of(device: &Exported) -> String {
    device.speed.map_or_else(|| "-".into(), |speed| speed.to_string())
}

/// The class of the device, or of its interfaces if the device names none.
fn classes(device: &Exported) -> Vec<String> {
    let mut names = Vec::new();
    let own = (device.class[0] != 0).then_some(&device.class);
    for class in own.into_iter().chain(&device.interfaces) {
        let name = class_name(class[0]);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The name of a class (usb.org, Defined Class Codes), or its number.
fn class_name(class: u8) -> String {
    let name = match class {
        0x01 => "audio",
        0x02 | 0x0a => "communication",
        0x03 => "hid",
        0x06 => "image",
        0x07 => "printer",
        0x08 => "storage",
        0x09 => "hub",
        0x0b => "smartcard",
        0x0e => "video",
        0xe0 => "wireless",
        0xff => "vendor",
        other => return format!("{other:02x}"),
    };
    name.to_owned()
}

fn exported_json(server: &Server, device: &Exported) -> Value {
    json!({
        "device": format!("{server}/busid:{}", device.busid),
        "busid": device.busid.as_str(),
        "id": device.ids.to_string(),
        "speed": device.speed.map(|speed| speed.to_string()),
        "class": device.class,
        "interfaces": device.interfaces,
        "path": device.path,
    })
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

fn print_attached(requested: &RemoteDevice, attached: &Attached, as_json: bool) -> Result<()> {
    let nodes = match &attached.device {
        Some(device) => matching::nodes_at(&device.dir.display().to_string())?,
        None => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    if as_json {
        let mut whole = attached_json(attached);
        whole["nodes"] = json!(nodes);
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    print_line!(
        out,
        "{requested} is attached at port {}: {}",
        attached.slot.port,
        nodes.join(" ")
    )?;
    if let Some(local) = attached.record.as_ref().and_then(|record| record.local.as_ref()) {
        print_line!(out, "A container requests it with {}", request(local))?;
    }
    Ok(())
}

/// The request for this device, with its serial number if it has one.
fn request(device: &Local) -> String {
    let by_ids = format!("usb:{}", device.ids);
    let plain = |serial: &&String| serial.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match device.serial.as_ref().filter(plain) {
        Some(serial) if !serial.is_empty() => format!("{by_ids}:{serial}"),
        _ => by_ids,
    }
}

fn ports(attached: &[Attached], as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let all: Vec<Value> = attached.iter().map(attached_json).collect();
        write_json_list(&mut out, "ports", &all)?;
        return Ok(());
    }
    if attached.is_empty() {
        print_line!(
            out,
            "No remote device is attached. `oci-hotplug usbip attach HOST/VID:PID` attaches one."
        )?;
        return Ok(());
    }
    let rows: Vec<[String; 6]> = attached.iter().map(row).collect();
    table::write(&mut out, ["PORT", "STATE", "ID", "SERIAL", "HERE", "FROM"], &rows)?;
    Ok(())
}

fn row(attached: &Attached) -> [String; 6] {
    let dash = || "-".to_owned();
    let device = attached.device.as_ref();
    [
        attached.slot.port.to_string(),
        state(attached).into(),
        device.map_or_else(dash, |device| device.ids.to_string()),
        serial(attached).map_or_else(dash, |serial| serial.escape_debug().to_string()),
        device.map_or_else(dash, |device| device.name.clone()),
        attached.record.as_ref().map_or_else(
            || "(not by oci-hotplug)".into(),
            |record| match &record.container {
                Some(owner) => format!("{} for container {}", record.remote, short_id(owner)),
                None => record.remote.to_string(),
            },
        ),
    ]
}

/// The serial number in the record: reading it from the device could block as long as the server
/// hangs.
fn serial(attached: &Attached) -> Option<&String> {
    attached.record.as_ref()?.local.as_ref()?.serial.as_ref()
}

/// The state of an attachment, in one word.
fn state(attached: &Attached) -> &'static str {
    let unfinished = attached
        .record
        .as_ref()
        .is_some_and(|record| record.local.is_none());
    match attached.slot.state {
        State::Free | State::NotReady => "free",
        State::Broken => "broken",
        // It is being attached, or the process that attached it was killed. No driver is bound.
        _ if unfinished => "unfinished",
        _ if attached.is_up() => "attached",
        State::Starting | State::Used => "starting",
    }
}

fn attached_json(attached: &Attached) -> Value {
    let device = attached.device.as_ref();
    let record = attached.record.as_ref();
    json!({
        "port": attached.slot.port,
        "state": state(attached),
        "speed": Speed::new(attached.slot.speed).map(|speed| speed.to_string()),
        "id": device.map(|device| device.ids.to_string()),
        "serial": serial(attached),
        "syspath": device.map(|device| device.dir.display().to_string()),
        "device": record.map(|record| record.remote.to_string()),
        "requested": record.map(|record| record.requested.to_string()),
        "container": record.and_then(|record| record.container.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_detached_is_named_by_port_or_as_it_was_attached() {
        assert_eq!(named("7"), Ok(Named::Port(7)));
        let device = "lab/0403:6001";
        assert_eq!(named(device), Ok(Named::Device(device.parse().unwrap())));
        assert!(named("lab").is_err() && named("-1").is_err());
    }
}
