//! Requests to the kernel that no safe crate wraps: loop devices, partitions, virtual terminals,
//! and the device programs of a cgroup. The only `unsafe` of these tests. Does not know containers
//! or the product.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The requests, declared with nix's macros: each returns -1 with errno, or a value.
mod request {
    // linux/loop.h
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
    nix::ioctl_write_int_bad!(loop_ctl_add, 0x4C80);
    nix::ioctl_write_int_bad!(loop_ctl_remove, 0x4C81);
    nix::ioctl_write_int_bad!(loop_set_fd, 0x4C00);
    nix::ioctl_none_bad!(loop_clr_fd, 0x4C01);
    // linux/blkpg.h
    nix::ioctl_write_ptr_bad!(blkpg, 0x1269, super::BlkpgArgument);
    // linux/vt.h
    nix::ioctl_write_int_bad!(vt_disallocate, 0x5608);
}

/// `struct blkpg_partition`, linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`, linux/blkpg.h.
#[repr(C)]
pub struct BlkpgArgument {
    operation: i32,
    flags: i32,
    data_length: i32,
    data: *mut BlkpgPartition,
}

/// The number of an unused loop device (LOOP_CTL_GET_FREE on /dev/loop-control).
pub fn free_loop_device(control: &File) -> io::Result<u32> {
    // SAFETY: the request takes no argument; the descriptor is open for as long as `control` is
    // borrowed.
    let number = unsafe { request::loop_ctl_get_free(control.as_raw_fd()) }?;
    Ok(u32::try_from(number).expect("a loop number is not negative"))
}

/// Adds the whole disk /dev/loop`number` (LOOP_CTL_ADD).
pub fn add_loop_device(control: &File, number: i32) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer; the descriptor is open.
    unsafe { request::loop_ctl_add(control.as_raw_fd(), number) }?;
    Ok(())
}

/// Removes the whole disk /dev/loop`number` (LOOP_CTL_REMOVE).
pub fn remove_loop_device(control: &File, number: i32) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer; the descriptor is open.
    unsafe { request::loop_ctl_remove(control.as_raw_fd(), number) }?;
    Ok(())
}

/// Attaches `backing` to the loop device (LOOP_SET_FD).
pub fn attach_loop_file(device: &File, backing: &File) -> io::Result<()> {
    // SAFETY: the argument is a descriptor number, not a pointer; both descriptors are open.
    unsafe { request::loop_set_fd(device.as_raw_fd(), backing.as_raw_fd()) }?;
    Ok(())
}

/// Detaches the file from the loop device (LOOP_CLR_FD).
pub fn detach_loop_file(device: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument; the descriptor is open.
    unsafe { request::loop_clr_fd(device.as_raw_fd()) }?;
    Ok(())
}

/// Adds partition `number` of `length` bytes at byte `start` of the disk (BLKPG_ADD_PARTITION).
pub fn add_partition(disk: &File, number: i32, start: i64, length: i64) -> io::Result<()> {
    partition_request(disk, 1, number, start, length)
}

/// Removes partition `number` from the disk (BLKPG_DEL_PARTITION). EBUSY while a process has it
/// open.
pub fn delete_partition(disk: &File, number: i32) -> io::Result<()> {
    partition_request(disk, 2, number, 0, 0)
}

fn partition_request(disk: &File, operation: i32, number: i32, start: i64, length: i64) -> io::Result<()> {
    let mut partition = BlkpgPartition {
        start,
        length,
        number,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation,
        flags: 0,
        data_length: i32::try_from(size_of::<BlkpgPartition>()).expect("a small structure"),
        data: &raw mut partition,
    };
    // SAFETY: both structures have the kernel's layout (repr(C)) and outlive the call; the kernel
    // writes neither.
    unsafe { request::blkpg(disk.as_raw_fd(), &raw const argument) }?;
    Ok(())
}

/// Sets close-on-exec for all descriptors but standard input, output and error, including inherited
/// ones. (Rust sets it on the descriptors that it opens.)
pub fn close_descriptors_on_exec() -> io::Result<()> {
    let flags = nix::libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: the arguments are numbers; the call closes nothing, it sets a flag.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Frees virtual terminal `number` (VT_DISALLOCATE). EBUSY while a process has it open.
pub fn disallocate_terminal(console: &File, number: i32) -> io::Result<()> {
    // SAFETY: the argument is a number, not a pointer; the descriptor is open.
    unsafe { request::vt_disallocate(console.as_raw_fd(), number) }?;
    Ok(())
}

/// `union bpf_attr` as plain words: longer than any kernel needs for the commands below, because
/// some kernels write beyond the given size (6.17's BPF_PROG_QUERY).
type BpfWords = [u32; 64];

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_GET_NEXT_ID: i32 = 11;
const BPF_MAP_GET_NEXT_ID: i32 = 12;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

fn bpf(command: i32, words: &mut BpfWords, used_bytes: usize) -> io::Result<i64> {
    // SAFETY: `words` is writable for more bytes than `used_bytes` says; pointers that callers put
    // into it lead to buffers that outlive the call.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_bpf, command, words.as_mut_ptr(), used_bytes) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn count_ids(command: i32) -> usize {
    let mut id = 0;
    let mut count = 0;
    loop {
        let mut words: BpfWords = [0; 64];
        words[0] = id;
        match bpf(command, &mut words, 12) {
            Ok(_) => {
                id = words[1];
                count += 1;
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return count,
            Err(error) => panic!("count the kernel's BPF objects: {error}"),
        }
    }
}

/// The number of BPF programs and maps in the whole kernel.
pub fn bpf_objects() -> (usize, usize) {
    (count_ids(BPF_PROG_GET_NEXT_ID), count_ids(BPF_MAP_GET_NEXT_ID))
}

/// The ids of the device programs attached to one cgroup (BPF_PROG_QUERY).
pub fn device_programs(cgroup: &Path) -> io::Result<Vec<u32>> {
    let directory = File::open(cgroup)?;
    let mut ids = [0u32; 64];
    let mut words: BpfWords = [0; 64];
    words[0] = u32::try_from(directory.as_raw_fd()).expect("a descriptor is not negative");
    words[1] = BPF_CGROUP_DEVICE;
    let address = ids.as_mut_ptr() as u64;
    let halves = address.to_ne_bytes();
    words[4] = u32::from_ne_bytes([halves[0], halves[1], halves[2], halves[3]]);
    words[5] = u32::from_ne_bytes([halves[4], halves[5], halves[6], halves[7]]);
    words[6] = 64;
    bpf(BPF_PROG_QUERY, &mut words, 64)?;
    Ok(ids[..words[6] as usize].to_vec())
}

/// Replaces `old` by the loaded program `new` in the cgroup, like an engine that writes its rules
/// again.
pub fn replace_device_program(cgroup: &Path, old: u32, new: u32) -> io::Result<()> {
    put_device_program(cgroup, old, program_by_id(new)?.as_fd())
}

/// Like [`replace_device_program`], with a program that is loaded and not attached yet.
pub fn put_device_program(cgroup: &Path, old: u32, new: BorrowedFd<'_>) -> io::Result<()> {
    attach(cgroup, new, Some(&program_by_id(old)?))
}

/// Attaches a program to a cgroup beside those that are attached: all of them must allow.
pub fn attach_device_program(cgroup: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    attach(cgroup, program, None)
}

fn attach(cgroup: &Path, new: BorrowedFd<'_>, in_place_of: Option<&OwnedFd>) -> io::Result<()> {
    let directory = File::open(cgroup)?;
    let number = |descriptor: i32| u32::try_from(descriptor).expect("a descriptor is not negative");
    let mut words: BpfWords = [0; 64];
    words[0] = number(directory.as_raw_fd());
    words[1] = number(new.as_raw_fd());
    words[2] = BPF_CGROUP_DEVICE;
    words[3] = BPF_F_ALLOW_MULTI;
    if let Some(old) = in_place_of {
        words[3] |= BPF_F_REPLACE;
        words[4] = number(old.as_raw_fd());
    }
    bpf(BPF_PROG_ATTACH, &mut words, 20)?;
    Ok(())
}

/// One instruction, `struct bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy)]
pub struct Insn {
    pub code: u8,
    pub dst: u8,
    pub src: u8,
    pub off: i16,
    pub imm: i32,
}

impl Insn {
    /// The instruction as this machine's kernel reads it.
    pub fn bytes(&self) -> [u8; 8] {
        // Two bit fields of a byte, whose order depends on the byte order.
        let registers = if cfg!(target_endian = "little") {
            self.dst | self.src << 4
        } else {
            self.src | self.dst << 4
        };
        let [o0, o1] = self.off.to_ne_bytes();
        let [i0, i1, i2, i3] = self.imm.to_ne_bytes();
        [self.code, registers, o0, o1, i0, i1, i2, i3]
    }
}

/// Loads a device program of these instructions (`struct bpf_insn` of linux/bpf.h, 8 bytes each).
pub fn load_device_program(instructions: &[u8]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut words: BpfWords = [0; 64];
    words[0] = BPF_PROG_TYPE_CGROUP_DEVICE;
    words[1] = u32::try_from(instructions.len() / 8).expect("a short program");
    for (word, address) in [(2, instructions.as_ptr() as u64), (4, license.as_ptr() as u64)] {
        let halves = address.to_ne_bytes();
        words[word] = u32::from_ne_bytes([halves[0], halves[1], halves[2], halves[3]]);
        words[word + 1] = u32::from_ne_bytes([halves[4], halves[5], halves[6], halves[7]]);
    }
    let descriptor = bpf(BPF_PROG_LOAD, &mut words, 48)?;
    let descriptor = i32::try_from(descriptor).expect("a descriptor is a small number");
    // SAFETY: the kernel has just opened this descriptor, and nothing else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A descriptor of a loaded program (BPF_PROG_GET_FD_BY_ID).
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut words: BpfWords = [0; 64];
    words[0] = id;
    let descriptor = bpf(BPF_PROG_GET_FD_BY_ID, &mut words, 12)?;
    let descriptor = i32::try_from(descriptor).expect("a descriptor is a small number");
    // SAFETY: the kernel has just opened this descriptor, and nothing else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The mounts that this thread sees.
pub fn mountinfo() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("read /proc/thread-self/mountinfo")
}
