//! bpf(2) for device filters: programs attached to a cgroup, and hash maps.
//!
//! A thin wrapper with one function per command. Errors are those of the kernel. Descriptors are
//! owned and close-on-exec (the kernel opens every bpf descriptor so). Does not know grants or
//! cgroup paths, nor what a program means.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Several programs may be attached, and all of them must allow an access (linux/bpf.h).
pub const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// For [`prog_query_effective`]: include inherited programs.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
/// The attached program replaces the given one (linux/bpf.h; Linux 5.6).
const BPF_F_REPLACE: u32 = 1 << 2;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_MAP_TYPE_HASH: u32 = 1;
/// BPF_OBJ_NAME_LEN: the length of a name, including its NUL.
const NAME_LEN: usize = 16;
/// How often a load is tried that a signal or the verifier interrupts (EAGAIN); the same number as
/// in libbpf.
const LOAD_ATTEMPTS: u32 = 5;
/// The size of the buffer for the verifier's log.
const LOG_BYTES: usize = 256 * 1024;

/// The commands of bpf(2) that are used here, with the kernel's numbers (enum bpf_cmd).
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
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
struct Attr<T> {
    part: T,
    zeros: [u64; 16],
}

impl<T> Attr<T> {
    fn new(part: T) -> Self {
        Self { part, zeros: [0; 16] }
    }
}

/// Calls bpf(2); repeats the call if a signal interrupted it.
///
/// # Safety
/// Every pointer in `attr` must be valid for what `command` reads or writes through it, and `T`
/// must have the layout that `command` expects, without implicit padding.
unsafe fn bpf<T>(command: Command, attr: &mut Attr<T>) -> io::Result<RawFd> {
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
unsafe fn bpf_fd<T>(command: Command, attr: &mut Attr<T>) -> io::Result<OwnedFd> {
    // SAFETY: guaranteed by the caller.
    let fd = unsafe { bpf(command, attr)? };
    // SAFETY: the kernel has just opened this descriptor, and nothing else uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>() as u64
}

fn object_name(name: &str) -> [u8; NAME_LEN] {
    let mut bytes = [0; NAME_LEN];
    let len = name.len().min(NAME_LEN - 1);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

fn name_text(bytes: &[u8; NAME_LEN]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// The device programs that are attached to one cgroup itself (not to its ancestors).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Program ids, in the order in which the kernel runs the programs.
    pub ids: Vec<u32>,
    /// The flags of the attachment: 0, BPF_F_ALLOW_OVERRIDE (1) or [`BPF_F_ALLOW_MULTI`].
    pub flags: u32,
}

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
}

/// Queries which device programs are attached to the cgroup v2 directory `cgroup` (BPF_PROG_QUERY).
///
/// # Errors
/// ENOENT when the cgroup is gone, EBADF when `cgroup` is not a cgroup v2 directory, EPERM without
/// CAP_NET_ADMIN.
pub fn prog_query(cgroup: BorrowedFd<'_>) -> io::Result<Attached> {
    query(cgroup, 0)
}

/// Queries all device programs that are in effect in the cgroup, including those of its ancestors.
///
/// # Errors
/// Those of [`prog_query`].
pub fn prog_query_effective(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    Ok(query(cgroup, BPF_F_QUERY_EFFECTIVE)?.ids)
}

fn query(cgroup: BorrowedFd<'_>, query_flags: u32) -> io::Result<Attached> {
    // 64 programs are the kernel's limit (BPF_CGROUP_MAX_PROGS): ENOSPC only if that limit grows.
    let mut ids = vec![0_u32; 64];
    loop {
        let mut attr = Attr::new(QueryAttr {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_type: BPF_CGROUP_DEVICE,
            query_flags,
            attach_flags: 0,
            prog_ids: address(ids.as_mut_ptr()),
            prog_cnt: ids.len() as u32,
            pad: 0,
            prog_attach_flags: 0,
        });
        // SAFETY: prog_ids points to prog_cnt writable u32 that outlive the call.
        match unsafe { bpf(Command::ProgQuery, &mut attr) } {
            Ok(_) => {
                ids.truncate(attr.part.prog_cnt as usize);
                return Ok(Attached {
                    ids,
                    flags: attr.part.attach_flags,
                });
            }
            // The kernel returns the number of programs; more may be attached between the two
            // calls.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                ids = vec![0; (attr.part.prog_cnt as usize).max(ids.len()) * 2];
            }
            Err(error) => return Err(error),
        }
    }
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}

fn fd_by_id(command: Command, id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new(IdAttr {
        id,
        next_id: 0,
        open_flags: 0,
        pad: 0,
    });
    // SAFETY: this attribute has no pointer, and both commands of the callers return a descriptor.
    unsafe { bpf_fd(command, &mut attr) }
}

/// Opens the program with this id.
///
/// # Errors
/// ENOENT when it is gone, EPERM without CAP_SYS_ADMIN.
pub fn prog_get_fd_by_id(id: u32) -> io::Result<OwnedFd> {
    fd_by_id(Command::ProgFdById, id)
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The first 80 bytes of struct bpf_prog_info, which every kernel since 4.15 has.
#[repr(C)]
#[derive(Default)]
struct RawProgInfo {
    kind: u32,
    id: u32,
    tag: u64,
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; NAME_LEN],
}

/// The first 40 bytes of struct bpf_map_info, which every kernel since 4.15 has.
#[repr(C)]
#[derive(Default)]
struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; NAME_LEN],
}

// The sizes are the kernel's, so there is no padding.
const _: () =
    assert!(size_of::<QueryAttr>() == 40 && size_of::<IdAttr>() == 16 && size_of::<InfoAttr>() == 16);
const _: () = assert!(size_of::<RawProgInfo>() == 80 && size_of::<RawMapInfo>() == 40);
const _: () = assert!(size_of::<LoadAttr>() == 64 && size_of::<AttachAttr>() == 24);
const _: () = assert!(size_of::<MapCreateAttr>() == 48 && size_of::<ElementAttr>() == 32);

/// Fills `info` from the object behind `fd`.
///
/// # Safety
/// `T` must be the info struct of that kind of object, and its pointers must be valid for the
/// lengths beside them.
unsafe fn obj_info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
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

/// What the kernel reports of a loaded program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgInfo {
    /// The program's id, unique while it exists.
    pub id: u32,
    /// enum bpf_prog_type; 15 is BPF_PROG_TYPE_CGROUP_DEVICE.
    pub kind: u32,
    /// Up to 15 characters; many engines set no name.
    pub name: String,
    /// The instructions after the verifier, 8 bytes each; `None` if the kernel hides them because
    /// constants are blinded (net.core.bpf_jit_harden) or kernel addresses are hidden.
    pub xlated: Option<Vec<u8>>,
    /// The ids of the maps that the program uses.
    pub map_ids: Vec<u32>,
}

/// Reads name, type, instructions and map ids of a program (BPF_OBJ_GET_INFO_BY_FD): one call for
/// the lengths, one for the contents. A loaded program never changes, so the lengths stay valid.
pub fn prog_info(program: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    let mut lengths = RawProgInfo::default();
    // SAFETY: a program's info in which all lengths are zero, so that no pointer is followed.
    unsafe { obj_info(program, &mut lengths)? };
    let mut xlated = vec![0_u8; lengths.xlated_len as usize];
    let mut map_ids = vec![0_u32; lengths.nr_map_ids as usize];
    let mut info = RawProgInfo {
        xlated_len: lengths.xlated_len,
        xlated: address(xlated.as_mut_ptr()),
        nr_map_ids: lengths.nr_map_ids,
        map_ids: address(map_ids.as_mut_ptr()),
        ..RawProgInfo::default()
    };
    // SAFETY: a program's info whose two pointers lead to writable buffers with the lengths beside
    // them.
    unsafe { obj_info(program, &mut info)? };
    Ok(ProgInfo {
        id: info.id,
        kind: info.kind,
        name: name_text(&info.name),
        // The kernel clears the pointer when it hides the instructions.
        xlated: (info.xlated != 0).then_some(xlated),
        map_ids,
    })
}

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN],
}

/// The kernel rejected a program.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}{}", if log.is_empty() { "" } else { "; log of the verifier: " }, log.trim_end())]
pub struct LoadError {
    /// The error of bpf(2).
    pub source: io::Error,
    /// The verifier's log; empty if the verifier was not reached.
    pub log: String,
}

/// Loads a device program (BPF_PROG_TYPE_CGROUP_DEVICE) of 8-byte instructions with a name of up to
/// 15 characters.
///
/// The verifier's log is requested only after a failure, because writing it makes every load slow.
/// EAGAIN (a signal interrupted the verifier) is tried again.
pub fn prog_load(insns: &[u8], license: &CStr, name: &str) -> Result<OwnedFd, LoadError> {
    match load(insns, license, name, &mut []) {
        Ok(program) => Ok(program),
        Err(first) => {
            let mut log = vec![0_u8; LOG_BYTES];
            // Return the first error: with a log, the kernel may return ENOSPC instead (the log did
            // not fit).
            match load(insns, license, name, &mut log) {
                Ok(program) => Ok(program),
                Err(_) => {
                    let len = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                    Err(LoadError {
                        source: first,
                        log: String::from_utf8_lossy(&log[..len]).into_owned(),
                    })
                }
            }
        }
    }
}

fn load(insns: &[u8], license: &CStr, name: &str, log: &mut [u8]) -> io::Result<OwnedFd> {
    let logged = !log.is_empty();
    let mut attempt = 1;
    loop {
        let mut attr = Attr::new(LoadAttr {
            prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
            insn_cnt: (insns.len() / 8) as u32,
            insns: address(insns.as_ptr()),
            license: address(license.as_ptr()),
            log_level: u32::from(logged),
            log_size: log.len() as u32,
            log_buf: if logged { address(log.as_mut_ptr()) } else { 0 },
            kern_version: 0,
            prog_flags: 0,
            prog_name: object_name(name),
        });
        // SAFETY: insns has insn_cnt instructions, license ends with NUL, log is writable for
        // log_size bytes.
        match unsafe { bpf_fd(Command::ProgLoad, &mut attr) } {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempt < LOAD_ATTEMPTS => {
                attempt += 1
            }
            other => return other,
        }
    }
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    pad: u32,
}

fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, flags: u32, replaced: RawFd) -> io::Result<()> {
    let mut attr = Attr::new(AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: flags,
        replace_bpf_fd: replaced as u32,
        pad: 0,
    });
    // SAFETY: this attribute has no pointer.
    unsafe { bpf(Command::ProgAttach, &mut attr)? };
    Ok(())
}

/// Attaches a device program to a cgroup with these flags.
///
/// With [`BPF_F_ALLOW_MULTI`] it is added to the attached programs. With flags 0 or
/// BPF_F_ALLOW_OVERRIDE it replaces the attached program, if that was attached with the same flags.
pub fn prog_attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    attach(cgroup, program, flags, 0)
}

/// Atomically replaces the program `replaced` among those attached with [`BPF_F_ALLOW_MULTI`].
///
/// # Errors
/// ENOENT when `replaced` is not attached there (any more), or only through a bpf link.
pub fn prog_replace(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: BorrowedFd<'_>,
) -> io::Result<()> {
    attach(
        cgroup,
        program,
        BPF_F_ALLOW_MULTI | BPF_F_REPLACE,
        replaced.as_raw_fd(),
    )
}

#[repr(C)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN],
    pad: u32,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// Or the next key, for [`Command::MapNextKey`].
    value: u64,
    flags: u64,
}

/// A BPF hash map. It knows the size of its keys and values, so no call can make the kernel read or
/// write past a slice; a slice of another size returns EINVAL.
#[derive(Debug)]
pub struct HashMap {
    fd: OwnedFd,
    id: u32,
    name: String,
    key_size: usize,
    value_size: usize,
}

impl HashMap {
    /// Creates a map that uses memory only for its entries (BPF_F_NO_PREALLOC). Sizes are in bytes.
    pub fn create(name: &str, key_size: u32, value_size: u32, max_entries: u32) -> io::Result<Self> {
        let mut attr = Attr::new(MapCreateAttr {
            map_type: BPF_MAP_TYPE_HASH,
            key_size,
            value_size,
            max_entries,
            map_flags: BPF_F_NO_PREALLOC,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: object_name(name),
            pad: 0,
        });
        // SAFETY: this attribute has no pointer, and the command returns a descriptor.
        Self::from_fd(unsafe { bpf_fd(Command::MapCreate, &mut attr)? })
    }

    /// Opens the map with this id.
    ///
    /// # Errors
    /// ENOENT when it is gone, EPERM without CAP_SYS_ADMIN, EINVAL when it is not a plain hash map.
    pub fn open_by_id(id: u32) -> io::Result<Self> {
        Self::from_fd(fd_by_id(Command::MapFdById, id)?)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let mut info = RawMapInfo::default();
        // SAFETY: a map's info, which has no pointer.
        unsafe { obj_info(fd.as_fd(), &mut info)? };
        // In maps of other kinds, values may be longer than value_size (one value per CPU).
        if info.kind != BPF_MAP_TYPE_HASH {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self {
            fd,
            id: info.id,
            name: name_text(&info.name),
            key_size: info.key_size as usize,
            value_size: info.value_size as usize,
        })
    }

    /// The map's id, unique while it exists.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The map's name, up to 15 characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The size of a key and of a value, in bytes.
    pub fn sizes(&self) -> (usize, usize) {
        (self.key_size, self.value_size)
    }

    /// Sets one entry, new or not.
    ///
    /// # Errors
    /// E2BIG when the map is full.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(value.len(), self.value_size)?;
        // SAFETY: the value is as long as the map's values; `element` checks the key.
        unsafe { self.element(Command::MapUpdate, Some(key), address(value.as_ptr())) }
    }

    /// The value of one entry; `None` if there is no such entry.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0_u8; self.value_size];
        // SAFETY: the buffer is writable and as long as the map's values.
        let found = unsafe { self.element(Command::MapLookup, Some(key), address(value.as_mut_ptr())) };
        Ok(absent_is_none(found)?.map(|()| value))
    }

    /// Removes one entry; returns whether it existed.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        // SAFETY: this command uses the key only.
        let deleted = unsafe { self.element(Command::MapDelete, Some(key), 0) };
        Ok(absent_is_none(deleted)?.is_some())
    }

    /// The key after this one, the first one for `None`; `None` after the last.
    pub fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0_u8; self.key_size];
        // SAFETY: the buffer is writable and as long as the map's keys.
        let found = unsafe { self.element(Command::MapNextKey, key, address(next.as_mut_ptr())) };
        Ok(absent_is_none(found)?.map(|()| next))
    }

    fn check(&self, len: usize, expected: usize) -> io::Result<()> {
        if len == expected {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    /// # Safety
    /// `value` must be valid for what `command` does with it.
    unsafe fn element(&self, command: Command, key: Option<&[u8]>, value: u64) -> io::Result<()> {
        if let Some(key) = key {
            self.check(key.len(), self.key_size)?;
        }
        let mut attr = Attr::new(ElementAttr {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key: key.map_or(0, |key| address(key.as_ptr())),
            value,
            flags: 0,
        });
        // SAFETY: the key is as long as the map's keys (or absent, which happens only for
        // MapNextKey); the caller guarantees the value.
        unsafe { bpf(command, &mut attr)? };
        Ok(())
    }
}

impl AsFd for HashMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn absent_is_none(result: io::Result<()>) -> io::Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
