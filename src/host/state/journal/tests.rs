//! A journal that ends at any byte, and one with a damaged line.

use std::path::PathBuf;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::{JournalError, Journaled, line_of, parse};
use crate::host::filter::FilterMemory;
use crate::host::state::notes::Notes;
use crate::host::state::versioned::STATE_VERSION;
use crate::model::cgroup::grants::GrantSet;
use crate::model::counters::Counters;
use crate::model::device::{Access, DevKind, DevNum, Device, SysPath};
use crate::model::plan::announcements::{AnnouncedDevices, Announcement};
use crate::model::plan::attachment::{Attachment, Attachments, NodeCreator, NodeSpec};
use crate::model::uevent::{UeventAction, UeventForm};

/// Few different values, so that states have parts in common, with characters that JSON escapes.
fn some_path() -> impl Strategy<Value = PathBuf> {
    prop::sample::select(vec!["/dev/a", "/dev/ä\"\\", "/dev/a\nb", "/dev/b"]).prop_map(PathBuf::from)
}

fn some_access() -> impl Strategy<Value = Access> {
    prop::sample::select(vec![
        Access::NONE,
        Access::READ,
        Access::READ | Access::WRITE,
        Access::ALL,
    ])
}

fn some_num() -> impl Strategy<Value = DevNum> {
    (any::<bool>(), 0_u32..3).prop_map(|(is_block, minor)| DevNum {
        kind: if is_block { DevKind::Block } else { DevKind::Char },
        major: 188,
        minor,
    })
}

fn some_creator() -> impl Strategy<Value = NodeCreator> {
    prop::sample::select(vec![NodeCreator::Watcher, NodeCreator::Other])
}

fn some_attachment() -> impl Strategy<Value = Attachment> {
    let parts = (
        some_path(),
        some_access(),
        some_num(),
        some_creator(),
        btree_map(some_path(), some_creator(), 0..3),
        prop::option::of(0_u64..3),
    );
    parts.prop_map(
        |(device, access, num, node_creator, links, announced)| Attachment {
            device: Device::new(SysPath::new(device.to_string_lossy())),
            access,
            node: NodeSpec {
                num,
                mode: 0o660,
                uid: 0,
                gid: 5,
            },
            node_creator,
            links,
            announced,
            since: 7,
        },
    )
}

prop_compose! {
    fn some_notes()(
        attachments in btree_map(some_path(), some_attachment(), 0..4),
        held in btree_map(some_num(), some_access(), 0..4),
        baseline in prop::option::of(Just(vec!["c 1:3 rwm".parse().expect("a rule")])),
        directories in btree_set(some_path(), 0..3),
        roots in vec(btree_set(some_path(), 0..2), 0..3),
        attached in 0_u64..3,
        announced in vec((some_path(), any::<bool>()), 0..3),
    ) -> Notes {
        let to_syspath = |path: PathBuf| SysPath::new(path.to_string_lossy());
        Notes {
            version: STATE_VERSION,
            attachments: attachments.into_iter().collect::<Attachments>(),
            filter: FilterMemory { held: GrantSet::from_iter(held), baseline, ..FilterMemory::default() },
            directories,
            root_file_system: Some((0, 42)),
            roots: roots.into_iter().map(|roots| roots.into_iter().map(to_syspath).collect()).collect(),
            counters: Counters { attached, ..Counters::default() },
            bound: Vec::new(),
            announced: some_announced(announced),
        }
    }
}

fn some_announced(devices: Vec<(PathBuf, bool)>) -> AnnouncedDevices {
    let mut announced = AnnouncedDevices::default();
    for (path, is_of_udev) in devices {
        announced.note(&Announcement {
            form: if is_of_udev {
                UeventForm::Udev
            } else {
                UeventForm::Kernel
            },
            action: UeventAction::Add,
            device: Device::new(SysPath::new(path.to_string_lossy())),
        });
    }
    announced
}

/// The journal of a writer that had these states one after another, and how long it was with each.
fn journal_of(states: &[Notes]) -> (Vec<u8>, Vec<usize>) {
    let mut text = line_of(&states[0]).unwrap();
    let mut ends = vec![text.len()];
    for pair in states.windows(2) {
        if let Some(change) = pair[1].change_since(&pair[0]) {
            text.extend(line_of(&change).unwrap());
        }
        ends.push(text.len());
    }
    (text, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_journal_that_ends_at_any_byte_has_the_state_after_some_write(
        states in vec(some_notes(), 1..4),
    ) {
        let (text, ends) = journal_of(&states);
        for length in 0..=text.len() {
            let restored = parse::<Notes>(&text[..length]);
            // The line feed of the first line is not needed: the file gets its name with it.
            let written = ends.iter().rposition(|end| *end <= length);
            match written.or((length + 1 == ends[0]).then_some(0)) {
                Some(last) => prop_assert_eq!(&restored.unwrap(), &states[last], "{} bytes", length),
                None => prop_assert!(restored.is_err(), "{} bytes", length),
            }
        }
    }

    #[test]
    fn a_change_makes_one_state_of_another_and_is_empty_between_equal_states(
        before in some_notes(),
        after in some_notes(),
    ) {
        let mut state = before.clone();
        if let Some(change) = after.change_since(&before) {
            state.apply(change);
        }
        prop_assert_eq!(&state, &after);
        prop_assert!(after.change_since(&state).is_none());
    }

    #[test]
    fn a_line_that_is_cut_before_another_one_makes_the_journal_unreadable(
        states in vec(some_notes(), 3..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let (text, ends) = journal_of(&states);
        prop_assume!(ends[0] < ends[1] && ends[1] < ends[2]);
        // At least one byte of the second line is missing, and its line feed is there.
        let length = ends[0] + cut.index(ends[1] - ends[0] - 1);
        let mut damaged = text[..length].to_vec();
        damaged.extend(&text[ends[1] - 1..]);
        match parse::<Notes>(&damaged) {
            Err(JournalError::Line { line: 2, .. }) => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn a_journal_of_a_newer_version_is_not_read_whatever_its_lines_are() {
    let newer = b"{\"version\":99,\"something\":\"new\"}\nalso new\n";
    match parse::<Notes>(newer) {
        Err(JournalError::TooNew { version: 99 }) => {}
        other => panic!("{other:?}"),
    }
}
