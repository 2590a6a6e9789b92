//! The monitor against the real kernel: partitions of a loop device come and go, with and without a
//! real udevd.
//!
//! Each test lives in separate mount and network namespaces: a private /run (so /run/udev is the
//! test's own), and a udev group that only the test's own udevd speaks in. The kernel's events
//! reach every network namespace.
#![allow(unsafe_code, reason = "loop and partition ioctls have no safe wrapper")]

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, getsockname, sendto, socket,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Pid, geteuid};
use oci_hotplug::host::monitor::{DeviceMonitor, RECEIVE_BUFFER, Skipped, udevd_is_running};
use oci_hotplug::model::device::event::DeviceEvent;
use oci_hotplug::model::device::{Device, SysPath, UdevState};
use oci_hotplug::model::request::facts_needed::FactsNeeded;
use oci_hotplug::model::uevent::{UeventAction, UeventForm, udev_message};

const DEADLINE: Duration = Duration::from_secs(30);

/// Makes the calling thread's world private. The thread dies with its test, and the namespaces with
/// it.
fn private_world() {
    assert!(
        geteuid().is_root(),
        "this test needs root: run it through tests/run.sh"
    );
    // Programs that a test starts inherit nothing of the test run, such as a lock: they may outlive
    // it. SAFETY: the arguments are numbers; the call closes nothing, it sets a flag.
    let flagged = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    assert_eq!(flagged, 0, "close_range(2): {}", std::io::Error::last_os_error());
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .expect("unshare mount and network namespaces");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make mounts private");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("mount a private /run");
    assert!(!udevd_is_running(), "/run is not private");
}

/// struct blkpg_partition (linux/blkpg.h).
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// struct blkpg_ioctl_arg (linux/blkpg.h).
#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    partition: *mut Partition,
}

const LOOP_SET_FD: libc::c_ulong = 0x4C00;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const BLKPG: libc::c_ulong = 0x1269;

fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> Result<i32, Errno> {
    // SAFETY: the requests used here take a number, or (BLKPG) a pointer to a struct that lives
    // across the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) })
}

/// A loop device of the test's own, with at most its first partition plugged in.
struct LoopDisk {
    disk: File,
    number: i32,
    _backing: File,
}

impl LoopDisk {
    fn attach() -> Self {
        let backing = tempfile::tempfile().unwrap();
        backing.set_len(8 << 20).unwrap();
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let number = ioctl(&control, LOOP_CTL_GET_FREE, 0).expect("a free loop device");
            let path = format!("/dev/loop{number}");
            let disk = OpenOptions::new().read(true).write(true).open(path).unwrap();
            match ioctl(&disk, LOOP_SET_FD, backing.as_raw_fd() as libc::c_ulong) {
                Ok(_) => {
                    return Self {
                        disk,
                        number,
                        _backing: backing,
                    };
                }
                // Another test was quicker.
                Err(Errno::EBUSY) => assert!(Instant::now() < deadline, "no free loop device"),
                Err(errno) => panic!("attach a file to loop{number}: {errno}"),
            }
        }
    }

    fn partition(&self, operation: i32) -> Result<i32, Errno> {
        let mut partition = Partition {
            start: 1 << 20,
            length: 4 << 20,
            number: 1,
            names: [0; 128],
        };
        let argument = BlkpgArgument {
            operation,
            flags: 0,
            length: size_of::<Partition>() as i32,
            partition: &raw mut partition,
        };
        ioctl(&self.disk, BLKPG, &raw const argument as libc::c_ulong)
    }

    fn plug(&self) {
        self.partition(1).expect("add a partition");
    }

    /// udevd may have the partition open for a moment to probe it.
    fn unplug(&self) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(errno) = self.partition(2) {
            assert_eq!(errno, Errno::EBUSY);
            assert!(Instant::now() < deadline, "the partition stays busy");
            std::thread::yield_now();
        }
    }

    fn syspath(&self) -> SysPath {
        SysPath::new(format!("/sys/devices/virtual/block/loop{0}", self.number))
    }

    fn partition_syspath(&self) -> SysPath {
        SysPath::new(format!("{}/loop{}p1", self.syspath(), self.number))
    }

    fn announce(&self, action: &str) {
        fs::write(self.syspath().as_path().join("uevent"), action).unwrap();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.partition(2) == Err(Errno::EBUSY) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let _ = ioctl(&self.disk, LOOP_CLR_FD, 0);
    }
}

/// A link in /dev that a test's udevd makes: gone when the test ends, however it ends.
struct Link(PathBuf);

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A udevd that ends with its test, panic or not. The kernel kills it with the test's thread
/// (prctl(2), PR_SET_PDEATHSIG).
struct Udevd(Child);

impl Udevd {
    /// Starts one with this rule alone, and waits until it listens. The host's own rules would
    /// leave links and permissions in the machine's only devtmpfs, for all devices that other tests
    /// plug in meanwhile.
    fn start(rule: &str) -> Self {
        let none: Option<&str> = None;
        for rules in ["/usr/lib/udev/rules.d", "/etc/udev/rules.d"] {
            if Path::new(rules).exists() {
                mount(Some("tmpfs"), rules, Some("tmpfs"), MsFlags::empty(), none)
                    .expect("hide the host's rules");
            }
        }
        fs::create_dir_all("/run/udev/rules.d").unwrap();
        fs::write("/run/udev/rules.d/99-test.rules", rule).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "/lib/systemd/systemd-udevd"])
            .arg("--resolve-names=never")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start systemd-udevd through setpriv (packages udev, util-linux)");
        let mut udevd = Self(child);
        let deadline = Instant::now() + DEADLINE;
        while !udevd_is_running() {
            assert_eq!(udevd.0.try_wait().unwrap(), None, "udevd ended");
            assert!(Instant::now() < deadline, "udevd does not come up");
            std::thread::yield_now();
        }
        udevd
    }
}

impl Drop for Udevd {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + DEADLINE;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
            }
            std::thread::yield_now();
        }
    }
}

/// A socket of another sender than the kernel and udevd.
fn other_socket() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkKObjectUEvent,
    )
    .unwrap()
}

/// Sends a change of this device to the group of udevd's events, as root of this network namespace
/// can.
fn change_in_udevds_group(device: &Device) {
    let message = udev_message(UeventAction::Change, device, None, 1);
    let group = NetlinkAddr::new(0, UeventForm::Udev.group());
    sendto(other_socket().as_raw_fd(), &message, &group, MsgFlags::empty()).unwrap();
}

fn wait(fds: Vec<BorrowedFd<'_>>, until: Instant) {
    let mut fds: Vec<_> = fds
        .into_iter()
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let left = until.saturating_duration_since(Instant::now());
    poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
}

fn syspath_of(event: &DeviceEvent) -> Option<&SysPath> {
    match event {
        DeviceEvent::Added(device) | DeviceEvent::Changed(device) | DeviceEvent::Moved { device, .. } => {
            Some(&device.syspath)
        }
        DeviceEvent::Removed { syspath, .. } => Some(syspath),
        DeviceEvent::Overrun => None,
    }
}

/// The next event of the device: others of the machine's are passed over. Panics at the deadline.
fn next(monitor: &mut DeviceMonitor, queue: &mut Vec<DeviceEvent>, syspath: &SysPath) -> DeviceEvent {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(at) = queue.iter().position(|event| syspath_of(event) == Some(syspath)) {
            return queue.drain(..=at).next_back().unwrap();
        }
        queue.clear();
        assert!(Instant::now() < deadline, "no event of {syspath}");
        wait(monitor.fds().map(|(_, fd)| fd).collect(), deadline);
        queue.extend(monitor.drain());
    }
}

/// Drains until an event is as facts; that one and all before it. Panics at the deadline.
fn drain_until(
    monitor: &mut DeviceMonitor,
    deadline: Instant,
    is_wanted: impl Fn(&DeviceEvent) -> bool,
) -> Vec<DeviceEvent> {
    let mut events = Vec::new();
    while !events.iter().any(&is_wanted) {
        assert!(Instant::now() < deadline, "not heard: only {events:?}");
        wait(monitor.fds().map(|(_, fd)| fd).collect(), deadline);
        events.extend(monitor.drain());
    }
    events
}

fn added(event: DeviceEvent) -> Device {
    match event {
        DeviceEvent::Added(device) => device,
        other => panic!("not Added: {other:?}"),
    }
}

fn changed(event: DeviceEvent) -> Device {
    match event {
        DeviceEvent::Changed(device) => device,
        other => panic!("not Changed: {other:?}"),
    }
}

fn removed(event: DeviceEvent) -> u64 {
    match event {
        DeviceEvent::Removed { seqnum, .. } => seqnum,
        other => panic!("not Removed: {other:?}"),
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn without_udevd_events_of_the_kernel_are_complete_at_once() {
    private_world();
    let disk = LoopDisk::attach();
    let facts = FactsNeeded {
        attributes: [
            ("size".to_owned(), Some("partition".to_owned())),
            ("ro".to_owned(), Some("disk".to_owned())),
        ]
        .into(),
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    let mut queue = Vec::new();
    let syspath = disk.partition_syspath();

    disk.plug();
    let device = added(next(&mut monitor, &mut queue, &syspath));
    assert_eq!(
        (device.subsystem.as_deref(), device.devtype.as_deref()),
        (Some("block"), Some("partition"))
    );
    let node = device.node.clone().unwrap();
    assert_eq!(node.path, PathBuf::from(format!("/dev/loop{}p1", disk.number)));
    let number = fs::read_to_string(syspath.as_path().join("dev")).unwrap();
    assert_eq!(node.num.to_string(), format!("b {}", number.trim()));
    assert_eq!(device.attribute("size"), Some("8192"));
    assert_eq!(device.attribute("ro"), None, "facts of disks only");
    assert_eq!(device.udev_state, UdevState::NoUdevd);
    assert!(device.seqnum > 0);

    let mut listed = monitor
        .enumerate()
        .unwrap()
        .into_iter()
        .find(|other| other.syspath == syspath)
        .unwrap();
    assert_eq!((listed.udev_state, listed.seqnum), (UdevState::Pending, 0));
    monitor.complete(&mut listed);
    assert_eq!(
        (listed.udev_state, &listed.node),
        (UdevState::NoUdevd, &device.node)
    );

    disk.unplug();
    assert!(removed(next(&mut monitor, &mut queue, &syspath)) > device.seqnum);
    assert!(
        monitor
            .enumerate()
            .unwrap()
            .iter()
            .all(|other| other.syspath != syspath)
    );
    let mut gone = listed.clone();
    monitor.complete(&mut gone);
    assert_eq!(gone, listed);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn change_online_and_bind_are_changes() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let mut queue = Vec::new();
    for action in ["change", "online", "offline", "bind", "unbind"] {
        disk.announce(action);
        let device = changed(next(&mut monitor, &mut queue, &disk.syspath()));
        assert_eq!(device.properties["ACTION"], action);
        assert_eq!(device.devtype.as_deref(), Some("disk"));
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn with_udevd_a_device_is_reported_twice_and_its_removal_once() {
    private_world();
    let disk = LoopDisk::attach();
    let link = PathBuf::from(format!("/dev/oci-hotplug-test-{}", disk.number));
    let _link = Link(link.clone());
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let rule = format!(
        "KERNEL==\"loop{}p1\", SYMLINK+=\"{}\", TAG+=\"oci_hotplug_test\", ENV{{OCI_HOTPLUG_TEST}}=\"yes\"\n",
        disk.number,
        link.file_name().unwrap().to_str().unwrap(),
    );
    let _udevd = Udevd::start(&rule);
    monitor.refresh();
    let syspath = disk.partition_syspath();
    let mut queue = Vec::new();

    for _ in 0..3 {
        disk.plug();
        let kernel = added(next(&mut monitor, &mut queue, &syspath));
        assert_eq!(kernel.udev_state, UdevState::Pending);
        assert!(kernel.links.is_empty() && kernel.tags.is_empty());
        assert_eq!(kernel.properties.get("OCI_HOTPLUG_TEST"), None);

        let udev = added(next(&mut monitor, &mut queue, &syspath));
        assert_eq!(
            (udev.udev_state, udev.seqnum),
            (UdevState::Processed, kernel.seqnum)
        );
        assert_eq!(udev.properties["OCI_HOTPLUG_TEST"], "yes");
        assert!(udev.tags.contains("oci_hotplug_test"), "{:?}", udev.tags);
        assert!(udev.links.contains(&link), "{:?}", udev.links);
        assert_eq!(udev.node, kernel.node);

        let mut listed = monitor
            .enumerate()
            .unwrap()
            .into_iter()
            .find(|other| other.syspath == syspath)
            .unwrap();
        monitor.complete(&mut listed);
        assert_eq!(
            (listed.udev_state, &listed.tags, &listed.links),
            (UdevState::Processed, &udev.tags, &udev.links)
        );
        assert_eq!(listed.properties["OCI_HOTPLUG_TEST"], "yes");

        // The next event is the next round's Added: udevd's own removal is not told.
        disk.unplug();
        assert!(removed(next(&mut monitor, &mut queue, &syspath)) > udev.seqnum);
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_device_that_udevd_has_not_processed_has_only_facts_of_the_kernel() {
    private_world();
    let disk = LoopDisk::attach();
    let _udevd = Udevd::start("");
    let facts = FactsNeeded {
        udev_of_all: true,
        ..FactsNeeded::default()
    };
    let monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    // Attached before this udevd came up, and never triggered.
    let devices = monitor.enumerate().unwrap();
    let listed = devices
        .iter()
        .find(|other| other.syspath == disk.syspath())
        .unwrap();
    assert_eq!(listed.udev_state, UdevState::Pending);
    // A bus or a port above some device, without a node.
    let mut above = devices.iter().filter(|device| device.node.is_none()).peekable();
    assert!(above.peek().is_some(), "every device has a node");
    for device in above {
        assert_eq!(
            device.udev_state,
            UdevState::Processed,
            "udevd stores nothing of {}",
            device.syspath
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_burst_into_a_tiny_buffer_is_one_overrun_and_later_events_are_read() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), 1).unwrap();
    for _ in 0..500 {
        disk.announce("change");
    }
    let events = monitor.drain();
    let overruns = events
        .iter()
        .filter(|event| **event == DeviceEvent::Overrun)
        .count();
    assert_eq!(overruns, 1, "{} events", events.len());
    assert_eq!(events.last(), Some(&DeviceEvent::Overrun));
    assert!(events.len() < 500);

    // Other tests' events can fill so small a buffer again: such a loss is reported, too.
    let deadline = Instant::now() + DEADLINE;
    loop {
        disk.announce("online");
        let events = drain_until(&mut monitor, deadline, |event| {
            *event == DeviceEvent::Overrun || syspath_of(event) == Some(&disk.syspath())
        });
        if let Some(event) = events
            .iter()
            .find(|event| syspath_of(event) == Some(&disk.syspath()))
        {
            assert_eq!(changed(event.clone()).properties["ACTION"], "online");
            break;
        }
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn every_event_of_a_burst_into_the_usual_buffer_is_read() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    for _ in 0..2000 {
        disk.announce("change");
    }
    let events = monitor.drain();
    let own = events
        .iter()
        .filter(|event| syspath_of(event) == Some(&disk.syspath()))
        .count();
    assert_eq!(own, 2000);
    assert!(!events.contains(&DeviceEvent::Overrun));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn messages_of_other_users_are_ignored_and_hide_no_later_event() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let sender = other_socket();
    let (_, kernel_fd) = monitor.fds().next().unwrap();
    let kernel_fd = kernel_fd.as_raw_fd();
    let address: NetlinkAddr = getsockname(kernel_fd).unwrap();
    let forged = format!(
        "add@/devices/forged\0ACTION=add\0DEVPATH=/devices/forged\0SUBSYSTEM=mem\0SEQNUM={}\0",
        1_u64 << 40
    );
    let broken = b"change@/devices/forged\0this is not a property\0";
    for _ in 0..100 {
        // To the monitor's own port, and as root in the network namespace to the kernel's group.
        for text in [forged.as_bytes(), broken, b"short"] {
            for to in [NetlinkAddr::new(address.pid(), 0), NetlinkAddr::new(0, 1)] {
                sendto(sender.as_raw_fd(), text, &to, MsgFlags::empty()).unwrap();
            }
        }
    }
    // One multicast drain later, the true event is there.
    disk.announce("change");
    let events = monitor.drain();
    assert!(
        events
            .iter()
            .any(|event| syspath_of(event) == Some(&disk.syspath())),
        "{events:?}"
    );
    let forged = SysPath::new("/sys/devices/forged");
    assert!(
        events.iter().all(|event| syspath_of(event) != Some(&forged)),
        "{events:?}"
    );
}

/// Creates and removes a pair of network interfaces of the test's own namespace.
fn pair_of_interfaces() {
    for arguments in ["link add oht0 type veth peer oht1", "link delete oht0"] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(
            status.expect("start ip (package iproute2)").success(),
            "{arguments}"
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn events_of_network_interfaces_wake_the_monitor_only_if_they_are_needed() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let is_of_network = |event: &DeviceEvent| {
        syspath_of(event).is_some_and(|syspath| syspath.as_str().starts_with("/sys/devices/virtual/net/"))
    };
    let mut device = Device::new(SysPath::new("/sys/devices/virtual/net/oht0"));
    device.subsystem = Some("net".into());
    // Other tests' events may come meanwhile, but none of this network namespace.
    pair_of_interfaces();
    change_in_udevds_group(&device);
    let (_, of_udevd) = monitor.fds().nth(1).unwrap();
    let mut fds = [PollFd::new(of_udevd, PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut fds, PollTimeout::ZERO).unwrap(),
        0,
        "the kernel drops it"
    );
    disk.announce("change");
    let events = monitor.drain();
    assert!(!events.iter().any(is_of_network), "{events:?}");
    assert!(
        events
            .iter()
            .any(|event| syspath_of(event) == Some(&disk.syspath()))
    );

    monitor.add_needed(&FactsNeeded {
        nodeless_events: true,
        ..FactsNeeded::default()
    });
    pair_of_interfaces();
    let events = monitor.drain();
    let of_network = events.iter().filter(|event| is_of_network(event)).count();
    assert!(of_network >= 4, "{of_network} events of two interfaces");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn events_of_virtual_block_devices_wake_the_monitor_only_if_they_are_needed() {
    private_world();
    let disk = LoopDisk::attach();
    let facts = FactsNeeded {
        no_virtual_blocks: true,
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    let mut device = Device::new(disk.syspath());
    device.subsystem = Some("block".into());
    let is_of_disk = |event: &DeviceEvent| {
        let syspath = syspath_of(event);
        syspath.is_some_and(|syspath| syspath.is_at_or_below(&disk.syspath()))
    };
    disk.plug();
    disk.announce("change");
    change_in_udevds_group(&device);
    disk.unplug();
    let (_, of_udevd) = monitor.fds().nth(1).unwrap();
    let mut fds = [PollFd::new(of_udevd, PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut fds, PollTimeout::ZERO).unwrap(),
        0,
        "the kernel drops it"
    );
    let mut null = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
    null.subsystem = Some("mem".into());
    change_in_udevds_group(&null);
    let deadline = Instant::now() + DEADLINE;
    let events = drain_until(&mut monitor, deadline, |event| {
        syspath_of(event) == Some(&null.syspath)
    });
    assert!(!events.iter().any(is_of_disk), "{events:?}");

    monitor.add_virtual_blocks([]);
    assert!(monitor.has_skipped(), "its events were left out");
    match monitor.take_skipped() {
        Skipped::Devices(devices) => assert!(devices.contains(&disk.syspath()), "{devices:?}"),
        skipped => panic!("{skipped:?}"),
    }
    disk.announce("change");
    change_in_udevds_group(&device);
    let state_of_disk = |event: &DeviceEvent| match event {
        DeviceEvent::Changed(device) if device.syspath == disk.syspath() => Some(device.udev_state),
        _ => None,
    };
    let of_disk: Vec<UdevState> = monitor.drain().iter().filter_map(state_of_disk).collect();
    for form in [UdevState::NoUdevd, UdevState::Processed] {
        assert!(of_disk.contains(&form), "{of_disk:?}");
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_message_that_does_not_fit_is_an_overrun() {
    private_world();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let mut device = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
    device.subsystem = Some("mem".into());
    let mut send = |length: usize| {
        device.properties.insert("FILLER".into(), "x".repeat(length));
        change_in_udevds_group(&device);
        let deadline = Instant::now() + DEADLINE;
        drain_until(&mut monitor, deadline, |event| {
            *event == DeviceEvent::Overrun || syspath_of(event) == Some(&device.syspath)
        })
    };
    assert!(!send(120 << 10).contains(&DeviceEvent::Overrun));
    assert!(send(140 << 10).contains(&DeviceEvent::Overrun));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn events_of_a_udevd_that_starts_later_are_read_without_a_devtmpfs_on_dev() {
    private_world();
    let disk = LoopDisk::attach();
    // libudev's own monitors do not join udevd's group there.
    let none: Option<&str> = None;
    fs::create_dir("/run/dev").unwrap();
    mount(
        Some("/dev"),
        "/run/dev",
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .unwrap();
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    for name in ["null", "urandom"] {
        std::os::unix::fs::symlink(Path::new("/run/dev").join(name), Path::new("/dev").join(name)).unwrap();
    }
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let _udevd = Udevd::start("");
    disk.announce("change");
    let mut queue = Vec::new();
    assert_eq!(
        changed(next(&mut monitor, &mut queue, &disk.syspath())).udev_state,
        UdevState::Pending
    );
    assert_eq!(
        changed(next(&mut monitor, &mut queue, &disk.syspath())).udev_state,
        UdevState::Processed
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_static_node_is_added_changed_and_removed() {
    private_world();
    // Only nodes on the file system of /dev count, in directories that others than its owner can't
    // write.
    mount(
        Some("tmpfs"),
        "/dev",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .expect("mount a /dev of the test's own");
    let path = PathBuf::from("/dev/node");
    let make = |minor| {
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o600),
            makedev(1, minor),
        )
        .unwrap()
    };
    let facts = FactsNeeded {
        static_nodes: [path.clone()].into(),
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    monitor.add_needed(&facts);
    assert_eq!(monitor.poll_static_nodes(), []);
    let syspath = SysPath::new(format!("/sys/devices/oci-hotplug-node{}", path.display()));
    let mut queue = Vec::new();

    make(3);
    let device = added(next(&mut monitor, &mut queue, &syspath));
    assert_eq!(device.node.as_ref().unwrap().num.to_string(), "c 1:3");
    assert!(monitor.enumerate().unwrap().contains(&device));
    fs::remove_file(&path).unwrap();
    make(5);
    let device = changed(next(&mut monitor, &mut queue, &syspath));
    assert_eq!(device.node.unwrap().num.to_string(), "c 1:5");
    fs::remove_file(&path).unwrap();
    removed(next(&mut monitor, &mut queue, &syspath));
}

/// Prints, does not judge: run it with `--release -- --ignored --nocapture` for figures that mean
/// something.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn the_costs_of_listing_and_of_one_event_are_measured() {
    private_world();
    let disk = LoopDisk::attach();
    let usb = |name: &str| (name.to_owned(), Some("usb_device".to_owned()));
    let facts = FactsNeeded {
        attributes: ["idVendor", "idProduct", "serial"].map(usb).into(),
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    let mut listing: Vec<_> = (0..51)
        .map(|_| {
            let start = Instant::now();
            let devices = monitor.enumerate().unwrap();
            (
                start.elapsed(),
                devices.iter().filter(|device| device.node.is_some()).count(),
                devices.len(),
            )
        })
        .collect();
    let mut devices = monitor.enumerate().unwrap();
    let start = Instant::now();
    devices.iter_mut().for_each(|device| monitor.complete(device));
    let completing = start.elapsed() / u32::try_from(devices.len()).unwrap();
    let mut event: Vec<_> = (0..200)
        .map(|_| {
            disk.announce("change");
            let start = Instant::now();
            let events = monitor.drain();
            assert!(!events.is_empty());
            start.elapsed() / u32::try_from(events.len()).unwrap()
        })
        .collect();
    listing.sort();
    event.sort();
    let (median, nodes, all) = listing[listing.len() / 2];
    println!(
        "enumerate: {nodes} with nodes, {all} in all: min {:?}, median {median:?}, max {:?}",
        listing[0].0, listing[50].0
    );
    println!("complete: {completing:?} a device");
    println!(
        "drain, one kernel event: min {:?}, median {:?}, max {:?}",
        event[0], event[100], event[199]
    );
    assert!(nodes > 0 && all >= nodes);
}
