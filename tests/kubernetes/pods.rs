//! The units in use, from kubelet's pod-resources: they stay until no pod has had them for the
//! grace period.

use std::fs;

use crate::device_plugin::{Node, Plugin, eventually, exists, get};
use crate::devices::Disk;
use crate::kubelet::{Behaviour, PodResources};
use crate::port::Port;

const BOTH: &str = "resources:\n- {name: example.com/serial, requests: ['usb:ffff:fffe'], count: 2}\n\
                    - {name: example.com/serial-2, requests: ['usb:ffff:fffd']}\n";
const ONE: &str = "resources: [{name: example.com/other, requests: ['usb:ffff:fffc']}]\n";

/// Starts a plugin with pod-resources and a grace period of a second.
fn plugin(node: &Node, more: &[&str]) -> Plugin {
    let socket = node.path("pods.sock");
    let mut all = vec!["--pod-resources", socket.to_str().unwrap(), "--grace-period", "1"];
    all.extend(more);
    node.plugin(&all)
}

fn specs(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.cdi_dir()).unwrap().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_spec_of_a_removed_resource_is_deleted_once_no_pod_has_had_it_for_the_grace_period() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let mut pods = PodResources::start(&node.path("pods.sock"));
    let config = node.write("config.yaml", BOTH);
    let mut first = plugin(&node, &["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("example.com/serial").await;
    let id = registered.list().await[0].id.clone();
    registered.allocate(std::slice::from_ref(&id)).await.unwrap();
    pods.holds("lab", "example.com/serial", &[id]);
    kubelet.registered("example.com/serial-2").await.list().await;
    let foreign = node.cdi_dir().join("vendor.com-class_k8s-serial.json");
    fs::write(
        &foreign,
        "{\"cdiVersion\": \"0.5.0\", \"kind\": \"vendor.com/class\", \"devices\": []}",
    )
    .unwrap();
    assert_eq!(specs(&node).len(), 3);

    // A plugin that is started later knows it as well.
    first.terminate().await;
    node.write("config.yaml", ONE);
    let second = plugin(&node, &["--config", config.to_str().unwrap()]);
    kubelet.registered("example.com/other").await.list().await;
    second.logs("k8s-serial-2-").await;
    let held = |name: &String| name.contains("k8s-serial-") && !name.contains("k8s-serial-2-");
    pods.wait_for_lists(8).await;
    let left = specs(&node);
    assert_eq!(left.len(), 3, "of the foreign, the held and the new: {left:?}");
    assert_eq!(left.iter().filter(|name| held(name)).count(), 1, "{left:?}");

    pods.clear();
    eventually("the spec that was held is gone", || {
        !specs(&node).iter().any(held)
    })
    .await;
    pods.wait_for_lists(8).await;
    let left = specs(&node);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().any(|name| name.contains("k8s-other-")) && exists(&foreign));
}

#[tokio::test]
async fn containers_with_a_removed_resource_can_restart_until_the_last_has_ended() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let mut pods = PodResources::start(&node.path("pods.sock"));
    let config = node.write("config.yaml", BOTH);
    let plugin = plugin(&node, &["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("example.com/serial").await;
    let list = registered.list().await;
    assert_eq!(list.len(), 2);
    let held = std::slice::from_ref(&list[1].id);
    registered.allocate(held).await.unwrap();
    pods.holds("lab", "example.com/serial", held);
    pods.wait_for_lists(2).await;

    node.write("config.yaml", ONE);
    let left = registered.list().await;
    assert_eq!(
        (left.len(), &left[0].id, left[0].health.as_str()),
        (1, &held[0], "Healthy")
    );
    plugin.logs("kept while containers have 1 of it").await;
    pods.wait_for_lists(8).await;
    // kubelet makes this call before each start of a container; the specs may have been removed
    // meanwhile.
    let of_it = |name: &String| name.contains("k8s-serial-") && !name.contains("k8s-serial-2-");
    for name in specs(&node).iter().filter(|name| of_it(name)) {
        fs::remove_file(node.cdi_dir().join(name)).unwrap();
    }
    registered.pre_start(held).await.unwrap();
    assert_eq!(specs(&node).iter().filter(|name| of_it(name)).count(), 1);
    assert!(!plugin.log().contains("was unplugged while"), "{}", plugin.log());

    pods.clear();
    registered.ended().await;
    eventually("its spec is gone", || !specs(&node).iter().any(of_it)).await;
}

#[tokio::test]
async fn without_an_answer_of_kubelet_every_spec_stays() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", BOTH);
    let plugin = plugin(&node, &["--config", config.to_str().unwrap()]);
    kubelet.registered("example.com/serial").await.list().await;
    node.write("config.yaml", ONE);
    kubelet.registered("example.com/other").await.list().await;
    plugin.logs("cannot connect: No such file").await;
    // While kubelet does not answer, no spec is removed.
    assert_eq!(specs(&node).len(), 3);
    let mut pods = PodResources::start(&node.path("pods.sock"));
    pods.wait_for_lists(1).await;
    eventually("only what is configured has a spec", || specs(&node).len() == 1).await;
}

#[tokio::test]
async fn devices_in_use_by_containers_are_counted() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let pods = PodResources::start(&node.path("pods.sock"));
    let port = Port::reserve();
    let address = port.address.to_string();
    let config = node.write("config.yaml", BOTH);
    let _plugin = plugin(
        &node,
        &["--listen", &address, "--config", config.to_str().unwrap()],
    );
    let list = kubelet.registered("example.com/serial").await.list().await;
    let line = |count: usize| {
        format!("\noci_hotplug_device_plugin_in_use{{resource=\"example.com/serial\"}} {count}\n")
    };
    let metrics = || get(&address, "/metrics").map_or_else(String::new, |(_, body)| body);
    let ids: Vec<String> = list.iter().map(|device| device.id.clone()).collect();
    pods.holds("lab", "example.com/serial", &ids);
    eventually("two are in use", || metrics().contains(&line(2))).await;
    pods.clear();
    eventually("none is in use", || metrics().contains(&line(0))).await;
}

#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn a_missing_unit_is_withdrawn_once_its_pod_has_ended_and_the_pod_is_logged() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let mut pods = PodResources::start(&node.path("pods.sock"));
    disk.plug(1);
    let config = node.write(
        "config.yaml",
        &format!(
            "resources: [{{name: a.b/part, mode: present, requests: ['glob:/dev/loop{}p*']}}]",
            disk.number()
        ),
    );
    // This plugin was started after the allocation and knows of it only from kubelet.
    let plugin = plugin(&node, &["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("a.b/part").await;
    let list = registered.list().await;
    pods.holds("lab", "a.b/part", std::slice::from_ref(&list[0].id));
    pods.wait_for_lists(2).await;
    disk.unplug(1);
    let away = registered.list().await;
    assert_eq!((away.len(), away[0].health.as_str()), (1, "Unhealthy"));
    plugin
        .logs("was unplugged while in use by default/lab/app; the pod keeps running")
        .await;
    pods.wait_for_lists(8).await;
    assert_eq!(registered.lists_within(std::time::Duration::ZERO).await, 0);
    pods.clear();
    assert_eq!(registered.list().await.len(), 0);
    eventually("its spec is gone", || specs(&node).is_empty()).await;
}
