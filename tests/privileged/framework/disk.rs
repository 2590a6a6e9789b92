//! Block devices that are really added and removed: partitions of a loop device, and whole loop
//! disks. Does not know containers.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::libc;

use super::alone::is_alone;
use super::eventually::eventually_some;
use super::kernel;
use super::machine::Machine;

const MIB: i64 = 1024 * 1024;

/// The length of a small partition: 250 of them fit on a disk.
const SMALL: i64 = 64 * 1024;

/// A loop device over a sparse file with known content, 16 MiB by default. Its partitions are
/// plugged in and unplugged.
pub struct Disk {
    device: File,
    control: File,
    number: u32,
    /// The node of the disk, `/dev/loopN`.
    pub node: String,
    backing: PathBuf,
}

impl Disk {
    /// Attaches a new file to a free loop device.
    pub fn new(machine: &Machine) -> Self {
        Self::of_size(machine, 16)
    }

    /// The same with a file of this size. The maximum number of partitions is one less than its
    /// MiB.
    pub fn of_size(machine: &Machine, mebibytes: i64) -> Self {
        let control = open("/dev/loop-control");
        let (number, device, backing) = eventually_some("a loop device for the test", || {
            let number = kernel::free_loop_device(&control).ok()?;
            let backing = machine.scratch(&format!("disks/loop{number}.img"));
            let file = known_bytes(&backing, &format!("loop{number}"), mebibytes);
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .open(format!("/dev/loop{number}"))
                .ok()?;
            // Another process may have taken the device in between (EBUSY); the next attempt gets
            // another one.
            kernel::attach_loop_file(&device, &file).ok()?;
            // A test that was killed may have left partitions on it.
            for partition in 1..=250 {
                let _ = kernel::delete_partition(&device, partition);
            }
            Some((number, device, backing))
        });
        Self {
            device,
            control,
            number,
            node: format!("/dev/loop{number}"),
            backing,
        }
    }

    /// The name of a partition below /dev, `loopNpP`, whether it exists or not.
    pub fn name(&self, partition: u8) -> String {
        format!("loop{}p{partition}", self.number)
    }

    /// The node of a partition, `/dev/loopNpP`, whether it exists or not.
    pub fn partition(&self, partition: u8) -> String {
        format!("/dev/{}", self.name(partition))
    }

    /// The content at the start of a partition.
    pub fn content(&self, partition: u8) -> String {
        format!("loop{} MiB {partition:02}", self.number)
    }

    /// Plugs a partition in; returns its node when the kernel has created it.
    pub fn plug(&self, partition: u8) -> String {
        kernel::add_partition(
            &self.device,
            i32::from(partition),
            i64::from(partition) * MIB,
            MIB,
        )
        .unwrap_or_else(|error| panic!("plug {}: {error}", self.partition(partition)));
        let node = self.partition(partition);
        assert!(
            fs::exists(&node).expect("look for a node"),
            "devtmpfs has no {node} although it was plugged"
        );
        node
    }

    /// Like [`Self::plug`], unless the partition is plugged in already.
    pub fn plug_again(&self, partition: u8) -> String {
        let node = self.partition(partition);
        if fs::exists(&node).expect("look for a node") {
            return node;
        }
        self.plug(partition)
    }

    /// Plugs in a small partition, one of up to 250, for tests with many devices whose content does
    /// not matter.
    pub fn plug_small(&self, partition: u8) {
        kernel::add_partition(
            &self.device,
            i32::from(partition),
            i64::from(partition) * SMALL,
            SMALL,
        )
        .unwrap_or_else(|error| panic!("plug {}: {error}", self.partition(partition)));
    }

    /// Unplugs a partition. udevd may still have it open for a moment.
    pub fn unplug(&self, partition: u8) {
        let number = i32::from(partition);
        eventually_some(
            "no process has the partition open",
            || match kernel::delete_partition(&self.device, number) {
                Ok(()) => Some(()),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => None,
                Err(error) => panic!("unplug {}: {error}", self.partition(partition)),
            },
        );
    }

    /// Like [`Self::unplug`], but tries again without a pause while a process has it open.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn unplug_at_once(&self, partition: u8) {
        let end = Instant::now() + super::eventually::DEADLINE;
        while let Err(error) = kernel::delete_partition(&self.device, i32::from(partition)) {
            assert!(
                error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < end,
                "unplug {}: {error}",
                self.partition(partition)
            );
            std::thread::yield_now();
        }
    }

    /// Plugs a partition in with the number of a device that was just removed. Partitions from 100
    /// on must be free. The test must be alone, because another one could take the number.
    pub fn plug_with_number(&self, partition: u8, number: (u32, u32)) {
        assert!(is_alone(), "call alone() before anything is plugged in");
        // The kernel frees a number some milliseconds after its device was removed (an RCU grace
        // period), and assigns the lowest free one. One lower number does no harm: it is not free
        // immediately after its partition was unplugged, and the next attempt gets the next number.
        // Two of them would alternate, so all but one are kept in use.
        let mut fillers = 100..=250_u8;
        let mut in_use = Vec::new();
        let mut lower = None;
        let mut last = None;
        eventually_some("a new partition gets the number that has become free", || {
            let found = number_of(&self.plug(partition));
            if found == number {
                return Some(());
            }
            // Something outside the tests may have it: the output says so when the time is over.
            if last.replace(found) != Some(found) {
                println!("  a new partition got {found:?} instead of {number:?}");
            }
            if found < number && lower.replace(found).is_some_and(|before| before != found) {
                let filler = fillers.next()?;
                self.plug_small(filler);
                if number_of(&self.partition(filler)) < number {
                    in_use.push(filler);
                } else {
                    self.unplug(filler);
                }
            }
            self.unplug(partition);
            None
        });
        for filler in in_use {
            self.unplug(filler);
        }
    }

    /// Plugs a partition in again with another device number than `old`, which another device then
    /// has. Returns the partition's number as (major, minor), and the disk that has the old one.
    pub fn plug_with_another_number(&self, machine: &Machine, partition: u8, old: (u32, u32)) -> Self {
        let squatter = Self::new(machine);
        squatter.plug_with_number(1, old);
        let node = self.plug(partition);
        assert_ne!(
            number_of(&node),
            old,
            "{node} has its old number although that one is in use"
        );
        squatter
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for partition in 1..=250 {
            if fs::exists(self.partition(partition)).unwrap_or(false) {
                let _ = super::eventually::within(super::eventually::DEADLINE, || {
                    kernel::delete_partition(&self.device, i32::from(partition)).ok()
                });
            }
        }
        let _ = kernel::detach_loop_file(&self.device);
        let _ = fs::remove_file(&self.backing);
        let _ = &self.control;
    }
}

/// The numbers that tests of this process have chosen for whole disks.
static CHOSEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A whole disk that can be added and removed: /dev/loopN with a number that is not used at boot.
pub struct WholeDisk {
    control: File,
    number: i32,
    plugged: bool,
}

impl WholeDisk {
    /// Chooses a number. Nothing is plugged in yet.
    pub fn new() -> Self {
        let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = (200..1000)
            .filter(|number| !chosen.contains(number))
            .find(|number| !fs::exists(format!("/sys/block/loop{number}")).unwrap_or(true))
            .expect("a loop number that is not used");
        chosen.insert(number);
        Self {
            control: open("/dev/loop-control"),
            number,
            plugged: false,
        }
    }

    /// Its node, whether it exists or not.
    pub fn node(&self) -> String {
        format!("/dev/loop{}", self.number)
    }

    /// Plugs the disk in.
    pub fn plug(&mut self) {
        kernel::add_loop_device(&self.control, self.number).expect("add a loop device");
        self.plugged = true;
    }

    /// Unplugs the disk. udevd may still have it open for a moment.
    pub fn unplug(&mut self) {
        eventually_some("no process has the disk open", || {
            kernel::remove_loop_device(&self.control, self.number).ok()
        });
        self.plugged = false;
    }
}

impl Drop for WholeDisk {
    fn drop(&mut self) {
        if self.plugged {
            let _ = super::eventually::within(super::eventually::DEADLINE, || {
                kernel::remove_loop_device(&self.control, self.number).ok()
            });
        }
        let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.remove(&self.number);
    }
}

/// The device number of a node of the host, as (major, minor).
pub fn number_of(node: &str) -> (u32, u32) {
    let number = fs::symlink_metadata(node)
        .unwrap_or_else(|error| panic!("stat {node}: {error}"))
        .rdev();
    let part = |value: u64| u32::try_from(value).expect("device numbers have 32 bits");
    (
        part(nix::sys::stat::major(number)),
        part(nix::sys::stat::minor(number)),
    )
}

fn open(node: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(node)
        .unwrap_or_else(|error| {
            panic!("open {node}: {error} (the tests need the loop driver: `modprobe loop`)")
        })
}

/// Creates a file in which each MiB begins with a line that has its number.
fn known_bytes(path: &PathBuf, name: &str, mebibytes: i64) -> File {
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.set_len((mebibytes * MIB).unsigned_abs())?;
        for mib in 0..mebibytes.unsigned_abs() {
            file.seek(SeekFrom::Start(mib * MIB.unsigned_abs()))?;
            writeln!(file, "{name} MiB {mib:02}")?;
        }
        file.sync_all()?;
        Ok(file)
    };
    write().unwrap_or_else(|error| panic!("write {}: {error}", path.display()))
}
