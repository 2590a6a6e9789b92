//! What a container gets: CDI devices and their specs, or nodes.

use std::fs;

use oci_hotplug::kubernetes::kubelet::api;
use serde_json::Value;

use crate::device_plugin::{Node, exists};
use crate::kubelet::Behaviour;

const SLOTS: &str = "resources: [{name: example.com/serial, requests: ['usb:ffff:fffe'], count: 3}]";

fn ids(list: &[api::Device]) -> Vec<String> {
    list.iter().map(|device| device.id.clone()).collect()
}

#[tokio::test]
async fn hostdevs_devices_come_with_their_permissions() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["-devs", "/dev/null:rw"]);
    let mut registered = kubelet.registered("hostdev.k8s.io/dev_null").await;
    registered.list().await;
    assert!(
        !registered.options.pre_start_required,
        "there is nothing to do then"
    );
    let answer = registered.allocate(&["/dev/null".into()]).await.unwrap();
    let spec = api::DeviceSpec {
        container_path: "/dev/null".into(),
        host_path: "/dev/null".into(),
        permissions: "rw".into(),
    };
    assert_eq!(answer.devices, [spec]);
    assert!(answer.cdi_devices.is_empty());
}

#[tokio::test]
async fn several_of_smarters_units_can_be_allocated_at_once_and_each_device_is_given_once() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("conf.yaml", "- devicematch: ^null$\n  nummaxdevices: 20\n");
    let _plugin = node.plugin(&["--smarter-config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("smarter-devices/null").await;
    let list = registered.list().await;
    assert_eq!(list.len(), 20);
    let answer = registered.allocate(&ids(&list)[3..7]).await.unwrap();
    assert_eq!(answer.devices.len(), 1);
    assert_eq!(answer.devices[0].permissions, "rw");
}

#[tokio::test]
async fn a_unit_that_does_not_exist_is_refused_by_name() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    let mut registered = kubelet.registered("hostdev.k8s.io/dev_null").await;
    registered.list().await;
    let error = registered
        .allocate(&["/dev/full".into()])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("\"/dev/full\"") && error.contains("NotFound"),
        "{error}"
    );
}

#[tokio::test]
async fn slots_are_healthy_without_a_device_and_open_by_a_cdi_device_with_nothing_but_hooks() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", SLOTS);
    let _plugin = node.plugin(&["--config", config.to_str().unwrap(), "--hook-dir", "/opt/hooks"]);
    let mut registered = kubelet.registered("example.com/serial").await;
    assert_eq!(registered.specs.len(), 1, "written before kubelet heard of it");
    let list = registered.list().await;
    assert_eq!(list.len(), 3);
    assert!(list.iter().all(|device| device.health == "Healthy"));
    let answer = registered.allocate(&ids(&list)[..2]).await.unwrap();
    assert!(answer.devices.is_empty(), "the watcher makes the nodes");
    let names: Vec<&str> = answer
        .cdi_devices
        .iter()
        .map(|device| device.name.as_str())
        .collect();
    let [name] = names[..] else {
        panic!("one watcher serves both slots: {names:?}")
    };

    let spec = fs::read_to_string(node.cdi_dir().join(&registered.specs[0])).unwrap();
    let spec: Value = serde_json::from_str(&spec).unwrap();
    let device = &spec["devices"][0];
    assert_eq!(
        name,
        format!(
            "{}={}",
            spec["kind"].as_str().unwrap(),
            device["name"].as_str().unwrap()
        )
    );
    let edits = device["containerEdits"].as_object().unwrap();
    assert_eq!(edits.keys().collect::<Vec<_>>(), ["hooks"]);
    assert_eq!(edits["hooks"][0]["path"], "/opt/hooks/oci-hotplug-prestart");
    assert_eq!(edits["hooks"][0]["args"][2], "usb:ffff:fffe");
}

#[tokio::test]
async fn the_cdi_devices_name_is_the_same_after_a_restart_of_the_plugin() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", SLOTS);
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut plugin = node.plugin(&["--config", config.to_str().unwrap()]);
        let mut registered = kubelet.registered("example.com/serial").await;
        let list = registered.list().await;
        names.push(registered.allocate(&ids(&list)[..1]).await.unwrap().cdi_devices);
        plugin.terminate().await;
    }
    assert_eq!(names[0], names[1]);
    assert_eq!(fs::read_dir(node.cdi_dir()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_removed_spec_is_written_again_before_the_container_starts() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", SLOTS);
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("example.com/serial").await;
    let list = registered.list().await;
    assert!(registered.options.pre_start_required);
    let spec = node.cdi_dir().join(&registered.specs[0]);
    let before = fs::read(&spec).unwrap();
    for _ in 0..2 {
        fs::remove_file(&spec).unwrap();
        registered.pre_start(&ids(&list)[..1]).await.unwrap();
        assert_eq!(fs::read(&spec).unwrap(), before);
        registered.pre_start(&ids(&list)[..1]).await.unwrap();
        assert_eq!(fs::read(&spec).unwrap(), before);
    }
}

#[tokio::test]
async fn a_spec_of_another_program_is_not_overwritten() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", SLOTS);
    let mut plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let registered = kubelet.registered("example.com/serial").await;
    let spec = node.cdi_dir().join(&registered.specs[0]);
    plugin.terminate().await;
    fs::write(&spec, "{}").unwrap();
    let plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("example.com/serial").await;
    let list = registered.list().await;
    let error = registered
        .allocate(&ids(&list)[..1])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("oci-hotplug did not write it"), "{error}");
    assert_eq!(fs::read_to_string(&spec).unwrap(), "{}");
    plugin
        .logs("containers with it cannot start until this is fixed")
        .await;
}

#[tokio::test]
async fn without_cdi_a_slot_gives_the_present_nodes_and_the_log_says_that_hotplug_is_missing() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        "resources: [{name: nothing, requests: ['syspath:/sys/devices/virtual/mem/null'], permissions: r, path: /dev/nothing}]",
    );
    let containerd = node.write(
        "containerd.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = false\n",
    );
    let plugin = node.plugin(&[
        "--config",
        config.to_str().unwrap(),
        "--cdi",
        "auto",
        "--containerd-config",
        containerd.to_str().unwrap(),
    ]);
    let mut registered = kubelet.registered("oci-hotplug.dev/nothing").await;
    let list = registered.list().await;
    assert!(!exists(&node.cdi_dir()));
    assert!(!registered.options.pre_start_required);
    let answer = registered.allocate(&ids(&list)).await.unwrap();
    assert!(answer.cdi_devices.is_empty());
    let spec = api::DeviceSpec {
        container_path: "/dev/nothing".into(),
        host_path: "/dev/null".into(),
        permissions: "r".into(),
    };
    assert_eq!(answer.devices, [spec]);
    plugin.logs("no hotplug (switch CDI on").await;
}

#[tokio::test]
async fn a_present_device_is_a_unit_and_an_absent_one_is_none() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        "resources:\n- {name: a.b/here, requests: ['syspath:/sys/devices/virtual/mem/null'], mode: present}\n\
         - {name: a.b/away, requests: ['syspath:/sys/devices/virtual/mem/nothing'], mode: present}\n\
         - {name: a.b/static, requests: ['syspath:/sys/devices/virtual/mem/null'], mode: static}\n",
    );
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut here = kubelet.registered("a.b/here").await;
    let list = here.list().await;
    let answer = here.allocate(&ids(&list)).await.unwrap();
    assert_eq!(
        (list.len(), answer.cdi_devices.len(), answer.devices.len()),
        (1, 1, 0)
    );
    assert_eq!(kubelet.registered("a.b/away").await.list().await.len(), 0);
    let mut fixed = kubelet.registered("a.b/static").await;
    let list = fixed.list().await;
    let answer = fixed.allocate(&ids(&list)).await.unwrap();
    assert_eq!(
        (list.len(), answer.cdi_devices.len(), answer.devices.len()),
        (1, 0, 1)
    );
    assert_eq!(answer.devices[0].permissions, "rwm");
}

#[tokio::test]
async fn a_device_whose_path_hostdevs_list_names_too_is_one_unit_of_ours() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        "resources: [{name: a.b/one, requests: ['devnode:/dev/null'], mode: present}]",
    );
    let _plugin = node.plugin(&["--devs=/dev/null:r", "--config", config.to_str().unwrap()]);
    assert_eq!(kubelet.registered("a.b/one").await.list().await.len(), 1);
    assert_eq!(
        kubelet
            .registered("hostdev.k8s.io/dev_null")
            .await
            .list()
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn groups_of_generic_device_plugin_give_the_same_devices_as_there() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        r#"devices:
- name: pair
  groups:
  - count: 2
    paths: [{path: "/dev/nul*"}, {path: /dev/zero, mountPath: /dev/nought, permissions: r}]
  - paths: [{path: /etc/hostname, type: Mount, readOnly: true}]
"#,
    );
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("devic.es/pair").await;
    let list = registered.list().await;
    assert_eq!(list.len(), 3);
    let answer = registered.allocate(&ids(&list)).await.unwrap();
    let shown: Vec<String> = answer
        .devices
        .iter()
        .map(|spec| format!("{} {} {}", spec.host_path, spec.container_path, spec.permissions))
        .collect();
    assert_eq!(shown, ["/dev/zero /dev/nought r", "/dev/null /dev/null rwm"]);
    assert_eq!(answer.mounts.len(), 1);
    assert!(answer.mounts[0].read_only);
}

#[tokio::test]
async fn a_preferred_allocation_has_the_required_units_and_the_requested_size() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", SLOTS);
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("example.com/serial").await;
    let ids = ids(&registered.list().await);
    assert!(registered.options.get_preferred_allocation_available);
    let asked = api::PreferredAllocationRequest {
        container_requests: vec![api::ContainerPreferredAllocationRequest {
            available_device_ids: ids.clone(),
            must_include_device_ids: vec![ids[2].clone()],
            allocation_size: 2,
        }],
    };
    let answer: api::PreferredAllocationResponse = registered
        .client
        .unary(api::GET_PREFERRED_ALLOCATION, asked)
        .await
        .unwrap();
    let chosen = &answer.container_responses[0].device_ids;
    assert_eq!(*chosen, [ids[2].clone(), ids[0].clone()]);
}
