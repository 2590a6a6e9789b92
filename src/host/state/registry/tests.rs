use super::*;
use crate::host::container::ContainerFacts;
use crate::host::state::journal_writer::JournalWriter;
use crate::host::state::notes::Notes;
use crate::host::state::versioned::STATE_VERSION;
use crate::model::oci::ProcessUser;
use crate::model::policy::ContainerTraits;
use crate::model::request::entry::RequestEntry;
use std::os::unix::fs::MetadataExt;

fn id(text: &str) -> ContainerId {
    text.parse().unwrap()
}

fn record(name: &str) -> Record {
    Record {
        version: STATE_VERSION,
        container: ContainerFacts {
            id: name.into(),
            pid: 1,
            start_time: 2,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            cgroups_path: None,
            user: ProcessUser { uid: 0, gid: 0 },
            read_only_sys: false,
        },
        requests: vec![RequestEntry::new(
            crate::model::request::entry::Origin::Annotation,
            "usb:0403:6001;access=r".parse().unwrap(),
        )],
        symlinks: Vec::new(),
        traits: ContainerTraits::default(),
        config: None,
        udev: crate::model::udev_database::UdevMode::Auto,
        boot: String::new(),
        enrolled: 3,
    }
}

fn notes(directory: &str) -> Notes {
    Notes {
        version: STATE_VERSION,
        directories: [directory.into()].into(),
        ..Notes::default()
    }
}

#[test]
fn a_record_is_read_back_and_only_root_can_read_it() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path().join("state"));
    let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
    lock.write_record(&record("c1")).unwrap();
    assert_eq!(registry.record(&id("c1")).unwrap(), Some(record("c1")));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(lock.dir().to_owned()), 0o700);
    assert_eq!(mode(lock.dir().join("record.json")), 0o600);
    assert_eq!(mode(registry.root().to_owned()), 0o700);
}

#[test]
fn the_lock_is_exclusive_and_dropping_releases_it() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
    assert!(registry.is_watched(&id("c1")));
    assert!(registry.try_enroll(&id("c1")).unwrap().is_none());
    let error = registry.lock(&id("c1"), Duration::ZERO).unwrap_err();
    assert!(matches!(error, RegistryError::Locked { .. }), "{error}");
    drop(lock);
    assert!(!registry.is_watched(&id("c1")));
    assert!(registry.try_enroll(&id("c1")).unwrap().is_some());
}

#[test]
fn a_sweep_removes_only_entries_without_watcher_that_do_not_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    for name in ["dead", "alive", "watched"] {
        let lock = registry.try_enroll(&id(name)).unwrap().unwrap();
        lock.write_record(&record(name)).unwrap();
    }
    drop(registry.try_enroll(&id("never-recorded")).unwrap());
    let _watcher = registry.try_lock(&id("watched")).unwrap().unwrap();
    let swept = registry
        .sweep(|record, _| record.container.id == "alive")
        .unwrap();
    assert_eq!(swept, [id("dead"), id("never-recorded")]);
    assert_eq!(registry.ids().unwrap(), [id("alive"), id("watched")]);
}

#[test]
fn a_record_of_a_newer_version_is_an_error_with_a_hint() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
    fs::write(
        lock.dir().join("record.json"),
        r#"{"version":99,"something":"new"}"#,
    )
    .unwrap();
    let error = lock.record().unwrap_err().to_string();
    assert!(
        error.contains("version 99") && error.contains("install the newer oci-hotplug"),
        "{error}"
    );
}

#[test]
fn a_torn_record_is_an_error_that_names_the_file() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
    fs::write(lock.dir().join("record.json"), r#"{"version":1,"cont"#).unwrap();
    assert!(lock.record().unwrap_err().to_string().contains("record.json"));
}

#[test]
fn an_absent_state_directory_has_no_containers() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path().join("nowhere"));
    assert!(registry.ids().unwrap().is_empty());
    assert!(registry.record(&id("c1")).unwrap().is_none());
    assert!(!registry.root().exists());
}

#[test]
fn a_lock_of_a_removed_directory_does_not_block_a_new_one() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    let old = registry.try_enroll(&id("c1")).unwrap().unwrap();
    fs::remove_dir_all(old.dir()).unwrap();
    let new = registry.try_enroll(&id("c1")).unwrap();
    assert!(new.is_some());
}

/// Case security 6.
#[test]
fn the_holder_of_a_removed_entry_cannot_change_the_new_entry() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    let old = registry.try_enroll(&id("c1")).unwrap().unwrap();
    old.write_record(&record("old")).unwrap();
    let mut journal = JournalWriter::default();
    journal.write(&old, notes("old")).unwrap();
    fs::remove_dir_all(old.dir()).unwrap();
    let new = registry.try_enroll(&id("c1")).unwrap().unwrap();
    new.write_record(&record("new")).unwrap();
    JournalWriter::default().write(&new, notes("new")).unwrap();
    let files = || {
        let entries = fs::read_dir(new.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (fs::read(&path).unwrap(), path)).collect();
        files.sort();
        files
    };
    let before = files();
    for error in [
        journal.write(&old, notes("changed")),
        old.write_record(&record("old")),
    ]
    .map(Result::unwrap_err)
    {
        assert!(matches!(error, RegistryError::Io { .. }), "{error}");
    }
    old.remove().unwrap();
    assert_eq!(files(), before);
}

#[test]
fn a_fifo_in_the_place_of_a_lock_is_an_error_that_names_it() {
    let scratch = tempfile::tempdir().unwrap();
    let registry = Registry::new(scratch.path());
    let id: ContainerId = "alpha".parse().unwrap();
    drop(registry.try_enroll(&id).unwrap());
    let path = registry.container_dir(&id).join("lock");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = registry.try_enroll(&id).unwrap_err().to_string();
    let expected = format!(
        "cannot open {}: it is a FIFO, not a regular file (remove it",
        path.display()
    );
    assert!(error.starts_with(&expected), "{error}");
    assert!(!registry.is_watched(&id));
    assert_eq!(registry.watcher(&id), None);
}
