//! The BPF map of grants that the extended programs of one container use, and what it contains.
//!
//! Does not know programs and cgroups: `v2` connects them.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::model::cgroup::grants::GrantSet;
use crate::model::device::{Access, DevKind, DevNum};
use crate::sys::bpf::HashMap;

/// The map's name, by which a later watcher recognises it.
const NAME: &str = "oci_hp_grants";
const KEY_BYTES: usize = 12;
const VALUE_BYTES: usize = 4;
/// The capacity of the map. It uses memory only for the grants that are in it.
pub(super) const MAX_GRANTS: u32 = 4096;

/// The map with its content. Only this process writes to it, so the content need not be read back.
#[derive(Debug)]
pub(super) struct GrantMap {
    map: HashMap,
    granted: GrantSet,
}

/// The map could not be written: for one device number, or at all.
pub(super) struct WriteError {
    pub num: DevNum,
    pub source: io::Error,
}

impl GrantMap {
    /// Creates an empty map.
    pub(super) fn create() -> io::Result<Self> {
        let create = || HashMap::create(NAME, KEY_BYTES as u32, VALUE_BYTES as u32, MAX_GRANTS);
        Ok(Self {
            map: with_locked_memory(create)?,
            granted: GrantSet::new(),
        })
    }

    /// Takes over the map with this id and reads its content; `None` if it is not a map of ours.
    pub(super) fn adopt(id: u32) -> io::Result<Option<Self>> {
        let map = HashMap::open_by_id(id)?;
        if map.name() != NAME || map.sizes() != (KEY_BYTES, VALUE_BYTES) {
            return Ok(None);
        }
        let mut granted = GrantSet::new();
        let mut key = map.next_key(None)?;
        while let Some(bytes) = key {
            if let (Some(num), Some(value)) = (parse_key(&bytes), map.lookup(&bytes)?) {
                granted.insert(num, parse_value(&value));
            }
            key = map.next_key(Some(&bytes))?;
        }
        Ok(Some(Self { map, granted }))
    }

    pub(super) fn map(&self) -> &HashMap {
        &self.map
    }

    pub(super) fn granted(&self) -> &GrantSet {
        &self.granted
    }

    /// Makes the map grant exactly `wanted`; returns whether that changed it. An error for one
    /// number does not prevent the others from being granted or revoked; the first error is
    /// returned.
    pub(super) fn set(&mut self, wanted: &GrantSet) -> Result<bool, WriteError> {
        let mut changed = false;
        let mut first_error = None;
        // Revoking comes first, because it makes room.
        let unwanted = |num: &DevNum| wanted.get(num).is_none_or(|access| access.is_none());
        for num in self.granted.keys().copied().filter(unwanted).collect::<Vec<_>>() {
            match self.map.delete(&key(num)) {
                Ok(_) => {
                    self.granted.remove(&num);
                    changed = true;
                }
                Err(source) => _ = first_error.get_or_insert(WriteError { num, source }),
            }
        }
        for (num, access) in wanted.iter().filter(|(_, access)| !access.is_none()) {
            if self.granted.get(num) != Some(access) {
                match self.map.update(&key(*num), &access.bits().to_ne_bytes()) {
                    Ok(()) => {
                        self.granted.insert(*num, *access);
                        changed = true;
                    }
                    Err(source) => _ = first_error.get_or_insert(WriteError { num: *num, source }),
                }
            }
        }
        first_error.map_or(Ok(changed), Err)
    }
}

/// {type, major, minor} as in struct bpf_cgroup_dev_ctx (linux/bpf.h: BLOCK 1, CHAR 2).
fn key(num: DevNum) -> [u8; KEY_BYTES] {
    let kind: u32 = match num.kind {
        DevKind::Block => 1,
        DevKind::Char => 2,
    };
    let mut bytes = [0; KEY_BYTES];
    for (place, word) in bytes.chunks_exact_mut(4).zip([kind, num.major, num.minor]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

fn parse_key(bytes: &[u8]) -> Option<DevNum> {
    let kind = match word(bytes)? {
        1 => DevKind::Block,
        2 => DevKind::Char,
        _ => return None,
    };
    Some(DevNum {
        kind,
        major: word(bytes.get(4..)?)?,
        minor: word(bytes.get(8..)?)?,
    })
}

fn parse_value(bytes: &[u8]) -> Access {
    word(bytes).map_or(Access::NONE, Access::from_bits_truncate)
}

/// Runs an operation that allocates BPF memory; if it fails, runs it once more without a limit on
/// locked memory.
///
/// Before Linux 5.11, maps and programs counted against RLIMIT_MEMLOCK, of which systemd gives a
/// service 64 KiB.
pub(super) fn with_locked_memory<T, E: AsErrno>(attempt: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let refused = match attempt() {
        Err(error) if error.errno() == Some(libc::EPERM) => error,
        other => return other,
    };
    let before = getrlimit(Resource::Memlock);
    if setrlimit(
        Resource::Memlock,
        Rlimit {
            current: None,
            maximum: None,
        },
    )
    .is_err()
    {
        return Err(refused);
    }
    let second = attempt();
    // This process raised the limit, so it can lower it. If that fails, the limit only stays
    // raised.
    let _ = setrlimit(Resource::Memlock, before);
    second
}

/// An error that may contain the kernel's error number.
pub(super) trait AsErrno {
    /// The number.
    fn errno(&self) -> Option<i32>;
}

impl AsErrno for io::Error {
    fn errno(&self) -> Option<i32> {
        self.raw_os_error()
    }
}

impl AsErrno for crate::sys::bpf::LoadError {
    fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_three_words_as_the_program_builds_them() {
        let num = DevNum {
            kind: DevKind::Char,
            major: 188,
            minor: 7,
        };
        assert_eq!(key(num), [2_u32, 188, 7].map(u32::to_ne_bytes).concat()[..]);
        assert_eq!(parse_key(&key(num)), Some(num));
        let disk = DevNum {
            kind: DevKind::Block,
            major: 8,
            minor: 0,
        };
        assert_eq!(parse_key(&key(disk)), Some(disk));
    }

    #[test]
    fn only_eperm_is_tried_again_and_the_memlock_limit_is_restored() {
        let before = getrlimit(Resource::Memlock);
        for (errno, attempts_at_most) in [(libc::EINVAL, 1), (libc::EPERM, 2)] {
            let attempts = std::cell::Cell::new(0);
            let result: io::Result<()> = with_locked_memory(|| {
                attempts.set(attempts.get() + 1);
                Err(io::Error::from_raw_os_error(errno))
            });
            assert_eq!(result.unwrap_err().raw_os_error(), Some(errno));
            assert!((1..=attempts_at_most).contains(&attempts.get()));
            assert_eq!(getrlimit(Resource::Memlock), before);
        }
    }

    #[test]
    fn a_key_of_another_form_is_not_a_device_number() {
        assert_eq!(parse_key(&[0; 12]), None);
        assert_eq!(
            parse_key(
                &key(DevNum {
                    kind: DevKind::Block,
                    major: 8,
                    minor: 0
                })[..8]
            ),
            None
        );
    }
}
