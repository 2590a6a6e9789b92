//! Which paths a request may contain.
//!
//! Examines only the text of a path, not whether it exists.

use std::path::PathBuf;

/// The longest path that system calls accept: PATH_MAX without its terminating NUL
/// (linux/limits.h).
const MAX_PATH: usize = 4095;

/// The error in a path. The message continues the name of the option or selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("must be absolute, beginning with \"/\"")]
    Relative,
    /// A device node outside /dev.
    #[error("must be absolute and below /dev, such as /dev/ttyUSB0")]
    NotBelowDev,
    /// A sysfs path outside /sys.
    #[error("must be absolute and below /sys, such as /sys/bus/usb/devices/1-1.4")]
    NotBelowSys,
    #[error("must not end in \"/\"")]
    TrailingSlash,
    /// Empty components, or components that lead elsewhere.
    #[error("must not have empty, \".\" or \"..\" components")]
    Components,
    #[error("must not be /dev itself, but a place for a link, such as /dev/sensor")]
    DevItself,
    /// A NUL would end the path; a line feed would end the line of a log and forge the next one.
    #[error("must not have control characters")]
    Control,
    /// It is longer than PATH_MAX.
    #[error("must not be longer than {MAX_PATH} bytes")]
    TooLong,
}

/// Parses the path of a node: below `/dev`, without `.`, `..`, `//` or a trailing slash.
pub(in crate::model) fn node_path(text: &str) -> Result<PathBuf, PathFault> {
    let below = text.strip_prefix("/dev/").ok_or(PathFault::NotBelowDev)?;
    if below.is_empty() {
        return Err(PathFault::NotBelowDev);
    }
    check_components(below)?;
    check_text(text)
}

/// Parses a directory for nodes, which ends in `/`: `/dev/` or below. The result has no `/` at the
/// end.
pub(in crate::model) fn node_directory(text: &str) -> Result<PathBuf, PathFault> {
    match text.strip_suffix('/') {
        Some("/dev") => Ok(PathBuf::from("/dev")),
        Some(directory) if directory.ends_with('/') => Err(PathFault::Components),
        Some(directory) => node_path(directory),
        None => Err(PathFault::NotBelowDev),
    }
}

/// Parses the path of a link: absolute, anywhere, without `.`, `..`, `//` or a trailing slash.
pub(in crate::model) fn link_path(text: &str) -> Result<PathBuf, PathFault> {
    let below = text.strip_prefix('/').ok_or(PathFault::Relative)?;
    if below == "dev" {
        return Err(PathFault::DevItself);
    }
    check_components(below)?;
    check_text(text)
}

/// Parses a path below `/sys`; trailing slashes are removed.
///
/// `..` is allowed, because it is useful after following links (`/sys/class/tty/ttyS0/device/..`):
/// code that follows the path must stay below `/sys`.
pub(in crate::model) fn sys_path(text: &str) -> Result<PathBuf, PathFault> {
    let text = text.trim_end_matches('/');
    if !text.starts_with("/sys/") {
        return Err(PathFault::NotBelowSys);
    }
    check_text(text)
}

/// Removes `.`, `..`, and `//` from an absolute path without looking at the file system; `..` at
/// the root stays at the root.
pub(in crate::model) fn normalised(text: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}

fn check_components(below: &str) -> Result<(), PathFault> {
    if below.ends_with('/') {
        return Err(PathFault::TrailingSlash);
    }
    if below
        .split('/')
        .any(|component| matches!(component, "" | "." | ".."))
    {
        return Err(PathFault::Components);
    }
    Ok(())
}

fn check_text(text: &str) -> Result<PathBuf, PathFault> {
    if text.contains(char::is_control) {
        return Err(PathFault::Control);
    }
    if text.len() > MAX_PATH {
        return Err(PathFault::TooLong);
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_node_is_below_dev_and_normalised() {
        assert_eq!(
            node_path("/dev/bus/usb/001/002"),
            Ok(PathBuf::from("/dev/bus/usb/001/002"))
        );
        for (text, fault) in [
            ("dev/x", PathFault::NotBelowDev),
            ("/dev", PathFault::NotBelowDev),
            ("/dev/", PathFault::NotBelowDev),
            ("/device/x", PathFault::NotBelowDev),
            ("/dev/x/", PathFault::TrailingSlash),
            ("/dev/../etc/passwd", PathFault::Components),
            ("/dev/./x", PathFault::Components),
            ("/dev//x", PathFault::Components),
            ("/dev/a\0b", PathFault::Control),
            ("/dev/a\nb", PathFault::Control),
            ("/dev/\u{9b}a", PathFault::Control),
            (&format!("/dev/{}", "x".repeat(MAX_PATH - 4)), PathFault::TooLong),
        ] {
            assert_eq!(node_path(text), Err(fault), "{text:?}");
        }
        assert!(node_path(&format!("/dev/{}", "x".repeat(MAX_PATH - 5))).is_ok());
    }

    #[test]
    fn a_directory_for_nodes_is_dev_or_below() {
        for (text, expected) in [
            ("/dev/", Ok("/dev")),
            ("/dev/dvb/adapter0/", Ok("/dev/dvb/adapter0")),
            ("/dev//", Err(PathFault::Components)),
            ("/dev/x//", Err(PathFault::Components)),
            ("/dev/../", Err(PathFault::Components)),
            ("/dev/a/../b/", Err(PathFault::Components)),
            ("/dev/a\n/", Err(PathFault::Control)),
            ("/", Err(PathFault::NotBelowDev)),
            ("/run/x/", Err(PathFault::NotBelowDev)),
            ("x/", Err(PathFault::NotBelowDev)),
            ("/dev/x", Err(PathFault::NotBelowDev)),
        ] {
            assert_eq!(node_directory(text), expected.map(PathBuf::from), "{text:?}");
        }
    }

    #[test]
    fn a_link_may_be_anywhere_but_at_dev_itself() {
        assert_eq!(link_path("/run/gps"), Ok(PathBuf::from("/run/gps")));
        for (text, fault) in [
            ("gps", PathFault::Relative),
            ("/", PathFault::Components),
            ("/dev", PathFault::DevItself),
            ("/dev/", PathFault::TrailingSlash),
            ("/dev/../gps", PathFault::Components),
            ("//gps", PathFault::Components),
        ] {
            assert_eq!(link_path(text), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn a_sysfs_path_loses_trailing_slashes_and_keeps_its_dots() {
        assert_eq!(
            sys_path("/sys/class/tty/ttyS0/device/../"),
            Ok(PathBuf::from("/sys/class/tty/ttyS0/device/.."))
        );
        assert_eq!(sys_path("/sys/"), Err(PathFault::NotBelowSys));
        assert_eq!(sys_path("/system/x"), Err(PathFault::NotBelowSys));
        assert_eq!(sys_path("/sys/a\0"), Err(PathFault::Control));
    }

    #[test]
    fn dots_are_removed_textually() {
        assert_eq!(normalised("/dev/./snd//../ttyS0/"), "/dev/ttyS0");
        assert_eq!(normalised("/../.."), "/");
    }
}
