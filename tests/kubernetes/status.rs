//! The plugin's state over HTTP and in its log.

use serde_json::Value;

use crate::device_plugin::{Node, eventually, get};
use crate::kubelet::Behaviour;
use crate::port::Port;

#[tokio::test]
async fn it_is_ready_once_kubelet_listens_and_counts_what_it_does() {
    let node = Node::new();
    let port = Port::reserve();
    let address = port.address.to_string();
    let _plugin =
        node.plugin_that_listens(&["--listen", &address, "--devs", "/dev/null:rw,/dev/not-there:r"]);
    let status = |path: &str| get(&address, path).map_or_else(String::new, |(status, _)| status);
    eventually("it answers", || status("/healthz").contains("200")).await;
    assert!(status("/readyz").contains("503"), "there is no kubelet");
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let mut registered = kubelet.registered("hostdev.k8s.io/dev_null").await;
    registered.list().await;
    let _other = kubelet.registered("hostdev.k8s.io/dev_not-there").await;
    eventually("it is ready", || status("/readyz").contains("200")).await;
    registered.allocate(&["/dev/null".into()]).await.unwrap();
    let (_, metrics) = get(&address, "/metrics").unwrap();
    for line in [
        "oci_hotplug_device_plugin_devices{resource=\"hostdev.k8s.io/dev_null\",health=\"healthy\"} 1",
        "oci_hotplug_device_plugin_devices{resource=\"hostdev.k8s.io/dev_not-there\",health=\"unhealthy\"} 1",
        "oci_hotplug_device_plugin_registrations_total{resource=\"hostdev.k8s.io/dev_null\"} 1",
        "oci_hotplug_device_plugin_lists_total{resource=\"hostdev.k8s.io/dev_null\"} 1",
        "oci_hotplug_device_plugin_allocations_total{resource=\"hostdev.k8s.io/dev_null\"} 1",
    ] {
        assert!(metrics.lines().any(|metric| metric == line), "{line}: {metrics}");
    }
    assert!(status("/other").contains("404"));
}

#[tokio::test]
async fn the_log_is_json_where_that_is_asked_for() {
    let node = Node::new();
    let plugin = node.plugin(&["--log-format", "json", "--devs", "/dev/null:rw"]);
    plugin.logs("1 healthy").await;
    for line in plugin.log().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(
            record["timestamp"].is_string() && record["fields"]["message"].is_string(),
            "{line}"
        );
    }
}

#[tokio::test]
async fn it_keeps_to_its_memory() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "conf.yaml",
        "- {devicematch: '^tty[0-9]$', nummaxdevices: 20}\n- {devicematch: ^null$, nummaxdevices: 1}\n",
    );
    let plugin = node.plugin(&["--smarter-config", config.to_str().unwrap()]);
    kubelet.registered("smarter-devices/null").await.list().await;
    let (_, memory) = plugin.costs();
    assert!(memory < 15 << 10, "{memory} KiB");
}
