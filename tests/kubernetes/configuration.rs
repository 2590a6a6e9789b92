//! The configuration: changes while the plugin runs, and errors.

use std::time::Duration;

use crate::device_plugin::{Node, Pace};
use crate::kubelet::Behaviour;

fn slots(count: u32) -> String {
    format!("resources: [{{name: a.b/serial, requests: ['usb:ffff:fffe'], count: {count}}}]")
}

#[tokio::test]
async fn a_changed_file_is_in_force_at_once_and_a_bad_one_changes_nothing() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", &slots(1));
    let plugin = node.plugin(&["--config", config.to_str().unwrap(), "--devs", "/dev/null:r"]);
    let mut registered = kubelet.registered("a.b/serial").await;
    assert_eq!(registered.list().await.len(), 1);

    node.write(
        "config.yaml",
        "resources: [{name: a.b/serial, requests: ['usb:nonsense']}]",
    );
    plugin.logs("the previous configuration stays in force").await;
    assert!(
        plugin.log().contains("resource 1 (\"a.b/serial\")"),
        "{}",
        plugin.log()
    );
    assert_eq!(registered.lists_within(Duration::from_millis(300)).await, 0);

    node.write("config.yaml", &slots(2));
    assert_eq!(registered.list().await.len(), 2);

    node.write(
        "config.yaml",
        "resources: [{name: a.b/other, requests: ['usb:ffff:fffe']}]",
    );
    registered.ended().await;
    assert_eq!(kubelet.registered("a.b/other").await.list().await.len(), 1);
}

#[tokio::test]
async fn a_burst_of_changes_makes_one_list() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", &slots(1));
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("a.b/serial").await;
    registered.list().await;
    let mut pace = Pace::start();
    for number in 0..1000 {
        node.write("config.yaml", &slots(2 + number % 7));
        pace.step();
    }
    node.write("config.yaml", &slots(50));
    let (_, before) = registered.list_where(|list| list.len() == 50).await;
    pace.allows(before);
}

#[tokio::test]
async fn a_configuration_that_can_never_work_is_an_error_with_element_and_hint() {
    let node = Node::new();
    for (arguments, status, parts) in [
        (
            vec!["--devs", "/dev/null:r,/dev/mem"],
            2,
            vec!["element 2", "\"/dev/mem\"", "PATH:PERMISSIONS"],
        ),
        (
            vec!["--devs", "/dev/mem:rr"],
            2,
            vec!["element 1", "permissions \"rr\""],
        ),
        (vec![], 1, vec!["nothing to advertise", "--devs"]),
        (
            vec!["--config", "/nowhere/config.yaml"],
            1,
            vec!["/nowhere/config.yaml"],
        ),
    ] {
        let mut all = vec!["--listen", ""];
        all.extend(arguments);
        let (ended, _, printed) = node.run(&all);
        assert_eq!(ended.code(), Some(status), "{printed}");
        for part in parts {
            assert!(printed.contains(part), "{part}: {printed}");
        }
    }
}

#[tokio::test]
async fn a_check_prints_what_would_be_advertised_and_what_is_missing() {
    let node = Node::new();
    let (status, printed, _) = node.run(&[
        "--check",
        "--devs",
        "/dev/null:r,/dev/not-there:r",
        "--hook-dir",
        "/nowhere",
    ]);
    assert_eq!(status.code(), Some(1));
    for part in [
        "hostdev.k8s.io/dev_null: 1 healthy, 0 unhealthy",
        "hostdev.k8s.io/dev_not-there: 0 healthy, 1 unhealthy",
        "missing: kubelet's socket",
        "missing: /nowhere/oci-hotplug-prestart",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}
