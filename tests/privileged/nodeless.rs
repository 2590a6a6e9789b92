//! Events of devices without a node reach the containers that have a device below them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::framework::tool::output_of;
use crate::framework::{Announcements, Bundle, Machine, Udevd};

/// Two devices without a node, one above the other, with a serial port below them.
struct SerialPort {
    root: PathBuf,
    device: PathBuf,
    /// There is one, so each test has it for itself.
    _lock: Flock<File>,
}

impl SerialPort {
    fn new() -> Self {
        let class = File::open("/sys/class/tty").expect("open the class of terminals");
        let lock = Flock::lock(class, FlockArg::LockExclusive);
        let lock = lock
            .map_err(|(_, errno)| errno)
            .expect("lock the host's terminals");
        let ports = fs::read_dir("/sys/class/tty").expect("list the host's terminals");
        let found = ports.flatten().find_map(|port| {
            let port = fs::canonicalize(port.path()).ok()?;
            let is_nodeless = |above: &&Path| above.join("subsystem").exists() && !above.join("dev").exists();
            let mut above = port.ancestors().skip(1).filter(is_nodeless);
            Some((above.next()?.to_owned(), above.next()?.to_owned()))
        });
        let (device, root) = found.expect("a serial port below two devices without a node (Linux 6.5)");
        Self {
            root,
            device,
            _lock: lock,
        }
    }

    fn name(&self) -> &str {
        self.device
            .file_name()
            .and_then(|name| name.to_str())
            .expect("its name")
    }

    /// Makes the kernel send an event of the lower of the two devices.
    fn send(&self, action: &str) {
        fs::write(self.device.join("uevent"), action).expect("send an event of a device");
    }

    fn request(&self) -> String {
        format!("syspath:{}", self.root.display())
    }
}

const ACTIONS: [&str; 6] = ["change", "bind", "unbind", "remove", "add", "offline"];

fn each_event_is_received_once(machine: &Machine, in_user_namespace: bool) {
    let port = SerialPort::new();
    let bundle = Bundle::requesting(machine, &port.request()).with_user_namespace(in_user_namespace);
    let container = bundle.start();
    let listener = Announcements::inside(machine, &container, in_user_namespace);
    for action in ACTIONS {
        port.send(action);
        for form in ["KERNEL", "UDEV"] {
            listener.eventually_receive(form, action, port.name());
        }
    }
    for action in ACTIONS {
        for form in ["KERNEL", "UDEV"] {
            assert_eq!(listener.count(form, action, port.name()), 1, "{form} {action}");
        }
    }
}

#[apply(on_both_hierarchies)]
fn each_event_of_a_device_without_a_node_is_received_once(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    each_event_is_received_once(machine, false);
}

#[apply(on_both_hierarchies)]
fn each_event_is_received_once_in_a_user_namespace_where_the_kernel_sends_none(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    each_event_is_received_once(machine, true);
}

#[apply(on_both_hierarchies)]
fn without_udevd_the_kernel_s_event_is_announced_in_both_forms(machine: &Machine) {
    each_event_is_received_once(machine, true);
}

#[apply(on_both_hierarchies)]
fn a_container_without_a_device_below_receives_nothing(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let port = SerialPort::new();
    let holder = Bundle::requesting(machine, &port.request())
        .user_namespace()
        .start();
    let other = Bundle::requesting(machine, "usb:0403:6001")
        .user_namespace()
        .start();
    let [of_holder, of_other] =
        [&holder, &other].map(|container| Announcements::inside(machine, container, true));
    port.send("change");
    of_holder.eventually_receive("UDEV", "change", port.name());
    assert_eq!(of_other.received(), []);
}

#[apply(on_both_hierarchies)]
fn a_device_that_is_detached_is_removed_with_those_without_a_node(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let port = SerialPort::new();
    let container = Bundle::requesting(machine, "usb:0403:6001").start();
    let listener = Announcements::inside(machine, &container, false);
    output_of(machine, &["attach", &container.id, &port.request()]);
    listener.eventually_receive("UDEV", "add", port.name());
    output_of(machine, &["detach", &container.id, &port.request()]);
    listener.eventually_receive("UDEV", "remove", port.name());
    assert_eq!(listener.count("UDEV", "add", port.name()), 1);
}
