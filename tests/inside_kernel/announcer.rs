//! What a libudev inside the container hears.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns, unshare};
use oci_hotplug::host::announcer::Announcer;
use oci_hotplug::model::cgroup::grants::Change;
use oci_hotplug::model::device::{DevKind, DevNode, DevNum, Device, SysPath};
use oci_hotplug::model::uevent::{UeventAction, UeventForm};

use crate::fixture::{Inside, Kind, Reaped, wait_until};

const OWN_NET: Kind = Kind {
    user: false,
    net: true,
    host_dev: false,
};
const DEADLINE: Duration = Duration::from_secs(30);

/// A disk that the host does not have, so that nothing else speaks of it.
fn disk() -> Device {
    let mut device = Device::new(SysPath::new("/sys/devices/virtual/block/ohp-test"));
    device.subsystem = Some("block".into());
    device.devtype = Some("disk".into());
    let num = DevNum {
        kind: DevKind::Block,
        major: 259,
        minor: 4242,
    };
    device.node = Some(DevNode {
        path: "/dev/ohp-test".into(),
        num,
    });
    device.tags = BTreeSet::from(["oci-hotplug-test".to_owned()]);
    device.properties.insert("ID_SERIAL".into(), "A 1".into());
    device.properties.insert("DISKSEQ".into(), "7".into());
    device.seqnum = 11;
    device
}

fn network(inside: &Inside) -> OwnedFd {
    File::open(format!("/proc/{}/ns/net", inside.facts.pid))
        .unwrap()
        .into()
}

/// What a monitor heard: action, path, node, DISKSEQ.
type Heard = (String, String, Option<String>, Option<String>);

/// A libudev that listens until this is dropped.
struct Listener {
    heard: Receiver<Heard>,
    finish: Sender<()>,
}

impl Listener {
    /// All that it has not told yet. Delivery is within the send: what it could hear, it has then
    /// heard.
    fn finish(self) -> Vec<Heard> {
        drop(self.finish);
        self.heard.iter().collect()
    }
}

/// Listens in a network namespace with libudev itself, from a thread that is there, for blocks of
/// type disk (and the test's tag, in udev's group), so that the message must pass libudev's socket
/// filter by its hashes.
fn listen(namespace: OwnedFd, form: UeventForm) -> Listener {
    let (ready, is_ready) = channel();
    let (hear, heard) = channel();
    let (finish, finishing) = channel::<()>();
    std::thread::spawn(move || {
        // libudev listens to udev's group only where it sees a udevd: a control socket in
        // /run/udev.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&Path> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        std::fs::create_dir("/run/udev").unwrap();
        File::create("/run/udev/control").unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let builder = match form {
            UeventForm::Udev => udev::MonitorBuilder::new()
                .unwrap()
                .match_tag("oci-hotplug-test")
                .unwrap(),
            UeventForm::Kernel => udev::MonitorBuilder::new_kernel().unwrap(),
        };
        let socket = builder
            .match_subsystem_devtype("block", "disk")
            .unwrap()
            .listen()
            .unwrap();
        ready.send(()).unwrap();
        loop {
            let is_last = finishing.try_recv() == Err(TryRecvError::Disconnected);
            let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, if is_last { 0_u8 } else { 50 }).unwrap();
            for event in socket.iter() {
                let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
                let told = (
                    event.event_type().to_string(),
                    event.syspath().display().to_string(),
                    event.devnode().map(|node| node.display().to_string()),
                    event.property_value("DISKSEQ").map(text),
                );
                if hear.send(told).is_err() {
                    return;
                }
            }
            if is_last {
                return;
            }
        }
    });
    is_ready.recv_timeout(DEADLINE).unwrap();
    Listener { heard, finish }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn libudev_in_the_container_receives_add_and_remove_in_both_forms_and_the_host_receives_nothing() {
    for form in [UeventForm::Udev, UeventForm::Kernel] {
        let inside = Inside::start(OWN_NET);
        let mut announcer = Announcer::open(&inside.container()).unwrap();
        let within = listen(network(&inside), form);
        let host = listen(File::open("/proc/self/ns/net").unwrap().into(), form);
        for action in [UeventAction::Add, UeventAction::Change, UeventAction::Remove] {
            let node = Some(Path::new("/dev/mydisk"));
            assert_eq!(
                announcer.announce(form, action, &disk(), node).unwrap(),
                Change::Made
            );
            // Real disks are heard of here, too: the kernel tells every network namespace, and a
            // udevd makes it tell.
            let told = std::iter::from_fn(|| within.heard.recv_timeout(DEADLINE).ok())
                .find(|told| told.1.contains("ohp-test"))
                .expect("libudev takes the message");
            let expected = (
                action.to_string(),
                "/sys/devices/virtual/block/ohp-test".to_owned(),
                Some("/dev/mydisk".to_owned()),
                Some("7".to_owned()),
            );
            assert_eq!(told, expected, "{form:?}");
        }
        let mut leaked = host.finish();
        leaked.retain(|told| told.1.contains("ohp-test"));
        assert_eq!(leaked, []);
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn udevadm_in_a_user_namespace_receives_both_forms() {
    let inside = Inside::start(Kind {
        user: true,
        net: true,
        host_dev: false,
    });
    let mut announcer = Announcer::open(&inside.container()).unwrap();
    let pid = inside.facts.pid.to_string();
    let script = "mount -t tmpfs x /run && mkdir /run/udev && : > /run/udev/control && \
                  exec udevadm monitor --kernel --udev --property";
    let child = Command::new("nsenter")
        .args([
            "--target", &pid, "--user", "--net", "--setuid", "0", "--setgid", "0",
        ])
        .args(["unshare", "--mount", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn();
    let mut monitor = Reaped(child.unwrap());
    let output = BufReader::new(monitor.0.stdout.take().unwrap());
    let (line, lines) = channel();
    std::thread::spawn(move || {
        output
            .lines()
            .map_while(Result::ok)
            .try_for_each(|text| line.send(text))
    });
    let sockets = format!("/proc/{pid}/net/netlink");
    wait_until("udevadm listens", || {
        let text = std::fs::read_to_string(&sockets).unwrap_or_default();
        let groups: BTreeSet<&str> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.get(1) == Some(&"15"))
            .map(|fields| fields[3])
            .collect();
        groups.contains("00000001") && groups.contains("00000002")
    });
    for (form, name) in [(UeventForm::Udev, "UDEV"), (UeventForm::Kernel, "KERNEL")] {
        for action in [UeventAction::Add, UeventAction::Remove] {
            assert_eq!(
                announcer.announce(form, action, &disk(), None).unwrap(),
                Change::Made
            );
            let ends = format!("{action:<8} /devices/virtual/block/ohp-test (block)");
            loop {
                let text = lines
                    .recv_timeout(DEADLINE)
                    .unwrap_or_else(|_| panic!("{name} {action} is not heard"));
                if text.starts_with(name) && text.ends_with(&ends) {
                    break;
                }
            }
        }
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn sending_without_a_listener_is_not_an_error() {
    for user in [false, true] {
        let inside = Inside::start(Kind { user, ..OWN_NET });
        let mut announcer = Announcer::open(&inside.container()).unwrap();
        for form in [UeventForm::Udev, UeventForm::Kernel] {
            assert_eq!(
                announcer
                    .announce(form, UeventAction::Add, &disk(), None)
                    .unwrap(),
                Change::Made
            );
        }
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn nothing_is_announced_in_the_hosts_network_namespace() {
    let inside = Inside::start(Kind::default());
    let mut announcer = Announcer::open(&inside.container()).unwrap();
    assert!(matches!(announcer, Announcer::Suppressed));
    let said = announcer
        .announce(UeventForm::Udev, UeventAction::Add, &disk(), None)
        .unwrap();
    assert_eq!(said, Change::None);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn opening_leaves_the_process_in_its_network_namespace() {
    let before = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let inside = Inside::start(OWN_NET);
    assert!(matches!(
        Announcer::open(&inside.container()).unwrap(),
        Announcer::Open(_)
    ));
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), before);
}
