//! Who may open a file of the host: owner, mode, and access control list (acl(5)).

/// The permissions of a file; ids as the host counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permissions {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The entries of the access control list; empty if the file has none.
    pub list: Vec<ListEntry>,
}

/// One entry of an access control list: what it is about, the id of a named user or group, and
/// three permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListEntry {
    tag: u16,
    id: u32,
    bits: u32,
}

/// The version and the tags of the kernel's format (linux/posix_acl_xattr.h, linux/posix_acl.h).
const VERSION: u32 = 2;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// The permission bits without which an open is of no use.
const READ_OR_WRITE: u32 = 0o6;

/// Parses the extended attribute `system.posix_acl_access`. Returns no entries if it is malformed.
pub(crate) fn parse_list(attribute: &[u8]) -> Vec<ListEntry> {
    let (version, entries) = attribute.split_at(attribute.len().min(4));
    if version != VERSION.to_le_bytes() || entries.len() % 8 != 0 {
        return Vec::new();
    }
    let parse = |entry: &[u8]| ListEntry {
        tag: u16::from_le_bytes([entry[0], entry[1]]),
        bits: u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 7,
        id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
    };
    entries.chunks_exact(8).map(parse).collect()
}

impl Permissions {
    /// The permission bits (4 read, 2 write, 1 execute) of a user who has no capabilities over the
    /// file. With several matching groups, the sum of their bits: an open for reading and writing
    /// needs both from one group, which is not distinguished here.
    pub(crate) fn bits(&self, uid: u32, groups: &[u32]) -> u32 {
        let mask = self.list.iter().find(|entry| entry.tag == MASK);
        let mask = mask.map_or(7, |entry| entry.bits);
        if uid == self.uid {
            return self.mode >> 6 & 7;
        }
        let named = |entry: &&ListEntry| entry.tag == USER && entry.id == uid;
        if let Some(entry) = self.list.iter().find(named) {
            return entry.bits & mask;
        }
        // With a list, the group bits of the mode are the mask (acl(5), "Correspondence between ACL
        // entries and file permission bits").
        let owning = self.list.iter().find(|entry| entry.tag == OWNING_GROUP);
        let owning = (self.gid, owning.map_or(self.mode >> 3 & 7, |entry| entry.bits));
        let others = self.list.iter().filter(|entry| entry.tag == GROUP);
        let all = others
            .map(|entry| (entry.id, entry.bits))
            .chain([owning])
            .filter(|(gid, _)| groups.contains(gid));
        match all.map(|(_, bits)| bits & mask).reduce(|sum, bits| sum | bits) {
            Some(bits) => bits,
            None => self.mode & 7,
        }
    }

    /// Whether a user or group among these may read or write the file.
    pub(crate) fn admits(&self, has_user: impl Fn(u32) -> bool, has_group: impl Fn(u32) -> bool) -> bool {
        let entry_of = |tag: u16| self.list.iter().find(|entry| entry.tag == tag);
        let mask = entry_of(MASK).map_or(7, |entry| entry.bits);
        let owning = entry_of(OWNING_GROUP).map_or(self.mode >> 3 & 7, |entry| entry.bits);
        let is_named = |entry: &ListEntry| match entry.tag {
            USER => has_user(entry.id),
            GROUP => has_group(entry.id),
            _ => false,
        };
        let mut named = self.list.iter().filter(|entry| is_named(entry));
        self.mode & READ_OR_WRITE != 0
            || has_user(self.uid) && self.mode >> 6 & READ_OR_WRITE != 0
            || has_group(self.gid) && owning & mask & READ_OR_WRITE != 0
            || named.any(|entry| entry.bits & mask & READ_OR_WRITE != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: u16 = 0x01;
    const OTHER: u16 = 0x20;

    fn attribute(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(bits.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn permissions(mode: u32, list: &[(u16, u16, u32)]) -> Permissions {
        Permissions {
            mode,
            uid: 0,
            gid: 20,
            list: match list {
                [] => Vec::new(),
                list => parse_list(&attribute(list)),
            },
        }
    }

    #[test]
    fn a_file_admits_owners_groups_and_named_users_that_its_bits_allow() {
        let (all, none) = (|_| true, |_| false);
        assert!(permissions(0o604, &[]).admits(none, none));
        assert!(!permissions(0o661, &[]).admits(none, none));
        assert!(permissions(0o600, &[]).admits(|uid| uid == 0, none));
        assert!(!permissions(0o600, &[]).admits(|uid| uid == 1, all));
        assert!(permissions(0o060, &[]).admits(none, |gid| gid == 20));
        assert!(!permissions(0o060, &[]).admits(all, |gid| gid == 21));
        let list = [
            (USER, 6, 1000),
            (OWNING_GROUP, 0, 0),
            (GROUP, 6, 30),
            (MASK, 6, 0),
        ];
        let listed = permissions(0o660, &list);
        assert!(listed.admits(|uid| uid == 1000, none) && listed.admits(none, |gid| gid == 30));
        // The group bits of the mode are the mask.
        assert!(!listed.admits(none, |gid| gid == 20));
        let masked = permissions(0o610, &[(USER, 6, 1000), (OWNING_GROUP, 6, 0), (MASK, 1, 0)]);
        assert!(!masked.admits(|uid| uid == 1000, all));
    }

    #[test]
    fn without_a_list_the_mode_decides() {
        let node = permissions(0o640, &[]);
        assert_eq!(node.bits(0, &[]), 6);
        assert_eq!(node.bits(1000, &[1000, 20]), 4);
        assert_eq!(node.bits(1000, &[1000]), 0);
        assert_eq!(permissions(0o606, &[]).bits(1000, &[20]), 0);
        assert_eq!(permissions(0o606, &[]).bits(1000, &[]), 6);
    }

    #[test]
    fn a_member_of_several_groups_has_what_any_of_them_grants() {
        let list = [(OWNING_GROUP, 4, 0), (GROUP, 6, 30), (GROUP, 1, 31), (MASK, 7, 0)];
        let node = permissions(0o670, &list);
        assert_eq!(node.bits(1000, &[20, 30]), 6);
        assert_eq!(node.bits(1000, &[20, 31]), 5);
    }

    #[test]
    fn a_named_user_has_its_own_entry_and_the_mask_limits_it() {
        let entries = |mask| {
            [
                (OWNER, 6, u32::MAX),
                (USER, 6, 1000),
                (OWNING_GROUP, 0, u32::MAX),
                (GROUP, 4, 30),
                (MASK, mask, u32::MAX),
                (OTHER, 0, u32::MAX),
            ]
        };
        let node = permissions(0o660, &entries(6));
        assert_eq!(node.bits(1000, &[20]), 6);
        assert_eq!(node.bits(1001, &[30]), 4);
        // The group bits of the mode are the mask; the owning group itself has nothing.
        assert_eq!(node.bits(1001, &[20]), 0);
        assert_eq!(permissions(0o640, &entries(4)).bits(1000, &[]), 4);
        assert_eq!(permissions(0o600, &entries(0)).bits(1000, &[]), 0);
    }

    #[test]
    fn a_malformed_list_has_no_entries() {
        let good = attribute(&[(USER, 6, 1000)]);
        assert_eq!(parse_list(&good).len(), 1);
        for length in (0..good.len()).filter(|length| *length != 4) {
            assert!(parse_list(&good[..length]).is_empty(), "{length}");
        }
        let mut newer = good;
        newer[0] = 3;
        assert!(parse_list(&newer).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_and_no_bits_are_made_up(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            mode in 0u32..0o1000,
            uid in 0u32..3,
        ) {
            let node = Permissions { mode, uid: 0, gid: 1, list: parse_list(&bytes) };
            prop_assert!(node.bits(uid, &[1, 2]) <= 7);
        }
    }
}
