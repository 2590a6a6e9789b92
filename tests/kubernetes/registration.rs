//! Registration with kubelet, and how it is renewed.

use std::fs;
use std::time::Duration;

use crate::device_plugin::{Node, eventually};
use crate::kubelet::Behaviour;

const NULL: &str = "hostdev.k8s.io/dev_null";

#[tokio::test]
async fn a_plugin_serves_before_it_registers_and_then_sends_its_list() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw,/dev/zero:r"]);
    for (resource, id) in [(NULL, "/dev/null"), ("hostdev.k8s.io/dev_zero", "/dev/zero")] {
        // kubelet accepts a registration only after the plugin has answered its call.
        let mut registered = kubelet.registered(resource).await;
        assert!(!registered.request.endpoint.contains('/'), "a plain file name");
        assert_eq!(registered.request.options, Some(registered.options));
        let list = registered.list().await;
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].id.as_str(), list[0].health.as_str()), (id, "Healthy"));
    }
}

#[tokio::test]
async fn it_waits_for_a_kubelet_that_starts_later() {
    let node = Node::new();
    let plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    plugin.logs("1 healthy").await;
    let mut kubelet = node.kubelet(Behaviour::Normal);
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn a_directory_that_comes_later_is_waited_for() {
    let node = Node::new();
    fs::remove_dir(node.kubelet_dir()).unwrap();
    let plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    plugin.logs("1 healthy").await;
    let mut kubelet = node.kubelet(Behaviour::Normal);
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn it_registers_again_after_each_restart_of_kubelet() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    for _ in 0..3 {
        assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
        kubelet.stop();
        kubelet = node.kubelet(Behaviour::Normal);
    }
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
    assert_eq!(node.sockets().len(), 1);
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_noticed() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    kubelet.registered(NULL).await.list().await;
    kubelet.stop();
    fs::rename(node.kubelet_dir(), node.path("old")).unwrap();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn it_survives_a_restart_of_kubelet_during_the_registration() {
    let node = Node::new();
    let hanging = node.kubelet(Behaviour::Hanging);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    eventually("kubelet is asked", || !hanging.attempts().is_empty()).await;
    hanging.stop();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn a_stream_that_kubelet_drops_leads_to_a_new_registration() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    let mut registered = kubelet.registered(NULL).await;
    registered.list().await;
    registered.close_stream();
    drop(registered);
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn a_valid_registration_is_not_repeated() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let _plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    let mut registered = kubelet.registered(NULL).await;
    registered.list().await;
    // Sockets of other plugins are created and removed in the same directory.
    for number in 0..20 {
        let path = node.kubelet_dir().join(format!("other{number}.sock"));
        fs::write(&path, "").unwrap();
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(kubelet.registers_within(Duration::from_secs(1)).await, None);
    assert_eq!(registered.lists_within(Duration::ZERO).await, 0);
}

#[tokio::test]
async fn rejected_registrations_are_retried_less_and_less_often_and_logged_once() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Rejecting(4));
    let plugin = node.plugin(&["--devs", "/dev/null:rw"]);
    kubelet.registered(NULL).await.list().await;
    let attempts = kubelet.attempts();
    assert_eq!(attempts.len(), 5);
    let between: Vec<Duration> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, least) in between.iter().zip([200, 400, 800, 1600]) {
        assert!(*pause >= Duration::from_millis(least), "{between:?}");
    }
    let printed = plugin.log().matches("the ResourceName is invalid").count();
    assert_eq!(printed, 1, "{}", plugin.log());
}

#[tokio::test]
async fn of_two_plugins_the_second_waits_until_the_first_ends() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let mut first = node.plugin(&["--devs", "/dev/null:rw"]);
    let mut registered = kubelet.registered(NULL).await;
    registered.list().await;
    let second = node.plugin(&["--devs", "/dev/null:rw"]);
    second.logs("belongs to another running plugin").await;
    assert_eq!(kubelet.registers_within(Duration::from_millis(500)).await, None);
    assert!(first.terminate().await.success());
    registered.ended().await;
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn a_socket_left_by_a_killed_plugin_is_replaced() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let first = node.plugin(&["--devs", "/dev/null:rw"]);
    kubelet.registered(NULL).await.list().await;
    drop(first);
    assert_eq!(node.sockets().len(), 1, "it was killed");
    let _second = node.plugin(&["--devs", "/dev/null:rw"]);
    assert_eq!(kubelet.registered(NULL).await.list().await.len(), 1);
}

#[tokio::test]
async fn at_sigterm_it_removes_its_sockets_and_leaves_the_specs() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        "resources: [{name: example.com/serial, requests: ['usb:0403:6001']}]",
    );
    let mut plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("example.com/serial").await;
    registered.list().await;
    assert!(plugin.terminate().await.success());
    registered.ended().await;
    assert_eq!(node.sockets(), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(node.cdi_dir()).unwrap().count(),
        1,
        "pods are still to start with it"
    );
}
