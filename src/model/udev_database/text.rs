//! The text of an entry (systemd, sd-device.c, `device_update_db`): one line per fact, each with a
//! letter and a colon. Readers skip lines that they do not know.

use std::collections::BTreeSet;
use std::path::Path;

use super::id::is_file_name;
use super::{EntryFacts, EntryKind};

/// How much of a host's entry is read, in bytes. The largest known entries have a few kilobytes; of
/// a larger one, the lines that fit are used.
pub const MAX_HOST_ENTRY: usize = 64 * 1024;

/// How many tags of a device are used.
const MAX_TAGS: usize = 64;

/// An entry as the container gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The content of `data/ID`.
    pub text: Vec<u8>,
    /// The tags whose directories list the device.
    pub tags: BTreeSet<String>,
}

/// The container's entry of a device, from the host's entry (`None` if the host has none) and from
/// what the container has. `now` is the time for a device that udevd has not processed, in
/// microseconds since boot. `None` if the container gets no entry.
///
/// Links that the container does not have, and the lines that concern only udevd, are left out. The
/// host's entry may be incomplete or damaged: what is not a line of this format is left out, too.
pub fn entry_for_container(host: Option<&[u8]>, facts: &EntryFacts, now: u64) -> Option<Entry> {
    let mut entry = Entry {
        text: Vec::new(),
        tags: BTreeSet::new(),
    };
    for link in facts
        .links
        .iter()
        .filter_map(|link| link.strip_prefix("/dev").ok())
    {
        push_link(&mut entry.text, link);
    }
    let Some(host) = host else {
        if facts.is_certain {
            entry.text.extend_from_slice(format!("I:{now}\nV:1\n").as_bytes());
        }
        return facts.is_certain.then_some(entry);
    };
    for line in whole_lines(host) {
        let (Some(letter), Some(b':')) = (line.first(), line.get(1)) else {
            continue;
        };
        let is_parent = facts.kind == EntryKind::Parent;
        let is_kept = match letter {
            b'E' | b'I' | b'V' => true,
            b'L' | b'Q' => !is_parent,
            b'G' => !is_parent && entry.has_tag(&line[2..]),
            _ => false,
        };
        if is_kept && is_text(&line[2..]) {
            entry.text.extend_from_slice(line);
            entry.text.push(b'\n');
        }
    }
    Some(entry)
}

impl Entry {
    /// Adds a tag. Returns false if the tag cannot be the name of a directory, or is one too many.
    fn has_tag(&mut self, tag: &[u8]) -> bool {
        let tag = std::str::from_utf8(tag).ok().filter(|tag| is_file_name(tag));
        let Some(tag) = tag.filter(|_| self.tags.len() < MAX_TAGS) else {
            return false;
        };
        self.tags.insert(tag.to_owned());
        true
    }
}

/// The lines that end within the part that is read.
fn whole_lines(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    let read = &host[..host.len().min(MAX_HOST_ENTRY)];
    let end = match host.len() > MAX_HOST_ENTRY {
        true => read.iter().rposition(|byte| *byte == b'\n').unwrap_or(0),
        false => read.len(),
    };
    read[..end].split(|byte| *byte == b'\n')
}

/// Whether the value of a line has no control characters. Bytes above 127 are part of names in any
/// encoding.
fn is_text(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| *byte >= b' ' && *byte != 0x7f)
}

/// Adds a link, which is relative to /dev.
fn push_link(text: &mut Vec<u8>, link: &Path) {
    let name = link.as_os_str().as_encoded_bytes();
    if is_text(name) && !name.contains(&b' ') {
        text.extend_from_slice(b"S:");
        text.extend_from_slice(name);
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(kind: EntryKind, links: &[&str]) -> EntryFacts {
        EntryFacts {
            kind,
            seqnum: 1,
            links: links.iter().map(Into::into).collect(),
            is_certain: false,
        }
    }

    /// An entry of udevd 252.
    const HOST: &str = "S:disk/by-label/LABEL\nS:disk/by-uuid/1\nL:10\nW:12\nI:3947\nE:ID_FS_LABEL=LABEL\n\
                        E:ID_FS_TYPE=ext4\nG:systemd\nG:seat\nQ:systemd\nV:1\n";

    fn text(host: Option<&str>, facts: &EntryFacts) -> Option<String> {
        let entry = entry_for_container(host.map(str::as_bytes), facts, 7)?;
        Some(String::from_utf8(entry.text).unwrap())
    }

    #[test]
    fn an_entry_has_the_host_s_facts_and_the_container_s_links() {
        let facts = facts(
            EntryKind::Attached,
            &["/dev/disk/by-uuid/1", "/dev/board", "/opt/board", "/dev/a b"],
        );
        let entry = entry_for_container(Some(HOST.as_bytes()), &facts, 7).unwrap();
        assert_eq!(
            std::str::from_utf8(&entry.text).unwrap(),
            "S:board\nS:disk/by-uuid/1\nL:10\nI:3947\nE:ID_FS_LABEL=LABEL\nE:ID_FS_TYPE=ext4\n\
             G:systemd\nG:seat\nQ:systemd\nV:1\n"
        );
        assert_eq!(entry.tags, ["seat", "systemd"].map(str::to_owned).into());
    }

    #[test]
    fn a_parent_has_properties_and_neither_tags_nor_links() {
        let entry = entry_for_container(Some(HOST.as_bytes()), &facts(EntryKind::Parent, &[]), 7).unwrap();
        assert_eq!(
            std::str::from_utf8(&entry.text).unwrap(),
            "I:3947\nE:ID_FS_LABEL=LABEL\nE:ID_FS_TYPE=ext4\nV:1\n"
        );
        assert!(entry.tags.is_empty());
    }

    #[test]
    fn a_device_without_a_host_entry_is_initialized_only_if_that_is_certain() {
        let mut facts = facts(EntryKind::Attached, &["/dev/board"]);
        assert_eq!(text(None, &facts), None);
        facts.is_certain = true;
        assert_eq!(text(None, &facts).unwrap(), "S:board\nI:7\nV:1\n");
        assert_eq!(text(Some(""), &facts).unwrap(), "S:board\n");
    }

    #[test]
    fn damaged_lines_and_impossible_tags_are_left_out() {
        let host = "E:GOOD=1\nE:NUL=\0\n\0\0\nE\nEE:x\nG:../../etc\nG:.hidden\nG:\nG:a b\nE:LAST=2";
        let entry = entry_for_container(Some(host.as_bytes()), &facts(EntryKind::Attached, &[]), 7).unwrap();
        assert_eq!(std::str::from_utf8(&entry.text).unwrap(), "E:GOOD=1\nE:LAST=2\n");
        assert!(entry.tags.is_empty());
        let tags: String = (0..1000).map(|number| format!("G:tag{number}\n")).collect();
        let entry = entry_for_container(Some(tags.as_bytes()), &facts(EntryKind::Attached, &[]), 7).unwrap();
        assert_eq!(entry.tags.len(), MAX_TAGS);
        assert_eq!(entry.text.iter().filter(|byte| **byte == b'\n').count(), MAX_TAGS);
    }

    #[test]
    fn of_a_huge_entry_the_lines_that_fit_are_used() {
        let of_device = |host: &str| text(Some(host), &facts(EntryKind::Nodeless, &[])).unwrap();
        let line = format!("E:LONG={}\n", "x".repeat(1000));
        let text = of_device(&line.repeat(1000));
        assert_eq!(text.len() / line.len(), MAX_HOST_ENTRY / line.len());
        assert!(text.ends_with('\n'));
        // Known entries have a few kilobytes.
        let known = line.repeat(32);
        assert_eq!(of_device(&known), known);
        // An entry of the greatest size has no cut line; what one byte more cuts is left out.
        let value = "x".repeat(MAX_HOST_ENTRY - "E:A=1\nE:B=".len());
        let whole = format!("E:A=1\nE:B={value}");
        assert_eq!(of_device(&whole), format!("{whole}\n"));
        assert_eq!(of_device(&format!("{whole}x")), "E:A=1\n");
        let endless = "E".repeat(1 << 20);
        let entry = entry_for_container(Some(endless.as_bytes()), &facts(EntryKind::Nodeless, &[]), 7);
        assert_eq!(entry.unwrap().text, b"");
    }

    proptest! {
        #[test]
        fn an_entry_has_only_known_lines_and_every_link_is_the_container_s(
            host in proptest::collection::vec(any::<u8>(), 0..400),
            lines in proptest::collection::vec("[A-Z]:[ -~]{0,12}", 0..12),
            links in proptest::collection::btree_set("/(dev|opt)/[a-z \n]{1,6}", 0..3),
            is_parent: bool,
        ) {
            let mut text = lines.join("\n").into_bytes();
            text.extend_from_slice(&host);
            let facts = EntryFacts {
                kind: if is_parent { EntryKind::Parent } else { EntryKind::Attached },
                seqnum: 1,
                links: links.iter().map(Into::into).collect(),
                is_certain: true,
            };
            let entry = entry_for_container(Some(&text), &facts, 7).unwrap();
            prop_assert!(entry.text.is_empty() || entry.text.ends_with(b"\n"));
            for line in entry.text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                prop_assert!(b"SLIEGQV".contains(&line[0]) && line[1] == b':');
                prop_assert!(line.iter().all(|byte| *byte >= b' '));
                if line[0] == b'S' {
                    let link = format!("/dev/{}", std::str::from_utf8(&line[2..]).unwrap());
                    prop_assert!(links.contains(&link));
                }
            }
            prop_assert!(entry.tags.iter().all(|tag| is_file_name(tag)));
            // The container's entry of the container's entry is the same.
            let again = entry_for_container(Some(&entry.text), &facts, 7).unwrap();
            prop_assert_eq!(again, entry);
        }
    }
}
