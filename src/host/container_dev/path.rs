//! Paths in a container as text: which paths a node or link can have, and what the text of a link
//! is. Pure: accesses no file system.

use std::path::{Component, Path, PathBuf};

use super::ContainerDevError;

/// Normalises a path and checks it: a node must be below /dev, a link can be anywhere but at /dev
/// itself.
pub(super) fn checked(path: &Path, node: bool) -> Result<PathBuf, ContainerDevError> {
    let plain: PathBuf = path.components().collect();
    let normal = plain
        .components()
        .skip(1)
        .all(|part| matches!(part, Component::Normal(_)));
    let dev = Path::new("/dev");
    let fits = plain.file_name().is_some() && plain != dev && (!node || plain.starts_with(dev));
    let whole = !path.as_os_str().as_encoded_bytes().contains(&0);
    if plain.is_absolute() && normal && fits && whole {
        Ok(plain)
    } else {
        Err(ContainerDevError::Path {
            path: path.to_owned(),
        })
    }
}

/// The text of a link: relative within /dev, so that it is valid wherever that /dev is mounted;
/// absolute elsewhere.
pub(super) fn link_text(link: &Path, target: &Path) -> PathBuf {
    let (Ok(from), Ok(to)) = (link.strip_prefix("/dev"), target.strip_prefix("/dev")) else {
        return target.to_owned();
    };
    let above: Vec<Component> = from.parent().into_iter().flat_map(Path::components).collect();
    let target: Vec<Component> = to.components().collect();
    let last = target.len().saturating_sub(1);
    let shared = above
        .iter()
        .zip(&target[..last])
        .take_while(|(one, other)| one == other)
        .count();
    let up = above[shared..].iter().map(|_| Component::ParentDir);
    up.chain(target[shared..].iter().copied()).collect()
}

/// Whether a link with this text leads to the target, by the text alone.
pub(super) fn leads_to(link: &Path, text: &Path, target: &Path) -> bool {
    let mut path = link.parent().unwrap_or(Path::new("/")).to_owned();
    for part in text.components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    path.components().collect::<PathBuf>() == target
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(link: &str, target: &str) -> String {
        link_text(Path::new(link), Path::new(target))
            .display()
            .to_string()
    }

    #[test]
    fn links_below_dev_are_relative_like_those_of_udev() {
        assert_eq!(text("/dev/serial/by-id/usb-x", "/dev/ttyUSB0"), "../../ttyUSB0");
        assert_eq!(text("/dev/modem", "/dev/ttyUSB0"), "ttyUSB0");
        assert_eq!(text("/dev/bus/x", "/dev/bus/usb/001/002"), "usb/001/002");
        assert_eq!(text("/dev/input/by-id/x", "/dev/input/event0"), "../event0");
        assert_eq!(text("/dev/a/a", "/dev/a"), "../a");
    }

    #[test]
    fn links_elsewhere_are_absolute() {
        assert_eq!(text("/opt/modem", "/dev/ttyUSB0"), "/dev/ttyUSB0");
        assert_eq!(text("/devices", "/dev/ttyUSB0"), "/dev/ttyUSB0");
    }

    #[test]
    fn paths_that_could_leave_the_container_are_refused() {
        for path in [
            "dev/x",
            "/dev",
            "/dev/",
            "/",
            "",
            "/dev/../etc/x",
            "/etc/x",
            "/devx/y",
            "/dev/a\0b",
        ] {
            assert!(checked(Path::new(path), true).is_err(), "{path:?}");
        }
        assert!(checked(Path::new("/etc/x"), false).is_ok());
        assert_eq!(
            checked(Path::new("/dev//a/./b/"), true).unwrap(),
            Path::new("/dev/a/b")
        );
    }

    proptest! {
        #[test]
        fn the_text_of_a_link_leads_from_the_link_to_the_target(
            link in "/(dev|opt)(/[ab]{1,2}){1,4}",
            target in "/dev(/[ab]{1,2}){1,4}",
        ) {
            let (link, target) = (Path::new(&link), Path::new(&target));
            let text = link_text(link, target);
            prop_assert!(leads_to(link, &text, target));
            prop_assert_eq!(text.is_relative(), link.starts_with("/dev"));
        }
    }
}
