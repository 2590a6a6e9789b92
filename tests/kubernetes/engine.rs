//! Whether the node's container engine supports CDI, with a simulated engine.

use std::path::{Path, PathBuf};

use oci_hotplug::kubernetes::engine::cri::{
    self, StatusRequest, StatusResponse, VersionRequest, VersionResponse,
};
use oci_hotplug::kubernetes::kubelet::grpc;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::device_plugin::Node;
use crate::kubelet::Behaviour;

const SLOTS: &str =
    "resources: [{name: example.com/nothing, requests: ['syspath:/sys/devices/virtual/mem/null']}]";

/// An engine that answers on a socket of `node`. It ends when the returned tasks are dropped.
fn engine(node: &Node, version: &'static str, config: &'static str) -> (PathBuf, JoinSet<()>) {
    let path = node.path("engine.sock");
    let listener = UnixListener::bind(&path).expect("listen as an engine");
    let mut server = JoinSet::new();
    server.spawn(async move {
        let answer = move |request: hyper::Request<hyper::body::Incoming>| async move {
            match request.uri().path() {
                cri::VERSION => {
                    let response = VersionResponse {
                        runtime_name: "containerd".into(),
                        runtime_version: version.into(),
                        ..Default::default()
                    };
                    grpc::unary(request, move |_: VersionRequest| {
                        std::future::ready(Ok(response.clone()))
                    })
                    .await
                }
                cri::STATUS => {
                    grpc::unary(request, move |asked: StatusRequest| {
                        assert!(asked.verbose);
                        std::future::ready(Ok(StatusResponse {
                            info: [("config".to_owned(), config.to_owned())].into(),
                            ..Default::default()
                        }))
                    })
                    .await
                }
                other => grpc::unknown_call(other),
            }
        };
        let _ = grpc::serve_grpc(listener, answer).await;
    });
    (path, server)
}

/// The names of the CDI devices and of the nodes that a container gets.
async fn given(node: &Node, socket: &Path, containerd: &Path) -> (usize, usize) {
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", SLOTS);
    let _plugin = node.plugin(&[
        "--config",
        config.to_str().unwrap(),
        "--cdi=auto",
        "--engine-socket",
        socket.to_str().unwrap(),
        "--containerd-config",
        containerd.to_str().unwrap(),
    ]);
    let mut registered = kubelet.registered("example.com/nothing").await;
    let id = registered.list().await[0].id.clone();
    let answer = registered.allocate(&[id]).await.unwrap();
    (answer.cdi_devices.len(), answer.devices.len())
}

#[tokio::test]
async fn a_containerd_that_takes_no_cdi_devices_by_default_gets_nodes() {
    let node = Node::new();
    let silent = node.write("containerd.toml", "version = 2\n");
    let (socket, _engine) = engine(&node, "1.7.24~ds1", "{\"enableCDI\":false}");
    assert_eq!(given(&node, &socket, &silent).await, (0, 1));
}

#[tokio::test]
async fn the_configuration_in_force_counts_more_than_the_file() {
    let node = Node::new();
    let off = node.write(
        "containerd.toml",
        "[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_cdi = false\n",
    );
    let (socket, _engine) = engine(&node, "1.7.24~ds1", "{\"enableCDI\":true}");
    assert_eq!(given(&node, &socket, &off).await, (1, 0));
}

#[tokio::test]
async fn an_unknown_engine_counts_as_a_current_one_and_the_log_says_so() {
    let node = Node::new();
    let silent = node.write("containerd.toml", "version = 2\n");
    let config = node.write("config.yaml", SLOTS);
    let plugin = node.plugin(&[
        "--config",
        config.to_str().unwrap(),
        "--cdi=auto",
        "--containerd-config",
        silent.to_str().unwrap(),
    ]);
    plugin.logs("assuming that it is on (confirm with --cdi on").await;
    drop(plugin);
    assert_eq!(given(&node, Path::new("/nowhere"), &silent).await, (1, 0));
}

#[tokio::test]
async fn a_check_asks_the_engine_and_prints_the_hint() {
    let node = Node::new();
    let (socket, _engine) = engine(&node, "1.7.24", "{}");
    // In another thread: the engine answers in this one.
    let checks = tokio::task::spawn_blocking(move || {
        let check = |sockets: &str| {
            node.run(&[
                "--check",
                "--devs=/dev/null:r",
                &format!("--engine-socket={sockets}"),
            ])
        };
        (
            check(&format!("/nowhere,{}", socket.display())),
            check("/nowhere"),
        )
    });
    let ((status, off, _), (_, unknown, _)) = checks.await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        off.contains("missing: CDI is off: containerd 1.7.24") && off.contains("enable_cdi = true"),
        "{off}"
    );
    assert!(
        unknown.contains("unknown: CDI may be on or off") && unknown.contains("--engine-socket"),
        "{unknown}"
    );
}
