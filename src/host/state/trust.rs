//! Whether root can safely use a directory: no other user can create, replace or remove something
//! in it, or replace the directory itself.
//!
//! Does not know what the directory is for.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use crate::host::file_system::attributes;
use crate::host::rootless::rootless;
use crate::model::rootless::Rootless;

/// Write permission of the group and of others, and the sticky bit: with it, only owners can remove
/// or rename entries (inode(7)).
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// A directory that other users can change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot use the directory {directory}: {at} {fault}, so that other users could control what root does there: choose another, such as {example}",
    directory = directory.display(), at = at.display(), example = example().display()
)]
pub struct Untrusted {
    /// The directory that was to be used.
    pub directory: PathBuf,
    /// The part of its path with the wrong owner or mode.
    pub at: PathBuf,
    pub fault: String,
}

/// Checks each part of the path, from the root on: it must belong to root or to this process's
/// user, and no other user may be able to replace the part that follows. A part that does not exist
/// (yet) is safe.
///
/// # Errors
/// The first part that is not safe.
pub(crate) fn check(directory: &Path) -> Result<(), Untrusted> {
    let path = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    match rootless().filter(|rootless| rootless.is_namespace_root) {
        Some(rootless) => check_runtime_dir(rootless, &path),
        None => check_parts(Path::new(""), &path),
    }
}

/// The check of a process in a user namespace. All files of the host's root belong to an unmapped
/// user there, and look like those of other users. So the path must be below the user's
/// runtime directory, whose parents belong to root on every host: that directory is examined by
/// descriptor, and the rest by path as always.
fn check_runtime_dir(rootless: Rootless, path: &Path) -> Result<(), Untrusted> {
    let runtime_dir = rootless.runtime_dir();
    let untrusted = |at: &Path, fault: &str| Untrusted {
        directory: path.to_owned(),
        at: at.to_owned(),
        fault: fault.to_owned(),
    };
    if !path.starts_with(&runtime_dir) {
        return Err(untrusted(path, "is not below the user's runtime directory"));
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = open(&runtime_dir, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(attributes)
        .map_err(|error| untrusted(&runtime_dir, &format!("cannot be opened ({error})")))?;
    if found.stx_uid != geteuid().as_raw() {
        return Err(untrusted(&runtime_dir, "belongs to another user"));
    }
    // podman lets others search it for containers with a nested user namespace.
    if u32::from(found.stx_mode) & (GROUP_WRITES | OTHERS_WRITE) != 0 {
        return Err(untrusted(&runtime_dir, "is writable by other users"));
    }
    check_parts(&runtime_dir, path)
}

/// A directory that the check accepts, for messages.
fn example() -> PathBuf {
    rootless().map_or_else(|| "/run/oci-hotplug".into(), Rootless::state_dir)
}

/// Checks the parts of the path that follow `trusted`, which is empty or its beginning.
fn check_parts(trusted: &Path, path: &Path) -> Result<(), Untrusted> {
    let mut at = trusted.to_owned();
    let rest = path.strip_prefix(trusted).unwrap_or(path);
    for part in rest.components() {
        at.push(part);
        // A part that cannot be examined causes an error when it is used.
        let Ok(found) = fs::symlink_metadata(&at) else {
            return Ok(());
        };
        let target = if found.is_symlink() {
            fs::metadata(&at).ok()
        } else {
            None
        };
        let is_last = at == path;
        let fault =
            fault(&found, is_last).or_else(|| target.and_then(|target| self::fault(&target, is_last)));
        if let Some(fault) = fault {
            return Err(Untrusted {
                directory: path.to_owned(),
                at,
                fault,
            });
        }
    }
    Ok(())
}

/// `is_last`: in the directory itself, no other user may create entries. Above it that is harmless
/// if entries are protected from other users, as in /tmp.
fn fault(found: &Metadata, is_last: bool) -> Option<String> {
    if found.uid() != 0 && found.uid() != geteuid().as_raw() {
        return Some(format!("belongs to user {}", found.uid()));
    }
    let mode = found.mode();
    if !found.is_dir() || (mode & STICKY != 0 && !is_last) {
        return None;
    }
    if mode & OTHERS_WRITE != 0 {
        return Some("is writable by everyone".to_owned());
    }
    let own_group = found.gid() == 0 || found.gid() == getegid().as_raw();
    (mode & GROUP_WRITES != 0 && !own_group).then(|| format!("is writable by group {}", found.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory(path: &Path, mode: u32) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn our_own_directory_is_trusted_even_in_a_sticky_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let all = scratch.path().join("all");
        directory(&all, 0o1777);
        let own = all.join("own");
        assert_eq!(check(&own), Ok(()));
        directory(&own, 0o755);
        assert_eq!(check(&own), Ok(()));
        assert_eq!(check(&own.join("state/deeper")), Ok(()));
        symlink(&own, all.join("link")).unwrap();
        assert_eq!(check(&all.join("link")), Ok(()));
    }

    #[test]
    fn directories_that_others_can_write_are_not_trusted() {
        let scratch = tempfile::tempdir().unwrap();
        for (mode, below, trusted) in [
            (0o777, "", false),
            (0o777, "state", false),
            (0o1777, "", false),
            (0o1777, "state", true),
            (0o702, "state", false),
            (0o700, "state", true),
        ] {
            let place = scratch.path().join("place");
            directory(&place, mode);
            let result = check(&place.join(below));
            assert_eq!(result.is_ok(), trusted, "{mode:o} {below}: {result:?}");
            fs::remove_dir(&place).unwrap();
        }
    }

    #[test]
    fn an_error_names_the_untrusted_part_and_a_hint() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("place");
        directory(&place, 0o777);
        let error = check(&place.join("a/b")).unwrap_err();
        assert_eq!(error.at, place);
        let message = error.to_string();
        let said = format!("{} is writable by everyone, ", place.display());
        assert!(
            message.contains(&said) && message.contains("/run/oci-hotplug"),
            "{message}"
        );
    }
}
