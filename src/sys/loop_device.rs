//! Loop devices with partitions that are added and removed by software, as if they were plugged in
//! and unplugged (loop(4); linux/loop.h, linux/blkpg.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

const LOOP_SET_FD: libc::c_ulong = 0x4C00;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_DEL_PARTITION: libc::c_int = 2;

/// struct blkpg_partition of linux/blkpg.h.
#[repr(C)]
struct Partition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// struct blkpg_ioctl_arg of linux/blkpg.h.
#[repr(C)]
struct Argument {
    operation: libc::c_int,
    flags: libc::c_int,
    length: libc::c_int,
    data: *mut Partition,
}

/// A loop device with a file attached; dropping it detaches the file.
#[derive(Debug)]
pub struct LoopDevice {
    number: u32,
    device: File,
}

impl LoopDevice {
    /// Attaches a file to a free loop device.
    ///
    /// # Errors
    /// When there is no loop driver, no permission, or other processes keep taking the free device
    /// first.
    #[allow(unsafe_code)]
    pub fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        loop {
            // SAFETY: takes no argument, and the descriptor is open during the call.
            let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
            let device = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC)
                .open(format!("/dev/loop{number}"))?;
            // SAFETY: takes a descriptor by value, and both are open during the call.
            let set = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, file.as_raw_fd()) };
            match Errno::result(set) {
                Ok(_) => {
                    return Ok(Self {
                        number: number.unsigned_abs(),
                        device,
                    });
                }
                // Another process took the device between the two calls.
                Err(Errno::EBUSY) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The N of `/dev/loopN`.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Adds the partition `/dev/loopNpM` with this range of bytes.
    ///
    /// # Errors
    /// EBUSY when the partition exists or overlaps another one; EINVAL when it does not fit.
    pub fn add_partition(&self, number: u16, start: u64, length: u64) -> io::Result<()> {
        self.partition(BLKPG_ADD_PARTITION, number, start, length)
    }

    /// Removes the partition `/dev/loopNpM`.
    ///
    /// # Errors
    /// ENXIO when there is none; EBUSY while it is open.
    pub fn delete_partition(&self, number: u16) -> io::Result<()> {
        self.partition(BLKPG_DEL_PARTITION, number, 0, 0)
    }

    #[allow(unsafe_code)]
    fn partition(&self, operation: libc::c_int, number: u16, start: u64, length: u64) -> io::Result<()> {
        let bytes =
            |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let mut partition = Partition {
            start: bytes(start)?,
            length: bytes(length)?,
            number: number.into(),
            device_name: [0; 64],
            volume_name: [0; 64],
        };
        let argument = Argument {
            operation,
            flags: 0,
            length: size_of::<Partition>() as libc::c_int,
            data: &raw mut partition,
        };
        // SAFETY: both structures have the kernel's layout and live until the call returns; the
        // kernel only reads them.
        Errno::result(unsafe { libc::ioctl(self.device.as_raw_fd(), BLKPG as _, &raw const argument) })?;
        Ok(())
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Drop for LoopDevice {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: takes no argument, and the descriptor is open during the call. If the file is
        // still in use, the kernel detaches it at the last close; nothing can be done about a
        // failure.
        unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_CLR_FD as _, 0) };
    }
}
