//! Gives a container that requests devices its watcher: lock, record, launch, and cleanup when that
//! fails.

use std::thread;
use std::time::{Duration, Instant};

use super::launch::{LaunchError, launch, revoke_leftovers};
use crate::host::config::Config;
use crate::host::container::ContainerFacts;
use crate::host::state::cgroup_owners;
use crate::host::state::control::{self, ControlError, ControlRequest, ControlResponse};
use crate::host::state::error::RegistryError;
use crate::host::state::leftovers;
use crate::host::state::record::{Record, RecordedInit};
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// The pause before another attempt while a watcher is starting or ending.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// How long the init of the container's previous run may take to end: crun's `delete --force`
/// returns before the killed process has ended.
const INIT_END_TIMEOUT: Duration = Duration::from_secs(2);

/// The program that enrolls a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enroller {
    /// A hook of a container that is being started. Earlier hooks may have enrolled it already.
    Hook,
    /// `oci-hotplug attach`, for a container that may end at any time.
    Operator,
}

/// A container cannot be enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    /// The state directory cannot be used, or the id belongs to another running container.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The container's watcher does not respond.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A new watcher does not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The container has a record but no watcher; enrolling it again would lose the record.
    #[error(
        "container {0} has no watcher any more: it crashed or was stopped (`oci-hotplug recover` starts a new one)"
    )]
    Unwatched(ContainerId),
    #[error("container {0} has ended")]
    Ended(ContainerId),
}

/// Adds the requests of a record to the container's watcher, or starts a watcher. Returns the
/// watcher's response: [`ControlResponse::Gone`] if the watcher of an earlier container with this
/// id has not ended at the deadline.
///
/// # Errors
/// [`RegistryError::IdInUse`], at once, if the id belongs to another running container. Otherwise
/// when the state directory cannot be used, the watcher does not respond in time, or a new one does
/// not start; then no record of the container is left.
pub(crate) fn enroll(
    registry: &Registry,
    id: &ContainerId,
    record: &Record,
    config: &Config,
    enroller: Enroller,
    deadline: Instant,
) -> Result<ControlResponse, EnrollError> {
    let add = ControlRequest::Add {
        container: record.container.clone(),
        entries: record.requests.clone(),
        symlinks: record.symlinks.clone(),
    };
    let mut is_revoked = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(lock) = registry.try_enroll(id)? {
            let previous = lock.recorded_init();
            check_id(previous.as_ref(), &record.container)?;
            let is_other = previous.is_some_and(|init| !init.is_of(&record.container));
            if is_other && !is_revoked && leftovers::is_in_force(&lock) {
                drop(lock);
                is_revoked = true;
                revoke_leftovers(registry, id);
                continue;
            }
            let lock = prepare(lock, id, record, enroller)?;
            return start(registry, id, lock, config, left.min(config.prestart_timeout));
        }
        check_id(registry.recorded_init(id).as_ref(), &record.container)?;
        match control::send_request(&registry.container_dir(id), &add, left.max(RETRY_INTERVAL)) {
            Ok(ControlResponse::Gone) if left > RETRY_INTERVAL => {}
            // The watcher is starting or ending, or hands over to the next one.
            Err(error) if error.is_ended() && left > RETRY_INTERVAL => {}
            response => return Ok(response?),
        }
        thread::sleep(RETRY_INTERVAL);
    }
}

/// Checks that the id is free for `container`. If another container is enrolled, its init has to
/// have ended; an init with the same bundle belongs to the previous run, and may be about to end.
fn check_id(enrolled: Option<&RecordedInit>, container: &ContainerFacts) -> Result<(), RegistryError> {
    let Some(other) = enrolled.filter(|init| !init.is_of(container)) else {
        return Ok(());
    };
    let timeout = if other.bundle == container.bundle {
        INIT_END_TIMEOUT
    } else {
        Duration::ZERO
    };
    match other.running() {
        Some(process) if !process.wait(timeout) => Err(RegistryError::IdInUse {
            id: container.id.clone(),
            pid: other.pid,
            bundle: other.bundle.clone(),
        }),
        _ => Ok(()),
    }
}

/// Writes the record that the new watcher reads.
fn prepare(
    lock: RecordLock,
    id: &ContainerId,
    record: &Record,
    enroller: Enroller,
) -> Result<RecordLock, EnrollError> {
    match (enroller, lock.record()) {
        // The previous watcher crashed: keep the requests and attachments recorded by earlier
        // hooks.
        (Enroller::Hook, Ok(Some(before))) if before.is_of(&record.container) => {
            lock.write_record(&before.joined_by(record))?;
            return Ok(lock);
        }
        (Enroller::Hook, _) => {}
        (Enroller::Operator, before) => {
            if before?.is_some_and(|before| before.is_running()) {
                return Err(EnrollError::Unwatched(id.clone()));
            }
        }
    }
    // An earlier container with this id may have had the same root file system.
    leftovers::remove_files(&lock);
    if enroller == Enroller::Operator && !record.is_running() {
        // Access that is still in force is revoked by the next program that finds the record.
        if !leftovers::is_in_force(&lock) {
            lock.remove()?;
        }
        return Err(EnrollError::Ended(id.clone()));
    }
    lock.clear()?;
    lock.write_record(record)?;
    Ok(lock)
}

fn start(
    registry: &Registry,
    id: &ContainerId,
    lock: RecordLock,
    config: &Config,
    timeout: Duration,
) -> Result<ControlResponse, EnrollError> {
    let response = launch(registry, id, &lock, config.named.as_deref(), timeout);
    if !matches!(response, Ok(ControlResponse::Done)) {
        // The container does not start, or keeps what it has. The watcher has ended or is ending;
        // until then our shared lock keeps other processes out.
        lock.remove()?;
        cgroup_owners::sweep(registry.root());
    }
    Ok(response?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::host::state::journal_writer::JournalWriter;
    use crate::host::state::notes::Notes;
    use crate::host::state::versioned::STATE_VERSION;
    use crate::model::device::{Access, DevKind, DevNum, Device, SysPath};
    use crate::model::oci::ProcessUser;
    use crate::model::plan::attachment::{Attachment, Attachments, NodeCreator, NodeSpec};
    use crate::model::policy::ContainerTraits;

    fn record_of(pid: i32, bundle: &Path) -> Record {
        Record {
            version: STATE_VERSION,
            container: ContainerFacts {
                id: "c1".into(),
                pid,
                start_time: 1,
                bundle: bundle.to_owned(),
                rootfs: bundle.join("rootfs"),
                cgroups_path: None,
                user: ProcessUser::default(),
                read_only_sys: false,
            },
            requests: Vec::new(),
            symlinks: Vec::new(),
            enrolled: 0,
            traits: ContainerTraits::default(),
            config: None,
            udev: crate::model::udev_database::UdevMode::Auto,
            boot: String::new(),
        }
    }

    /// Case security 10.
    #[test]
    fn files_of_an_earlier_container_are_removed_before_the_next_one_starts() {
        let scratch = tempfile::tempdir().unwrap();
        let bundle = scratch.path();
        let dev = bundle.join("rootfs/dev");
        fs::create_dir_all(&dev).unwrap();
        for (link, target) in [("ours", "ttyUSB0"), ("theirs", "null")] {
            std::os::unix::fs::symlink(target, dev.join(link)).unwrap();
        }
        let num = DevNum {
            kind: DevKind::Char,
            major: 188,
            minor: 0,
        };
        let mut attachments = Attachments::default();
        attachments.insert(
            "/dev/ttyUSB0".into(),
            Attachment {
                device: Device::new(SysPath::new("/sys/devices/x")),
                access: Access::ALL,
                node: NodeSpec {
                    num,
                    mode: 0o660,
                    uid: 0,
                    gid: 0,
                },
                node_creator: NodeCreator::Watcher,
                links: [("/dev/ours".into(), NodeCreator::Watcher)].into(),
                announced: None,
                since: 0,
            },
        );
        let registry = Registry::new(bundle.join("state"));
        let id: ContainerId = "c1".parse().unwrap();
        let lock = registry.try_enroll(&id).unwrap().unwrap();
        // No process has such a pid.
        lock.write_record(&record_of(i32::MAX - 1, bundle)).unwrap();
        let notes = Notes {
            version: STATE_VERSION,
            attachments,
            ..Notes::default()
        };
        JournalWriter::default().write(&lock, notes).unwrap();
        let next = record_of(i32::MAX, bundle);
        drop(lock);
        let deadline = Instant::now() + Duration::from_secs(5);
        // No such container exists, and the watcher's executable may not exist either.
        let _ = enroll(
            &registry,
            &id,
            &next,
            &Config::default(),
            Enroller::Hook,
            deadline,
        );
        let left: Vec<_> = fs::read_dir(&dev)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["theirs"]);
    }
}
