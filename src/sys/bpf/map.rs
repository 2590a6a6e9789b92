//! Hash maps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::call::{
    Attr, Command, NAME_LEN, address, bpf, bpf_fd, fd_by_id, name_text, obj_info, object_name,
};

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_MAP_TYPE_HASH: u32 = 1;

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

// The sizes are the kernel's, so there is no padding.
const _: () = assert!(size_of::<RawMapInfo>() == 40);
const _: () = assert!(size_of::<MapCreateAttr>() == 48 && size_of::<ElementAttr>() == 32);
