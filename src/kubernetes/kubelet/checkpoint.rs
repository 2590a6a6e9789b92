//! kubelet's record of the devices of each pod (its devicemanager/checkpoint).
//!
//! The only source of a pod's uid that needs no access to the API server.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// Its name in kubelet's directory of device plugins.
const FILE: &str = "kubelet_internal_checkpoint";

/// The uid of the pod that has a unit, if kubelet's record exists and contains it.
pub(crate) fn pod_uid(kubelet_dir: &Path, resource: &str, unit: &str, container: &str) -> Option<String> {
    let text = std::fs::read_to_string(kubelet_dir.join(FILE)).ok()?;
    uid(&text, resource, unit, container)
}

/// The uid of the pod that has a unit in a record; `None` if no pod has it, or more than one.
pub fn uid(checkpoint: &str, resource: &str, unit: &str, container: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Checkpoint {
        #[serde(rename = "Data")]
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "PodDeviceEntries")]
        entries: Option<Vec<Assignment>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Assignment {
        #[serde(rename = "PodUID")]
        pod_uid: String,
        container_name: String,
        resource_name: String,
        #[serde(rename = "DeviceIDs")]
        devices: BTreeMap<String, Vec<String>>,
    }
    let checkpoint: Checkpoint = serde_json::from_str(checkpoint).ok()?;
    let is_of_unit = |assignment: &&Assignment| {
        assignment.resource_name == resource
            && assignment.container_name == container
            && assignment.devices.values().flatten().any(|id| *id == unit)
    };
    let entries = checkpoint.data.entries?;
    let mut uids = entries
        .iter()
        .filter(is_of_unit)
        .map(|assignment| &assignment.pod_uid);
    // If there are two pods, one has ended: no uid is better than the wrong one.
    let uid = uids.next()?;
    uids.all(|other| other == uid).then(|| uid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as written by kubelet 1.36.
    const TEXT: &str = r#"{"Data":{"PodDeviceEntries":[
        {"PodUID":"11-22","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"-1":["a","b"]},"AllocResp":"KgA="},
        {"PodUID":"33-44","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"0":["c"],"1":["d"]},"AllocResp":""},
        {"PodUID":"55-66","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"0":["d"]},"AllocResp":""}],
        "RegisteredDevices":{"example.com/serial":["a","b","c","d"]}},"Checksum":1}"#;

    #[test]
    fn the_checkpoint_has_a_pods_uid_if_only_one_pod_has_the_unit() {
        let of = |unit: &str, container: &str| uid(TEXT, "example.com/serial", unit, container);
        assert_eq!(of("b", "app").as_deref(), Some("11-22"));
        assert_eq!(of("c", "app").as_deref(), Some("33-44"));
        assert_eq!(of("d", "app"), None);
        assert_eq!(of("b", "other"), None);
        assert_eq!(uid("{}", "example.com/serial", "b", "app"), None);
        let empty = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}"#;
        assert_eq!(uid(empty, "example.com/serial", "b", "app"), None);
    }
}
