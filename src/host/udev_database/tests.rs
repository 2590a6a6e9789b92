use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::model::udev_database::EntryKind;

fn facts(seqnum: u64) -> EntryFacts {
    EntryFacts {
        kind: EntryKind::Attached,
        seqnum,
        links: BTreeSet::from(["/dev/board".into()]),
        is_certain: true,
    }
}

fn id(name: &str) -> DatabaseId {
    DatabaseId::parse(name).unwrap()
}

/// No device of the host has this number.
const ABSENT: &str = "c4095:1048575";

fn entry(tags: &[&str]) -> Entry {
    Entry {
        text: b"E:A=1\n".to_vec(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    }
}

#[test]
fn entries_and_tags_are_written_and_removed_and_nothing_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    let container = File::open(scratch.path()).unwrap();
    assert!(UdevDatabase::open(container.as_fd()).unwrap().is_none());
    let mut database = UdevDatabase::create(container.as_fd()).unwrap();
    let root = scratch.path().join("udev");
    database.write(&id(ABSENT), &facts(1)).unwrap();
    let text = fs::read_to_string(root.join("data").join(ABSENT)).unwrap();
    assert!(
        text.starts_with("S:board\nI:") && text.ends_with("\nV:1\n"),
        "{text}"
    );
    assert_eq!(database.entries()[&id(ABSENT)], Some(facts(1)));
    let (one, two) = (id("b8:1"), id("+usb:1-1"));
    database.write_files(&one, "b8:1", entry(&["a", "b"])).unwrap();
    database.write_files(&two, "+usb:1-1", entry(&["b"])).unwrap();
    assert!(root.join("tags/a/b8:1").exists() && root.join("tags/b/+usb:1-1").exists());
    database.write_files(&one, "b8:1", entry(&["c"])).unwrap();
    assert!(!root.join("tags/a").exists() && !root.join("tags/b/b8:1").exists());
    assert!(root.join("tags/c/b8:1").exists());

    // The next watcher finds what is there, and removes it.
    let mut next = UdevDatabase::open(container.as_fd()).unwrap().unwrap();
    assert_eq!(next.identity(), database.identity());
    let found: Vec<DatabaseId> = next.entries().keys().cloned().collect();
    assert_eq!(found.len(), 3);
    assert!(next.entries().values().all(Option::is_none));
    for id in &found {
        next.remove(id).unwrap();
        next.remove(id).unwrap();
    }
    for directory in ["data", "tags"] {
        assert_eq!(
            fs::read_dir(root.join(directory)).unwrap().count(),
            0,
            "{directory}"
        );
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn everyone_can_read_and_only_root_can_write() {
    let scratch = tempfile::tempdir().unwrap();
    let container = File::open(scratch.path()).unwrap();
    let mut database = UdevDatabase::create(container.as_fd()).unwrap();
    database.write(&id(ABSENT), &facts(1)).unwrap();
    let mode = |name: &str| {
        let path = scratch.path().join("udev").join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o022
    };
    for name in [".", "data", "tags", "control", &format!("data/{ABSENT}")] {
        assert_eq!(mode(name), 0, "{name}");
    }
}

#[test]
fn a_link_that_the_container_made_is_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let container = File::open(scratch.path()).unwrap();
    let mut database = UdevDatabase::create(container.as_fd()).unwrap();
    let root = scratch.path().join("udev");
    symlink(&outside, root.join("tags/a")).unwrap();
    symlink(outside.join("file"), root.join("data/b8:1")).unwrap();
    let error = database
        .write_files(&id("b8:1"), "b8:1", entry(&["a"]))
        .unwrap_err();
    assert!(error.to_string().contains("udev database"), "{error}");
    for directory in ["data", "tags"] {
        fs::remove_dir_all(root.join(directory)).unwrap();
        symlink(&outside, root.join(directory)).unwrap();
    }
    let _ = database.write_files(&id("b8:1"), "b8:1", entry(&["c"]));
    UdevDatabase::open(container.as_fd()).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
