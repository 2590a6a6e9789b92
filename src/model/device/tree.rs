//! The host's devices as a tree for display: buses, hubs, devices and nodes with their holders,
//! sorted naturally (2 before 10).
//!
//! Must not know how a tree is drawn.

mod natural_order;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use natural_order::natural;

use crate::model::device::{DevNode, Device, SysPath, usb_hub};
use crate::model::oci::engine::printable;

/// The sysfs attributes that the tree shows, for
/// [`crate::model::request::facts_needed::FactsNeeded`].
pub(crate) const ATTRIBUTES: [&str; 6] = [
    "manufacturer",
    "product",
    "serial",
    "idVendor",
    "idProduct",
    "name",
];

/// A container that has a device attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    /// The name of the container, for display.
    pub container: String,
    /// The path of the node in the container.
    pub path: PathBuf,
}

/// The holders of each device.
pub(crate) type Holders = BTreeMap<SysPath, Vec<Holder>>;

/// A line of the tree, with the lines below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Branch {
    /// The kernel's name; for a bus, the directory below `/sys/devices`.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syspath: Option<SysPath>,
    /// Maker and model, as far as known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `VID:PID` of a USB device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The serial number of a USB device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Of which hub it is the other half, such as `USB 3 half of 1-1.4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half: Option<String>,
    /// The driver of this device, or else of the nearest device between it and the line above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<DevNode>,
    /// The containers that have the device attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
    /// How many nodes of this bus are hidden.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden: usize,
    /// The lines below this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Branch>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The tree of these devices, with a bus at each root. Shows each device with a node, each USB
/// device, and the devices above them. Of the kernel's virtual devices (`/sys/devices/virtual`),
/// shows only those with a holder, unless `all` is true.
pub(crate) fn tree(devices: &[Device], holders: &Holders, all: bool) -> Vec<Branch> {
    let known: BTreeMap<&SysPath, &Device> = devices.iter().map(|device| (&device.syspath, device)).collect();
    let shown = shown(&known, holders, all);
    let mut below: BTreeMap<Option<SysPath>, Vec<&Device>> = BTreeMap::new();
    for path in &shown {
        let parent = path.ancestors().find(|above| shown.contains(above));
        below.entry(parent).or_default().extend(known.get(path).copied());
    }
    let mut buses: BTreeMap<&str, Branch> = BTreeMap::new();
    for device in devices {
        let bus = buses
            .entry(bus(&device.syspath))
            .or_insert_with_key(|name| Branch::bus(name));
        bus.hidden += usize::from(device.node.is_some() && !shown.contains(&device.syspath));
    }
    for device in below.get(&None).into_iter().flatten() {
        if let Some(bus) = buses.get_mut(bus(&device.syspath)) {
            bus.branches.push(branch(device, None, &known, &below, holders));
        }
    }
    let mut buses: Vec<Branch> = buses
        .into_values()
        .filter(|bus| bus.hidden > 0 || !bus.branches.is_empty())
        .collect();
    for bus in &mut buses {
        sort(&mut bus.branches);
    }
    sort(&mut buses);
    buses
}

/// The devices that get their own line.
fn shown(known: &BTreeMap<&SysPath, &Device>, holders: &Holders, all: bool) -> BTreeSet<SysPath> {
    let mut shown: BTreeSet<SysPath> = known
        .values()
        .filter(|device| {
            let path = &device.syspath;
            let is_usb = device.devtype.as_deref() == Some("usb_device");
            let is_wanted = all || holders.contains_key(path) || bus(path) != "virtual";
            is_usb || (device.node.is_some() && is_wanted)
        })
        .map(|device| device.syspath.clone())
        .collect();
    // Show the innermost controller; bridges between controllers add no information.
    let controllers: Vec<SysPath> = shown
        .iter()
        .filter_map(|path| {
            let of_pci = |above: &SysPath| {
                known
                    .get(above)
                    .is_some_and(|device| device.subsystem.as_deref() == Some("pci"))
            };
            path.ancestors().find(of_pci)
        })
        .collect();
    shown.extend(controllers);
    shown
}

/// The directory below `/sys/devices` that contains a device.
fn bus(path: &SysPath) -> &str {
    let below = path.as_str().strip_prefix("/sys/devices/").unwrap_or_default();
    below.split('/').next().unwrap_or_default()
}

impl Branch {
    fn bus(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            syspath: None,
            description: String::new(),
            id: None,
            serial: None,
            half: None,
            driver: None,
            node: None,
            holders: Vec::new(),
            hidden: 0,
            branches: Vec::new(),
        }
    }
}

fn branch(
    device: &Device,
    above: Option<&SysPath>,
    known: &BTreeMap<&SysPath, &Device>,
    below: &BTreeMap<Option<SysPath>, Vec<&Device>>,
    holders: &Holders,
) -> Branch {
    let path = &device.syspath;
    let between = std::iter::once(path.clone()).chain(path.ancestors().take_while(|up| Some(up) != above));
    let driver = between.filter_map(|up| known.get(&up)?.driver.clone()).next();
    let is_usb = device.devtype.as_deref() == Some("usb_device");
    let usb = |name: &str| device.attribute(name).filter(|_| is_usb).map(printable);
    let id = usb("idVendor").zip(usb("idProduct"));
    let mut branches: Vec<Branch> = below
        .get(&Some(path.clone()))
        .into_iter()
        .flatten()
        .map(|child| branch(child, Some(path), known, below, holders))
        .collect();
    sort(&mut branches);
    Branch {
        name: printable(path.name()),
        syspath: Some(path.clone()),
        description: description(device, known),
        id: id.map(|(vendor, product)| format!("{vendor}:{product}")),
        // The "serial number" of a root hub is the address of its controller, which the line above
        // shows.
        serial: usb("serial")
            .filter(|serial| !serial.is_empty() && above.is_none_or(|above| serial != above.name())),
        half: device
            .companion
            .as_ref()
            .map(|other| format!("{} of {}", usb_hub::half(device), printable(other.name()))),
        // Every USB device has the driver `usb`; the lines below show the drivers of its functions.
        driver: driver
            .filter(|driver| !is_usb || driver != "usb")
            .map(|driver| printable(&driver)),
        node: device.node.clone(),
        holders: holders.get(path).cloned().unwrap_or_default(),
        hidden: 0,
        branches,
    }
}

/// The vendor id of the root hubs (usb.ids).
const LINUX_FOUNDATION: &str = "1d6b";

/// Vendor and model: from the USB device itself, else from udev's database, else the name that the
/// kernel gives to an input or media device.
fn description(device: &Device, known: &BTreeMap<&SysPath, &Device>) -> String {
    let attribute = |name: &str| device.attribute(name).unwrap_or_default();
    let property = |key: &str| device.properties.get(key).map(String::as_str).unwrap_or_default();
    let its_own = || match attribute("idVendor") {
        // The "manufacturer" of a root hub is the kernel with its version.
        LINUX_FOUNDATION => printable(attribute("product")),
        _ => join(attribute("manufacturer"), attribute("product")),
    };
    let database = || {
        join(
            property("ID_VENDOR_FROM_DATABASE"),
            property("ID_MODEL_FROM_DATABASE"),
        )
    };
    let is_disk = device.subsystem.as_deref() == Some("block");
    let disk = || {
        let what = property(if device.devtype.as_deref() == Some("partition") {
            "ID_FS_LABEL"
        } else {
            "ID_MODEL"
        });
        if is_disk {
            printable(&what.replace('_', " "))
        } else {
            String::new()
        }
    };
    let input = || {
        let parent = device
            .syspath
            .parent()
            .and_then(|above| known.get(&above).copied());
        let named = [Some(device), parent].into_iter().flatten();
        let mut names = named.filter_map(|device| device.attribute("name"));
        names.next().map(printable).unwrap_or_default()
    };
    match device.devtype.as_deref() {
        Some("usb_device") => first([its_own(), database()]),
        _ if device.subsystem.as_deref() == Some("pci") => database(),
        _ => first([disk(), input()]),
    }
}

fn first<const N: usize>(texts: [String; N]) -> String {
    texts
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// Vendor and model, without repeating the vendor.
fn join(maker: &str, model: &str) -> String {
    let (maker, model) = (printable(maker), printable(model));
    if model.starts_with(&maker) || maker.is_empty() {
        model
    } else {
        format!("{maker} {model}").trim_end().to_owned()
    }
}

/// Natural order: `1-1.2` before `1-1.10`; virtual devices at the end.
fn sort(branches: &mut [Branch]) {
    let is_last = |branch: &Branch| branch.syspath.is_none() && branch.name == "virtual";
    branches.sort_by(|a, b| {
        is_last(a)
            .cmp(&is_last(b))
            .then_with(|| natural(&a.name, &b.name))
    });
}

#[cfg(test)]
mod tests;
