//! Which devices with nodes sysfs has, and what is above them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::fcntl;

use super::{Attributes, SysFs, place_of, place_of_link, subsystem_of_virtual};
use crate::host::file_system::open_directory;
use crate::host::monitor::error::MonitorError;
use crate::model::device::same_data::is_virtual_block;
use crate::model::device::{Device, SysPath, major_minor};

/// Places in their order. A device with a number has a node with the name of the device.
type Places = BTreeMap<String, Option<(u32, u32)>>;

impl SysFs {
    /// All devices that have nodes, all devices above them, and those of `extra` (with what is
    /// above them): parents first.
    ///
    /// A device that vanishes meanwhile is left out, or its event follows. Errors: `/sys/dev`
    /// cannot be listed.
    pub(in crate::host::monitor) fn devices(
        &self,
        attributes: &Attributes,
        extra: &[SysPath],
    ) -> Result<Vec<Device>, MonitorError> {
        let mut places = Places::new();
        for kind in ["char", "block"] {
            self.for_each_with_node(kind, |place, number| {
                add_with_ancestors(&mut places, place);
                if kind == "char" && has_node_of_its_name(place) {
                    places.insert(place.to_owned(), major_minor(number));
                }
            })?;
        }
        for syspath in extra {
            if let Some(place) = place_of(syspath) {
                add_with_ancestors(&mut places, place);
            }
        }
        let read = |(place, number): (&String, &Option<_>)| match *number {
            Some(number) => Some(self.with_node_of_its_name(place, number, attributes)),
            None => self.read(place, attributes),
        };
        Ok(places.iter().filter_map(read).collect())
    }

    /// All virtual block devices (`same_data::is_virtual_block`).
    ///
    /// Errors: `/sys/dev` cannot be listed.
    pub(in crate::host::monitor) fn virtual_blocks(&self) -> Result<Vec<SysPath>, MonitorError> {
        let mut blocks = Vec::new();
        self.for_each_with_node("block", |place, _| {
            let syspath = SysPath::new(format!("/sys/devices/{place}"));
            blocks.extend(Some(syspath).filter(is_virtual_block));
        })?;
        Ok(blocks)
    }

    /// Calls `take` with the place of each device that has a node of this kind (`char` or `block`),
    /// and with the number of the node.
    fn for_each_with_node(&self, kind: &str, mut take: impl FnMut(&str, &str)) -> Result<(), MonitorError> {
        let path = self.root.join("dev").join(kind);
        let failed = |source| MonitorError::SysFs {
            path: path.clone(),
            source,
        };
        let directory = open_directory(&path).map_err(|errno| failed(errno.into()))?;
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Ok(target) = fcntl::readlinkat(&directory, name.as_os_str()) else {
                continue;
            };
            if let Some(place) = place_of_link(Path::new(&target)) {
                take(place, &name.to_string_lossy());
            }
        }
        Ok(())
    }

    /// A device for which [`has_node_of_its_name`] is true.
    fn with_node_of_its_name(&self, place: &str, number: (u32, u32), attributes: &Attributes) -> Device {
        let syspath = SysPath::new(format!("/sys/devices/{place}"));
        let subsystem = subsystem_of_virtual(place).map(str::to_owned);
        let properties = [
            ("MAJOR", number.0.to_string()),
            ("MINOR", number.1.to_string()),
            ("DEVNAME", syspath.name().to_owned()),
        ];
        let properties = properties.map(|(key, value)| (key.to_owned(), value));
        self.of_uevent(syspath, place, subsystem, properties.into(), attributes)
    }
}

/// Whether a device certainly has a node with the name of the device, so that its `uevent` file
/// tells only the node's mode: a virtual device of a class that leaves the names to the kernel
/// (device_get_devnode, drivers/base/core.c; mem_devnode, drivers/char/mem.c; tty_devnode,
/// drivers/tty/tty_io.c; vc_screen.c has none). Most of a host's devices are terminals.
pub(super) fn has_node_of_its_name(place: &str) -> bool {
    let class = subsystem_of_virtual(place).unwrap_or_default();
    // The kernel writes `!` for `/`.
    ["mem", "tty", "vc"].contains(&class) && !place.contains('!')
}

fn add_with_ancestors(places: &mut Places, place: &str) {
    let mut place = place;
    // Where a place is known, everything above it is.
    while !places.contains_key(place) {
        places.insert(place.to_owned(), None);
        match place.rsplit_once('/') {
            Some((above, _)) => place = above,
            None => break,
        }
    }
}
