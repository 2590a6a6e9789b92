//! Events about pods' devices at the API server (`--events`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hyper::Method;
use serde_json::json;

use crate::api_server::{ApiServer, ReceivedRequest, fixture};
use crate::device_plugin::{Node, Plugin, eventually};
use crate::kubelet::{Behaviour, Kubelet, PodResources, Registered};
use crate::port::Port;

/// A node with one device of hostdev's list, which a pod has.
struct Lab {
    plugin: Plugin,
    registered: Registered,
    pods: PodResources,
    _kubelet: Kubelet,
    resource: String,
    device: PathBuf,
    node: Node,
}

/// A device, as far as the plugin checks: a path that exists.
fn make(device: &Path) {
    symlink("/dev/null", device).expect("make a link");
}

impl Lab {
    /// Starts a plugin that sends events to the API server at `address` with this CA file.
    async fn start(address: SocketAddr, ca: &str) -> Self {
        let node = Node::new();
        let device = node.path("device");
        make(&device);
        let account = node.path("account");
        fs::create_dir(&account).unwrap();
        fs::copy(fixture(ca), account.join("ca.crt")).unwrap();
        node.write("account/token", "first\n");
        let mut kubelet = node.kubelet(Behaviour::Normal);
        let pods = PodResources::start(&node.path("pods.sock"));
        let (socket, devs) = (node.path("pods.sock"), format!("{}:rw", device.display()));
        let plugin = node.plugin_with(
            &[
                ("KUBERNETES_SERVICE_HOST", &address.ip().to_string()),
                ("KUBERNETES_SERVICE_PORT", &address.port().to_string()),
            ],
            &[
                "--events",
                "--service-account-dir",
                account.to_str().unwrap(),
                "--pod-resources",
                socket.to_str().unwrap(),
                "--devs",
                &devs,
            ],
        );
        let plain = device.to_str().unwrap().trim_start_matches('/').replace('/', "_");
        let resource = format!("hostdev.k8s.io/{plain}");
        let mut registered = kubelet.registered(&resource).await;
        let id = registered.list().await[0].id.clone();
        registered.allocate(std::slice::from_ref(&id)).await.unwrap();
        pods.holds("lab", &resource, std::slice::from_ref(&id));
        let given = json!({ "PodUID": "11-22", "ContainerName": "app", "ResourceName": resource,
            "DeviceIDs": { "-1": [id] }, "AllocResp": "" });
        let checkpoint =
            json!({ "Data": { "PodDeviceEntries": [given], "RegisteredDevices": {} }, "Checksum": 1 });
        fs::write(
            node.kubelet_dir().join("kubelet_internal_checkpoint"),
            checkpoint.to_string(),
        )
        .unwrap();
        Self {
            plugin,
            registered,
            pods,
            _kubelet: kubelet,
            resource,
            device,
            node,
        }
    }

    /// Unplugs the device, and waits until kubelet gets a list.
    async fn loses_its_device(&mut self) {
        fs::remove_file(&self.device).unwrap();
        assert_eq!(self.registered.list().await[0].health, "Unhealthy");
    }

    async fn has_it_back(&mut self) {
        make(&self.device);
        assert_eq!(self.registered.list().await[0].health, "Healthy");
    }
}

const SOMEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Waits until the server has received this many requests, and returns them.
async fn requests(server: &ApiServer, count: usize) -> Vec<ReceivedRequest> {
    eventually(&format!("{count} requests came"), || {
        server.requests().len() >= count
    })
    .await;
    server.requests()
}

fn times(log: &str, words: &str) -> usize {
    log.matches(words).count()
}

#[tokio::test]
async fn a_device_that_is_unplugged_and_comes_back_has_two_events_about_its_pod() {
    let server = ApiServer::start(SOMEWHERE).await;
    let mut lab = Lab::start(server.address, "ca.crt").await;
    lab.loses_its_device().await;
    let first = requests(&server, 1).await.remove(0);
    assert_eq!(first.method, Method::POST);
    assert_eq!(first.path, "/api/v1/namespaces/default/events");
    assert_eq!(first.token, "Bearer first");
    let event = &first.content;
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("DeviceVanished"), &json!("Warning"))
    );
    assert_eq!(
        event["involvedObject"],
        json!({ "apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": "lab", "uid": "11-22",
            "fieldPath": "spec.containers{app}" })
    );
    assert_eq!(event["metadata"]["namespace"], "default");
    assert!(event["metadata"]["name"].as_str().unwrap().starts_with("lab."));
    assert!(event["message"].as_str().unwrap().contains(&lab.resource));
    assert_eq!(event["count"], 1);

    // kubelet renews the token.
    lab.node.write("account/token", "second");
    lab.has_it_back().await;
    let second = requests(&server, 2).await.remove(1);
    assert_eq!(
        (&second.content["reason"], &second.content["type"]),
        (&json!("DeviceReturned"), &json!("Normal"))
    );
    assert_eq!(second.token, "Bearer second");
}

#[tokio::test]
async fn a_flapping_device_has_an_event_per_interval_with_a_count() {
    const TIMES: usize = 5;
    let server = ApiServer::start(SOMEWHERE).await;
    let mut lab = Lab::start(server.address, "ca.crt").await;
    lab.loses_its_device().await;
    let made = requests(&server, 1).await.remove(0);
    let begin = Instant::now();
    for _ in 0..TIMES {
        lab.has_it_back().await;
        lab.loses_its_device().await;
    }
    // The count of the first event is increased.
    let path = format!(
        "{}/{}",
        made.path,
        made.content["metadata"]["name"].as_str().unwrap()
    );
    let is_counted = |asked: &ReceivedRequest| {
        asked.method == Method::PATCH && asked.path == path && asked.content["count"] == TIMES + 1
    };
    eventually("the event is counted", || {
        server.requests().iter().any(is_counted)
    })
    .await;
    let all = server.requests();
    // One event of each kind at once, and one every 10 s: on a busy machine the loop takes longer.
    let intervals = 1 + begin.elapsed().as_secs() as usize / 10;
    assert!(all.len() <= 2 * (1 + intervals), "{intervals} intervals: {all:?}");
}

#[tokio::test]
async fn a_missing_right_is_logged_once_and_rejected_changes_are_not_sent_later() {
    let server = ApiServer::start(SOMEWHERE).await;
    server.respond_with(403);
    let mut lab = Lab::start(server.address, "ca.crt").await;
    lab.loses_its_device().await;
    requests(&server, 1).await;
    lab.plugin.logs("the test sets 403").await;
    lab.plugin.logs("the right to create and patch events").await;
    lab.has_it_back().await;
    requests(&server, 2).await;
    assert_eq!(
        times(&lab.plugin.log(), "cannot send an event to the API server"),
        1
    );

    server.respond_with(201);
    lab.loses_its_device().await;
    lab.plugin.logs("the API server accepts events again").await;
    let last = server.requests().pop().unwrap();
    assert_eq!((last.method, &last.content["count"]), (Method::POST, &json!(1)));
}

#[tokio::test]
async fn changes_while_the_server_is_down_are_sent_when_it_is_up() {
    let port = Port::reserve();
    let mut lab = Lab::start(port.address, "ca.crt").await;
    lab.loses_its_device().await;
    lab.plugin
        .logs("cannot send an event to the API server: cannot connect to 127.0.0.1")
        .await;
    // Events delay nothing: kubelet gets its lists at once.
    lab.has_it_back().await;
    let server = ApiServer::start(port.address).await;
    let both = requests(&server, 2).await;
    let reasons: Vec<_> = both
        .iter()
        .map(|asked| asked.content["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["DeviceVanished", "DeviceReturned"]);
    assert_eq!(
        times(&lab.plugin.log(), "cannot send an event to the API server"),
        1
    );
}

#[tokio::test]
async fn a_server_with_another_certificate_gets_neither_event_nor_token() {
    let server = ApiServer::start(SOMEWHERE).await;
    let mut lab = Lab::start(server.address, "other-ca.crt").await;
    lab.loses_its_device().await;
    lab.plugin.logs("invalid peer certificate").await;
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_pod_that_has_ended_gets_no_event() {
    let server = ApiServer::start(SOMEWHERE).await;
    let mut lab = Lab::start(server.address, "ca.crt").await;
    lab.pods.clear();
    fs::remove_file(&lab.device).unwrap();
    let (_, list) = tokio::join!(lab.pods.wait_for_lists(1), lab.registered.list());
    assert_eq!(list[0].health, "Unhealthy");
    // Another pod has the unit now: the next event is the first one of that pod.
    lab.pods.holds("next", &lab.resource, &[list[0].id.clone()]);
    lab.has_it_back().await;
    let first = requests(&server, 1).await.remove(0);
    assert_eq!(first.content["reason"], "DeviceReturned");
    assert_eq!(first.content["involvedObject"]["name"], "next");
}

#[test]
fn events_without_an_api_server_or_without_kubelets_list_of_pods_are_refused_at_the_start() {
    let node = Node::new();
    let (status, _, words) = node.run(&["--events", "--devs", "/dev/null:rw"]);
    assert!(!status.success());
    assert!(words.contains("KUBERNETES_SERVICE_HOST"), "{words}");
}
