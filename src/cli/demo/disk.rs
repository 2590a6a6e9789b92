//! The disk that the demo plugs: a loop device with a partition.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::setup::TIMEOUT;
use crate::model::device::major_minor;
use crate::sys::loop_device::LoopDevice;

/// What is on the partition.
pub(super) const TEXT: &str = "Hello from the disk that was just plugged in.";

/// The size of the disk, and where its partition begins, in bytes.
const DISK: u64 = 4 << 20;
const PARTITION_START: u64 = 1 << 20;

/// A disk with one partition that can be plugged and unplugged.
pub(super) struct Disk {
    device: LoopDevice,
}

impl Disk {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("disk.img");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.with_context(|| format!("cannot create {}", path.display()))?;
        file.set_len(DISK)?;
        std::os::unix::fs::FileExt::write_all_at(&file, TEXT.as_bytes(), PARTITION_START)?;
        let device =
            LoopDevice::attach(file.as_fd()).context("cannot attach a loop device (modprobe loop?)")?;
        Ok(Self { device })
    }

    pub(super) fn partition_node(&self) -> String {
        format!("/dev/loop{}p1", self.device.number())
    }

    /// Plugs the partition; returns its device number.
    pub(super) fn plug(&self) -> Result<(u32, u32)> {
        self.device
            .add_partition(1, PARTITION_START, PARTITION_START)
            .context("cannot add a partition")?;
        let loop_name = format!("loop{}", self.device.number());
        let path = format!("/sys/block/{loop_name}/{loop_name}p1/dev");
        let number = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        major_minor(number.trim()).with_context(|| format!("{path} holds {number:?}"))
    }

    pub(super) fn unplug(&self) -> Result<()> {
        // udevd may have it open.
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.device.delete_partition(1) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other.context("cannot remove the partition"),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A partition would outlive its disk. Usually it is unplugged already.
        let _ = self.device.delete_partition(1);
    }
}
