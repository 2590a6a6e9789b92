//! Entries of the host's udev database, as a container gets them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_hotplug::model::udev_database::{Entry, EntryFacts, EntryKind, MAX_HOST_ENTRY, entry_for_container};

/// An entry for a container has only whole lines that libudev knows, no link that the container
/// does not have, and tags that are names of directories. It is bounded, and reading it again gives
/// the same.
pub fn hold(input: &[u8]) {
    for kind in [EntryKind::Parent, EntryKind::Nodeless, EntryKind::Attached] {
        let facts = EntryFacts {
            kind,
            seqnum: 1,
            links: BTreeSet::from([PathBuf::from("/dev/board"), PathBuf::from("/opt/board")]),
            is_certain: true,
        };
        let entry = entry_for_container(Some(input), &facts, 1).expect("there is an entry on the host");
        is_sound(&entry, kind);
        assert!(entry.text.len() <= input.len().min(MAX_HOST_ENTRY) + "S:board\n\n".len());
        let again = entry_for_container(Some(&entry.text), &facts, 1);
        assert_eq!(again, Some(entry));
    }
}

fn is_sound(entry: &Entry, kind: EntryKind) {
    assert!(entry.text.is_empty() || entry.text.ends_with(b"\n"));
    for line in entry
        .text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let (letter, value) = (line[0], &line[2..]);
        assert!(b"SLIEGQV".contains(&letter) && line[1] == b':');
        assert!(value.iter().all(|byte| *byte >= b' ' && *byte != 0x7f));
        assert!(letter != b'S' || value == b"board");
        assert!(kind != EntryKind::Parent || !b"GQL".contains(&letter));
    }
    assert!(entry.tags.len() <= 64);
    for tag in &entry.tags {
        assert!(
            !tag.is_empty() && !tag.contains('/') && !tag.starts_with('.'),
            "{tag:?}"
        );
        assert!(tag.len() <= 255);
    }
}
