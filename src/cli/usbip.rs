//! `oci-hotplug usbip`

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::matching;
use super::render::json::write_json;
use super::render::table::{self, print_line};
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
    /// The devices that a server exports and nobody uses.
    ///
    /// Examples: oci-hotplug usbip list lab; oci-hotplug usbip list [fd00::1]:3241.
    List {
        /// HOST[:PORT]; the port is 3240 when it is not named, and an IPv6 address stands in brackets.
        #[arg(value_name = "SERVER")]
        server: Server,
        #[command(flatten)]
        patience: Patience,
    },
    /// Attach a device of another host to this one. Containers that request it get it as if it were plugged in.
    ///
    /// It is looked at before any driver is let near it; one that is not what was asked for is detached again. For that
    /// time (about a second) every device that anybody attaches by USB/IP waits for a permission. Nothing is encrypted
    /// or authenticated: use a tunnel, such as WireGuard, wherever the network is not yours alone.
    ///
    /// Examples: oci-hotplug usbip attach lab/0403:6001; oci-hotplug usbip attach lab/0403:6001:FT001; oci-hotplug usbip
    /// attach [fd00::1]:3241/busid:1-1.4.
    Attach {
        /// HOST[:PORT]/VID:PID[:SERIAL], or HOST[:PORT]/busid:BUSID for whatever is plugged in there.
        #[arg(value_name = "DEVICE")]
        device: RemoteDevice,
        #[command(flatten)]
        patience: Patience,
    },
    /// Detach a device that `attach` attached, and nothing else.
    ///
    /// Examples: oci-hotplug usbip detach lab/0403:6001; oci-hotplug usbip detach 0.
    Detach {
        /// The device as it was attached, or its port, as `ports` shows it.
        #[arg(value_name = "DEVICE|PORT", value_parser = named)]
        named: Named,
    },
    /// What is attached to this host, and from where.
    Ports,
}

/// How long to wait.
#[derive(Debug, Args)]
struct Patience {
    /// Give up after so many seconds, for all of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
}

impl Patience {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }
}

fn named(text: &str) -> Result<Named, crate::model::remote::address::AddressError> {
    match text.parse() {
        Ok(port) => Ok(Named::Port(port)),
        Err(_) => text.parse().map(Named::Device),
    }
}

/// Runs one of them.
pub(super) fn run(arguments: &Usbip, state_dir: &Path, as_json: bool) -> Result<()> {
    match &arguments.verb {
        Verb::List { server, patience } => list(server, patience, as_json),
        Verb::Attach { device, patience } => {
            let usbip = remote::Usbip::open(state_dir)?;
            let attached = usbip.attach(device, &Purpose::default(), patience.duration())?;
            settle();
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

fn list(server: &Server, patience: &Patience, as_json: bool) -> Result<()> {
    let exported = client::list(server, Instant::now() + patience.duration())?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let all: Vec<Value> = exported
            .iter()
            .map(|device| exported_json(server, device))
            .collect();
        write_json(&mut out, &all)?;
        return Ok(());
    }
    if exported.is_empty() {
        print_line!(
            out,
            "{server} exports no device that is free. There: `usbip bind --busid BUSID`; a device in use is not listed."
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

/// What the device is, or where it leaves that to its interfaces, what they are.
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

/// By usb.org's table of class codes; those that nobody knows by name stay numbers.
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

/// Waits until udevd has done with what has just come: it loads the drivers that the kernel lacks. Without udevd there is
/// nothing to wait for.
fn settle() {
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
        print_line!(out, "A container asks for it by {}", request(local))?;
    }
    Ok(())
}

/// The request that names this device and, where it has a serial number, no other.
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
        write_json(&mut out, &all)?;
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
                Some(owner) => format!("{} for container {owner}", record.remote),
                None => record.remote.to_string(),
            },
        ),
    ]
}

/// As it was read when the device came: to ask for it now may take as long as a server hangs.
fn serial(attached: &Attached) -> Option<&String> {
    attached.record.as_ref()?.local.as_ref()?.serial.as_ref()
}

/// One word for how it goes.
fn state(attached: &Attached) -> &'static str {
    let unfinished = attached
        .record
        .as_ref()
        .is_some_and(|record| record.local.is_none());
    match attached.slot.state {
        State::Free | State::NotReady => "free",
        State::Broken => "broken",
        // On its way in; or whoever was attaching it was killed, and no driver has it.
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
