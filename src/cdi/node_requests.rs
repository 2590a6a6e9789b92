//! Requests for the device nodes of a CDI device: the part of it that a running container can still
//! get.
//!
//! Engines apply the rest of a spec (mounts, environment, hooks …) before a container starts. Must
//! not know how requests are carried out.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::document::{DeviceNode, Edits};
use crate::model::device::Access;
use crate::model::request::selector::Selector;
use crate::model::request::{NodePath, Request};

/// The mode that runc and crun give a node without a mode in the spec.
const DEFAULT_MODE: u32 = 0o666;

/// The nodes of edits, divided into those that a running container can get and those that it
/// cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeRequests {
    pub requests: Vec<Request>,
    /// The other nodes, each with the reason.
    pub not_applied: Vec<String>,
}

/// Requests for the nodes of these edits. The host's devices may be absent; a request then waits
/// for its device.
pub(crate) fn node_requests(edits: &Edits) -> NodeRequests {
    let mut all = NodeRequests::default();
    for node in &edits.device_nodes {
        match request(node) {
            Ok(request) => all.requests.push(request),
            Err(reason) => all.not_applied.push(format!("node {}: {reason}", node.path)),
        }
    }
    all
}

fn request(node: &DeviceNode) -> Result<Request, String> {
    let host = host_node(node)?;
    let mut request: Request = selector(&host)
        .to_string()
        .parse()
        .map_err(|error| format!("{error}"))?;
    let options = &mut request.options;
    options.path = Some(NodePath::Node(PathBuf::from(&node.path)));
    options.access = match node.permissions.as_deref() {
        None | Some("") => Access::ALL,
        Some(letters) => letters.parse().map_err(|error| format!("{error}"))?,
    };
    options.mode = node
        .file_mode
        .map(|mode| mode & 0o777)
        .filter(|mode| *mode != 0)
        .or(Some(DEFAULT_MODE));
    options.uid = node.uid;
    options.gid = node.gid;
    // Parsing rejects paths that a spec may contain and a request may not, such as one outside
    // /dev.
    request.to_string().parse().map_err(|error| format!("{error}"))
}

/// The host's node of the device: by number if the spec has one, otherwise by the host's path. If
/// that path is below another root (`/run/nvidia/driver/dev/nvidia0`), by the number of the node at
/// that path.
fn host_node(node: &DeviceNode) -> Result<PathBuf, String> {
    let path = PathBuf::from(match node.host_path.as_deref() {
        None | Some("") => &node.path,
        Some(path) => path,
    });
    let is_block = match node.kind.as_deref() {
        Some("p") => return Err("a FIFO is not a device".to_owned()),
        kind => kind == Some("b"),
    };
    if let Some(major) = node.major.filter(|major| *major != 0) {
        let number = number(major, node.minor.unwrap_or(0)).ok_or("a device number must not be negative")?;
        // A device that sysfs does not list may still have a node.
        let is_here = || number_at(&path) == Some((is_block, number));
        return node_of(is_block, number)
            .or_else(|| is_here().then_some(path.clone()))
            .ok_or_else(|| format!("{} does not exist now", described(is_block, number)));
    }
    if path.starts_with("/dev") || path.components().any(|part| part == Component::ParentDir) {
        return Ok(path);
    }
    match number_at(&path) {
        Some((is_block, number)) => node_in_dev(&path, is_block, number).ok_or_else(|| {
            format!(
                "{} is {}, which has no node in the host's /dev (create one with mknod, or let the driver create it)",
                path.display(),
                described(is_block, number)
            )
        }),
        None => Err(format!(
            "there is no device node at {} now (start the driver's container first)",
            path.display()
        )),
    }
}

/// The node with this number in the host's /dev, under the name from sysfs or from the other root.
fn node_in_dev(path: &Path, is_block: bool, number: (u32, u32)) -> Option<PathBuf> {
    let same_name = || {
        let text = path.to_str()?;
        let (_, below) = text.split_once("/dev/")?;
        let here = Path::new("/dev").join(below);
        (number_at(&here) == Some((is_block, number))).then_some(here)
    };
    node_of(is_block, number).or_else(same_name)
}

fn number(major: i64, minor: i64) -> Option<(u32, u32)> {
    Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
}

fn class(is_block: bool) -> &'static str {
    if is_block { "block" } else { "char" }
}

fn described(is_block: bool, (major, minor): (u32, u32)) -> String {
    format!("{} device {major}:{minor}", class(is_block))
}

/// The node of a device that sysfs lists.
fn node_of(is_block: bool, (major, minor): (u32, u32)) -> Option<PathBuf> {
    let uevent = fs::read_to_string(format!("/sys/dev/{}/{major}:{minor}/uevent", class(is_block))).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

/// The type and number of the node at a path, by lstat(2), which does not open it. Links are not
/// followed, as in the Go library (pkg/cdi/container-edits_unix.go, deviceInfoFromPath).
fn number_at(path: &Path) -> Option<(bool, (u32, u32))> {
    let there = fs::symlink_metadata(path).ok()?;
    let kind = there.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    let part = |number: u64| u32::try_from(number).ok();
    let rdev = there.rdev();
    let number = (
        part(nix::sys::stat::major(rdev))?,
        part(nix::sys::stat::minor(rdev))?,
    );
    Some((kind.is_block_device(), number))
}

/// `devnode:` for nodes that udev knows, `node:` for static nodes.
fn selector(host: &Path) -> Selector {
    let in_sysfs = |there: &fs::Metadata| {
        let kind = there.file_type();
        let class = if kind.is_block_device() { "block" } else { "char" };
        let (major, minor) = (
            nix::sys::stat::major(there.rdev()),
            nix::sys::stat::minor(there.rdev()),
        );
        Path::new(&format!("/sys/dev/{class}/{major}:{minor}")).exists()
    };
    match fs::metadata(host) {
        Ok(there) if !in_sysfs(&there) => Selector::Node(host.to_owned()),
        _ => Selector::DevNode(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: &str) -> Edits {
        serde_json::from_str(&format!(r#"{{"deviceNodes":[{json}]}}"#)).unwrap()
    }

    fn requests_of(json: &str) -> (Vec<String>, Vec<String>) {
        let all = node_requests(&node(json));
        (
            all.requests.iter().map(ToString::to_string).collect(),
            all.not_applied,
        )
    }

    #[test]
    fn a_node_becomes_a_request_with_its_path_permissions_mode_and_owner() {
        let json = r#"{"path":"/dev/x","hostPath":"/dev/absent0","permissions":"rw","fileMode":416,"uid":3,"gid":4}"#;
        let expected = "devnode:/dev/absent0;access=rw;mode=0640;uid=3;gid=4;path=/dev/x";
        assert_eq!(requests_of(json), (vec![expected.to_owned()], vec![]));
    }

    #[test]
    fn absent_values_are_those_of_the_runtimes() {
        let (requests, _) = requests_of(r#"{"path":"/dev/absent0"}"#);
        assert_eq!(requests, ["devnode:/dev/absent0;mode=0666;path=/dev/absent0"]);
    }

    #[test]
    fn a_number_finds_the_hosts_node() {
        let (requests, _) = requests_of(r#"{"path":"/dev/nothing","type":"c","major":1,"minor":3}"#);
        assert_eq!(requests, ["devnode:/dev/null;mode=0666;path=/dev/nothing"]);
    }

    /// Case README 18. Only root can create a node in another root, so other users skip this part.
    #[test]
    fn a_host_path_below_another_root_finds_the_device_by_the_number_of_its_node() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("driver/dev");
        fs::create_dir_all(&root).unwrap();
        let json = |name: &str| {
            let host = root.join(name);
            format!(r#"{{"path":"/dev/nothing","hostPath":{host:?}}}"#)
        };
        let (requests, not_applied) = requests_of(&json("absent"));
        assert_eq!(requests, [""; 0]);
        assert!(
            not_applied[0].contains("there is no device node at"),
            "{not_applied:?}"
        );
        if nix::unistd::geteuid().is_root() {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            let node = |name: &str, major, minor| {
                mknod(
                    &root.join(name),
                    SFlag::S_IFCHR,
                    Mode::from_bits_truncate(0o600),
                    makedev(major, minor),
                )
            };
            // In a user namespace, even root cannot create device nodes.
            if node("other-name", 1, 3).is_ok() && node("unknown", 4095, 77).is_ok() {
                let (requests, not_applied) = requests_of(&json("other-name"));
                assert_eq!(
                    (requests, not_applied),
                    (
                        vec!["devnode:/dev/null;mode=0666;path=/dev/nothing".to_owned()],
                        vec![]
                    )
                );
                let (_, not_applied) = requests_of(&json("unknown"));
                assert!(
                    not_applied[0].contains("char device 4095:77, which has no node in the host's /dev"),
                    "{not_applied:?}"
                );
            }
        }
    }

    #[test]
    fn a_slash_at_the_end_of_a_nodes_path_does_not_make_it_a_directory() {
        let (requests, _) = requests_of(r#"{"path":"/dev/x/","hostPath":"/dev/y"}"#);
        assert_eq!(requests, ["devnode:/dev/y;mode=0666;path=/dev/x"]);
    }

    #[test]
    fn a_negative_device_number_affects_only_its_node() {
        let (requests, not_applied) =
            requests_of(r#"{"path":"/dev/x","type":"c","major":-1}, {"path":"/dev/absent0"}"#);
        assert_eq!(requests.len(), 1);
        assert_eq!(not_applied, ["node /dev/x: a device number must not be negative"]);
    }

    #[test]
    fn a_file_that_is_not_a_device_or_not_below_dev_is_not_applied_for_a_reason_that_is_given() {
        let (requests, not_applied) = requests_of(r#"{"path":"/dev/p","type":"p"}, {"path":"/etc/x"}"#);
        assert_eq!(requests, [""; 0]);
        assert_eq!(not_applied[0], "node /dev/p: a FIFO is not a device");
        assert!(not_applied[1].starts_with("node /etc/x: "), "{not_applied:?}");
        let (_, not_applied) = requests_of(r#"{"path":"/dev/x","type":"c","major":4095,"minor":77}"#);
        assert!(not_applied[0].contains("char device 4095:77"), "{not_applied:?}");
    }
}
