//! The id maps of a user namespace: how its user and group ids map to those of the host, or of the
//! namespace around it.

/// One line of a map (user_namespaces(7)): `length` ids from `inside` on map to the host's ids from
/// `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRange {
    inside: u32,
    outside: u32,
    length: u32,
}

/// How a container's ids map to the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

impl IdMaps {
    /// Parses the texts of `/proc/PID/uid_map` and `gid_map`, as read by a process of the host. The
    /// error is the line that does not have three numbers.
    pub fn parse(uid_map: &str, gid_map: &str) -> Result<Self, String> {
        Ok(Self {
            uids: parse_map(uid_map)?,
            gids: parse_map(gid_map)?,
        })
    }

    /// The host's user id for a user of the container; `None` if it is not mapped.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        to_host(&self.uids, uid)
    }

    /// The container's user id for a user of the host; `None` if no user of the container maps to
    /// it.
    pub fn container_uid(&self, uid: u32) -> Option<u32> {
        to_container(&self.uids, uid)
    }

    /// The container's group id for a group of the host; `None` if no group of the container maps
    /// to it.
    pub fn container_gid(&self, gid: u32) -> Option<u32> {
        to_container(&self.gids, gid)
    }

    /// Whether each user keeps its id, as in the initial user namespace (user_namespaces(7)).
    pub fn is_initial(&self) -> bool {
        let all = IdRange {
            inside: 0,
            outside: 0,
            length: u32::MAX,
        };
        self.uids == [all]
    }

    /// The host's group id for a group of the container; `None` if it is not mapped.
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        to_host(&self.gids, gid)
    }
}

fn parse_map(text: &str) -> Result<Vec<IdRange>, String> {
    text.lines()
        .map(|line| parse_range(line).ok_or_else(|| line.to_owned()))
        .collect()
}

fn parse_range(line: &str) -> Option<IdRange> {
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    let range = IdRange {
        inside: numbers.next()??,
        outside: numbers.next()??,
        length: numbers.next()??,
    };
    numbers.next().is_none().then_some(range)
}

fn to_container(map: &[IdRange], id: u32) -> Option<u32> {
    map.iter().find_map(|range| {
        let offset = id
            .checked_sub(range.outside)
            .filter(|offset| *offset < range.length)?;
        range.inside.checked_add(offset)
    })
}

fn to_host(map: &[IdRange], id: u32) -> Option<u32> {
    map.iter().find_map(|range| {
        let offset = id
            .checked_sub(range.inside)
            .filter(|offset| *offset < range.length)?;
        range.outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_map_by_range_and_other_ids_do_not_map() {
        let map = "         0     100000      65536\n     70000          5          1\n";
        let maps = IdMaps::parse(map, "0 0 4294967295\n").unwrap();
        assert_eq!(maps.host_uid(0), Some(100_000));
        assert_eq!(maps.host_uid(65_535), Some(165_535));
        assert_eq!(maps.host_uid(65_536), None);
        assert_eq!(maps.host_uid(70_000), Some(5));
        assert_eq!(maps.host_gid(4_294_967_294), Some(4_294_967_294));
        assert_eq!(maps.host_gid(u32::MAX), None);
        assert_eq!(maps.container_uid(100_001), Some(1));
        assert_eq!(maps.container_uid(5), Some(70_000));
        assert_eq!(maps.container_uid(6), None);
        let maps = IdMaps::parse("", map).unwrap();
        assert_eq!(maps.container_gid(100_002), Some(2));
        assert_eq!(maps.container_gid(5), Some(70_000));
        assert_eq!(maps.container_gid(6), None);
    }

    #[test]
    fn a_line_that_is_not_three_numbers_is_named() {
        assert_eq!(IdMaps::parse("0 1\n", ""), Err("0 1".to_owned()));
        assert_eq!(IdMaps::parse("", "0 1 2 3\n"), Err("0 1 2 3".to_owned()));
        assert_eq!(IdMaps::parse("0 -1 2\n", ""), Err("0 -1 2".to_owned()));
    }
}
