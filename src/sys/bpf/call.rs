//! bpf(2) itself: commands, attributes and descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// BPF_OBJ_NAME_LEN: the length of a name, including its NUL.
pub(super) const NAME_LEN: usize = 16;

/// The commands of bpf(2) that are used here, with the kernel's numbers (enum bpf_cmd).
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgLoad = 5,
    ProgAttach = 8,
    ProgFdById = 13,
    MapFdById = 14,
    ObjInfo = 15,
    ProgQuery = 16,
}

/// One command's part of `union bpf_attr`, followed by zeros.
///
/// The size that is passed must include fields that we do not know: Linux 6.17 to 7.1 write
/// `query.revision` (offset 56) on BPF_PROG_QUERY without checking the size
/// (opencontainers/cgroups#69). Older kernels accept a longer attribute as long as the part that
/// they do not know is zero.
#[repr(C)]
pub(super) struct Attr<T> {
    pub(super) part: T,
    zeros: [u64; 16],
}

impl<T> Attr<T> {
    pub(super) fn new(part: T) -> Self {
        Self { part, zeros: [0; 16] }
    }
}

/// Calls bpf(2); repeats the call if a signal interrupted it.
///
/// # Safety
/// Every pointer in `attr` must be valid for what `command` reads or writes through it, and `T`
/// must have the layout that `command` expects, without implicit padding.
pub(super) unsafe fn bpf<T>(command: Command, attr: &mut Attr<T>) -> io::Result<RawFd> {
    loop {
        // SAFETY: attr is exclusively borrowed and as long as the size says; the caller guarantees
        // the rest.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command as libc::c_long,
                std::ptr::from_mut(attr),
                size_of::<Attr<T>>(),
            )
        };
        if result >= 0 {
            return Ok(result as RawFd);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// Like [`bpf`], for commands that return a new descriptor.
///
/// # Safety
/// As for [`bpf`], and `command` must be one that returns a descriptor.
pub(super) unsafe fn bpf_fd<T>(command: Command, attr: &mut Attr<T>) -> io::Result<OwnedFd> {
    // SAFETY: guaranteed by the caller.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the kernel has just opened this descriptor, and nothing else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>() as u64
}

pub(super) fn object_name(name: &str) -> [u8; NAME_LEN] {
    let mut bytes = [0; NAME_LEN];
    let len = name.len().min(NAME_LEN - 1);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

pub(super) fn name_text(bytes: &[u8; NAME_LEN]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}

pub(super) fn fd_by_id(command: Command, id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new(IdAttr {
        id,
        next_id: 0,
        open_flags: 0,
        pad: 0,
    });
    // SAFETY: this attribute has no pointer, and both commands of the callers return a descriptor.
    unsafe { bpf_fd(command, &mut attr) }
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Fills `info` from the object behind `fd`.
///
/// # Safety
/// `T` must be the info struct of that kind of object, and its pointers must be valid for the
/// lengths beside them.
pub(super) unsafe fn obj_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = Attr::new(InfoAttr {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<T>() as u32,
        info: address(std::ptr::from_mut(info)),
    });
    // SAFETY: info is exclusively borrowed and info_len bytes long; the caller guarantees that its
    // pointers are valid.
    unsafe { bpf(Command::ObjInfo, &mut attr)? };
    Ok(())
}

// The sizes are the kernel's, so there is no padding.
const _: () = assert!(size_of::<IdAttr>() == 16 && size_of::<InfoAttr>() == 16);
