//! What of a CDI device a running container can still have: its device nodes, as requests for them.
//!
//! Everything else that a spec says (mounts, environment, hooks …) an engine applies before a container starts. Must
//! not know how a request is carried out.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::document::{DeviceNode, Edits};
use crate::model::device::Access;
use crate::model::request::Request;
use crate::model::selector::Selector;

/// The mode of a node for which a spec has none, as runc and crun make it.
const DEFAULT_MODE: u32 = 0o666;

/// What a running container can have of edits, and what it can't.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// The nodes.
    pub requests: Vec<Request>,
    /// Nodes that can't be had, each with the reason.
    pub left_out: Vec<String>,
}

/// The nodes of these edits. Where the host's device is absent it is waited for.
pub fn live(edits: &Edits) -> Live {
    let mut live = Live::default();
    for node in &edits.device_nodes {
        match request(node) {
            Ok(request) => live.requests.push(request),
            Err(reason) => live.left_out.push(format!("node {}: {reason}", node.path)),
        }
    }
    live
}

fn request(node: &DeviceNode) -> Result<Request, String> {
    let host = host_node(node)?;
    let mut request: Request = selector(&host)
        .to_string()
        .parse()
        .map_err(|error| format!("{error}"))?;
    let options = &mut request.options;
    options.path = Some(PathBuf::from(&node.path));
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
    // The grammar judges what a spec may say and a request may not, such as a path outside of /dev.
    request.to_string().parse().map_err(|error| format!("{error}"))
}

/// The host's node of the device: of the number, where the spec has one; else at the host's path.
fn host_node(node: &DeviceNode) -> Result<PathBuf, String> {
    let path = PathBuf::from(node.host_path.as_deref().unwrap_or(&node.path));
    let class = match node.kind.as_deref() {
        Some("p") => return Err("a FIFO is no device".to_owned()),
        Some("b") => "block",
        _ => "char",
    };
    let Some(major) = node.major.filter(|major| *major != 0) else {
        return Ok(path);
    };
    let minor = node.minor.unwrap_or(0);
    let uevent = fs::read_to_string(format!("/sys/dev/{class}/{major}:{minor}/uevent"));
    let name = uevent
        .iter()
        .flat_map(|text| text.lines())
        .find_map(|line| line.strip_prefix("DEVNAME="));
    if let Some(name) = name {
        return Ok(Path::new("/dev").join(name));
    }
    // A device that sysfs does not know may have a node all the same.
    match fs::metadata(&path) {
        Ok(there) if there.rdev() == nix::sys::stat::makedev(major as u64, minor as u64) => Ok(path),
        _ => Err(format!(
            "it is to be {class} device {major}:{minor}, which is not here now"
        )),
    }
}

/// By `devnode:` what udev knows, by `node:` what it does not.
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

    fn told(json: &str) -> (Vec<String>, Vec<String>) {
        let live = live(&node(json));
        (
            live.requests.iter().map(ToString::to_string).collect(),
            live.left_out,
        )
    }

    #[test]
    fn a_node_becomes_a_request_with_its_path_permissions_mode_and_owner() {
        let json = r#"{"path":"/dev/x","hostPath":"/dev/absent0","permissions":"rw","fileMode":416,"uid":3,"gid":4}"#;
        let expected = "devnode:/dev/absent0;access=rw;mode=0640;uid=3;gid=4;path=/dev/x";
        assert_eq!(told(json), (vec![expected.to_owned()], vec![]));
    }

    #[test]
    fn what_is_not_said_is_as_runtimes_have_it() {
        let (requests, _) = told(r#"{"path":"/dev/absent0"}"#);
        assert_eq!(requests, ["devnode:/dev/absent0;mode=0666;path=/dev/absent0"]);
    }

    #[test]
    fn a_number_finds_the_hosts_node() {
        let (requests, _) = told(r#"{"path":"/dev/nothing","type":"c","major":1,"minor":3}"#);
        assert_eq!(requests, ["devnode:/dev/null;mode=0666;path=/dev/nothing"]);
    }

    #[test]
    fn what_is_no_device_or_not_below_dev_is_left_out_with_the_reason() {
        let (requests, left_out) = told(r#"{"path":"/dev/p","type":"p"}, {"path":"/etc/x"}"#);
        assert_eq!(requests, [""; 0]);
        assert_eq!(left_out[0], "node /dev/p: a FIFO is no device");
        assert!(left_out[1].starts_with("node /etc/x: "), "{left_out:?}");
        let (_, left_out) = told(r#"{"path":"/dev/x","type":"c","major":4095,"minor":77}"#);
        assert!(left_out[0].contains("char device 4095:77"), "{left_out:?}");
    }
}
