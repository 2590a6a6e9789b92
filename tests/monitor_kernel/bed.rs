//! Loop disks, a udevd and other senders of events, each of one test.
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
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use nix::unistd::{Pid, geteuid};
use oci_hotplug::host::monitor::{DeviceMonitor, udevd_is_running};
use oci_hotplug::model::device::event::DeviceEvent;
use oci_hotplug::model::device::{Device, SysPath};
use oci_hotplug::model::uevent::{UeventAction, UeventForm, udev_message};

use crate::udevd_answers::answers;

pub const DEADLINE: Duration = Duration::from_secs(30);

/// Makes the calling thread's world private. The thread dies with its test, and the namespaces with
/// it.
pub fn private_world() {
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
pub struct Partition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// struct blkpg_ioctl_arg (linux/blkpg.h).
#[repr(C)]
pub struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    partition: *mut Partition,
}

pub const LOOP_SET_FD: libc::c_ulong = 0x4C00;
pub const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
pub const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
pub const BLKPG: libc::c_ulong = 0x1269;

pub fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> Result<i32, Errno> {
    // SAFETY: the requests used here take a number, or (BLKPG) a pointer to a struct that lives
    // across the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) })
}

/// A loop device of the test's own, with at most its first partition plugged in.
pub struct LoopDisk {
    disk: File,
    pub number: i32,
    _backing: File,
}

impl LoopDisk {
    pub fn attach() -> Self {
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

    pub fn partition(&self, operation: i32) -> Result<i32, Errno> {
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

    pub fn plug(&self) {
        self.partition(1).expect("add a partition");
    }

    /// udevd may have the partition open for a moment to probe it.
    pub fn unplug(&self) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(errno) = self.partition(2) {
            assert_eq!(errno, Errno::EBUSY);
            assert!(Instant::now() < deadline, "the partition stays busy");
            std::thread::yield_now();
        }
    }

    pub fn syspath(&self) -> SysPath {
        SysPath::new(format!("/sys/devices/virtual/block/loop{0}", self.number))
    }

    pub fn partition_syspath(&self) -> SysPath {
        SysPath::new(format!("{}/loop{}p1", self.syspath(), self.number))
    }

    pub fn announce(&self, action: &str) {
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
pub struct Link(pub PathBuf);

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A udevd that ends with its test, panic or not. The kernel kills it with the test's thread
/// (prctl(2), PR_SET_PDEATHSIG).
pub struct Udevd(Child);

impl Udevd {
    /// Starts one with this rule alone, and waits until it answers. The host's own rules would
    /// leave links and permissions in the machine's only devtmpfs, for all devices that other tests
    /// plug in meanwhile.
    pub fn start(rule: &str) -> Self {
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
        while !answers() {
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
pub fn other_socket() -> OwnedFd {
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
pub fn change_in_udevds_group(device: &Device) {
    let message = udev_message(UeventAction::Change, device, None, 1);
    let group = NetlinkAddr::new(0, UeventForm::Udev.group());
    sendto(other_socket().as_raw_fd(), &message, &group, MsgFlags::empty()).unwrap();
}

pub fn wait(fds: Vec<BorrowedFd<'_>>, until: Instant) {
    let mut fds: Vec<_> = fds
        .into_iter()
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let left = until.saturating_duration_since(Instant::now());
    poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
}

pub fn syspath_of(event: &DeviceEvent) -> Option<&SysPath> {
    match event {
        DeviceEvent::Added(device) | DeviceEvent::Changed(device) | DeviceEvent::Moved { device, .. } => {
            Some(&device.syspath)
        }
        DeviceEvent::Removed { syspath, .. } => Some(syspath),
        DeviceEvent::Overrun => None,
    }
}

/// The next event of the device: others of the machine's are passed over. Panics at the deadline.
pub fn next(monitor: &mut DeviceMonitor, queue: &mut Vec<DeviceEvent>, syspath: &SysPath) -> DeviceEvent {
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
pub fn drain_until(
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

/// The device as a list of all devices has it.
pub fn listed(monitor: &DeviceMonitor, syspath: &SysPath) -> Device {
    let mut all = monitor.enumerate().unwrap().into_iter();
    all.find(|device| device.syspath == *syspath).unwrap()
}

pub fn added(event: DeviceEvent) -> Device {
    match event {
        DeviceEvent::Added(device) => device,
        other => panic!("not Added: {other:?}"),
    }
}

pub fn changed(event: DeviceEvent) -> Device {
    match event {
        DeviceEvent::Changed(device) => device,
        other => panic!("not Changed: {other:?}"),
    }
}

pub fn removed(event: DeviceEvent) -> u64 {
    match event {
        DeviceEvent::Removed { seqnum, .. } => seqnum,
        other => panic!("not Removed: {other:?}"),
    }
}
