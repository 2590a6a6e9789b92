//! Keeps drivers from binding to a new device until it has been verified, by a setting of the root
//! hubs.
//!
//! ```text
//! <state-dir>/usbip/hubs.lock    flock, shared by all processes that attach a device
//!                   hubs.json    authorized_default of each hub before the first process changed
//!                                it
//! ```
//! The last process restores the setting; if it was killed, the next one does.
//! See the kernel's Documentation/usb/authorization.rst.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::host::regular_file;
use crate::host::state::atomic_file::{Durability, create};
use crate::host::state::flock::{self, Lock};

use super::vhci::{Vhci, attribute, write_at_once};

const ATTRIBUTE: &str = "authorized_default";

/// The setting of a hub cannot be changed, or cannot be saved in the state directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source} (run this as root; the state directory must be writable)", path.display())]
pub struct HubError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError { action, path, source }
}

/// While this value exists, no driver binds to a newly attached device.
#[derive(Debug)]
pub(crate) struct Hold {
    lock: File,
    before: PathBuf,
}

impl Hold {
    /// Changes the setting of all root hubs of the controllers. Several processes may hold it at
    /// the same time.
    ///
    /// # Errors
    /// If the directory or a hub cannot be written, or the lock is not available before the
    /// deadline.
    pub(crate) fn take(dir: &Path, vhci: &Vhci, deadline: Instant) -> Result<Self, HubError> {
        let hold = Self {
            lock: lock(dir, deadline)?,
            before: dir.join("hubs.json"),
        };
        hold.remember(vhci)?;
        for hub in vhci.root_hubs() {
            let path = hub.join(ATTRIBUTE);
            write_at_once(&path, "0").map_err(failed("write 0 to", &path))?;
        }
        Ok(hold)
    }

    /// Saves the settings of the hubs, unless another process has done so and changed them already.
    fn remember(&self, vhci: &Vhci) -> Result<(), HubError> {
        let mut before = BTreeMap::new();
        for hub in vhci.root_hubs() {
            let path = hub.join(ATTRIBUTE);
            if let Some(value) = attribute(hub, ATTRIBUTE) {
                before.insert(path, value);
            }
        }
        serde_json::to_vec(&before)
            .map_err(io::Error::from)
            .and_then(|content| create(&self.before, &content, 0o600, Durability::Volatile))
            .map_err(failed("write", &self.before))?;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // flock(2): if the conversion fails, the shared lock is lost, too, and another process
        // holds one and will restore the settings.
        if matches!(flock::try_lock(&self.lock, Lock::Exclusive), Ok(true)) {
            put_back(&self.before);
        }
    }
}

/// Restores the settings of the hubs if the processes that changed them were killed.
pub(crate) fn heal(dir: &Path) {
    let before = dir.join("hubs.json");
    if !before.exists() {
        return;
    }
    if let Ok(lock) = regular_file::open_to_read(&dir.join("hubs.lock")) {
        if matches!(flock::try_lock(&lock, Lock::Exclusive), Ok(true)) {
            put_back(&before);
        }
    }
}

fn put_back(before: &Path) {
    let text = regular_file::read(before).unwrap_or_default();
    let hubs: BTreeMap<PathBuf, String> = serde_json::from_slice(&text).unwrap_or_default();
    for (path, value) in hubs {
        // The hub is gone if the module was unloaded; a new hub has the default.
        let _ = write_at_once(&path, &value);
    }
    let _ = fs::remove_file(before);
}

fn lock(dir: &Path, deadline: Instant) -> Result<File, HubError> {
    let path = dir.join("hubs.lock");
    let file = flock::open_or_create(&path).map_err(failed("open", &path))?;
    flock::lock(&file, Lock::Shared, deadline).map_err(failed("lock", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs2::FileExt;
    use std::time::Duration;

    /// A state directory, and controllers with one hub that authorizes internal devices only.
    struct Bed(tempfile::TempDir);

    impl Bed {
        fn new() -> Self {
            let bed = Self(tempfile::tempdir().unwrap());
            let control = bed.0.path().join("vhci_hcd.0");
            fs::create_dir_all(control.join("usb3")).unwrap();
            for (file, content) in [
                ("nports", "16\n"),
                ("status", "hub port sta spd dev sockfd local_busid\n"),
                ("usb3/speed", "480\n"),
                ("usb3/authorized_default", "2\n"),
            ] {
                fs::write(control.join(file), content).unwrap();
            }
            bed
        }

        fn hold(&self) -> Hold {
            let vhci = Vhci::open_below(self.0.path()).unwrap();
            Hold::take(self.0.path(), &vhci, Instant::now() + Duration::from_secs(10)).unwrap()
        }

        fn default(&self) -> String {
            // A regular file keeps the rest after a shorter write; a sysfs attribute does not.
            fs::read_to_string(self.0.path().join("vhci_hcd.0/usb3/authorized_default")).unwrap()[..1].into()
        }
    }

    #[test]
    fn the_last_process_restores_the_setting_that_the_first_one_found() {
        let bed = Bed::new();
        let (one, other) = (bed.hold(), bed.hold());
        assert_eq!(bed.default(), "0");
        drop(one);
        assert_eq!(bed.default(), "0");
        drop(other);
        assert_eq!(bed.default(), "2");
        assert!(!bed.0.path().join("hubs.json").exists());
    }

    #[test]
    fn the_next_process_restores_the_setting_of_a_killed_one() {
        let bed = Bed::new();
        let hold = bed.hold();
        heal(bed.0.path());
        assert_eq!(bed.default(), "0", "not while it is held");
        // When a process dies, the kernel releases its lock; everything else stays.
        FileExt::unlock(&hold.lock).unwrap();
        std::mem::forget(hold);
        drop(bed.hold());
        assert_eq!(bed.default(), "2");
    }

    #[test]
    fn the_setting_of_a_killed_process_is_restored_without_a_further_attachment() {
        let bed = Bed::new();
        let hold = bed.hold();
        FileExt::unlock(&hold.lock).unwrap();
        std::mem::forget(hold);
        heal(bed.0.path());
        assert_eq!(bed.default(), "2");
    }
}
