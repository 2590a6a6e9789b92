//! Device programs: list those of a cgroup, read, load, attach and replace them.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::call::{
    Attr, Command, NAME_LEN, address, bpf, bpf_fd, fd_by_id, name_text, obj_info, object_name,
};

/// Several programs may be attached, and all of them must allow an access (linux/bpf.h).
pub const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// For [`prog_query_effective`]: include inherited programs.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
/// The attached program replaces the given one (linux/bpf.h; Linux 5.6).
const BPF_F_REPLACE: u32 = 1 << 2;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// How often a load is tried that a signal or the verifier interrupts (EAGAIN); the same number as
/// in libbpf.
const LOAD_ATTEMPTS: u32 = 5;
/// The size of the buffer for the verifier's log.
const LOG_BYTES: usize = 256 * 1024;

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

/// Opens the program with this id.
///
/// # Errors
/// ENOENT when it is gone, EPERM without CAP_SYS_ADMIN.
pub fn prog_get_fd_by_id(id: u32) -> io::Result<OwnedFd> {
    fd_by_id(Command::ProgFdById, id)
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

// The sizes are the kernel's, so there is no padding.
const _: () = assert!(size_of::<QueryAttr>() == 40 && size_of::<RawProgInfo>() == 80);
const _: () = assert!(size_of::<LoadAttr>() == 64 && size_of::<AttachAttr>() == 24);
