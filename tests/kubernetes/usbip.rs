//! Devices of USB/IP servers in usbip-device-plugin's format: its file, its arguments, and the
//! lists that kubelet gets while servers and other hosts change. (With the kernel's controller and
//! a real kubelet: tests/vm/usbip_pods.rs.)

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_hotplug::kubernetes::kubelet::api::Device;

use crate::device_plugin::{Node, eventually, get};
use crate::kubelet::{Behaviour, PodResources, Registered};
use crate::port::Port;
use crate::took_less_than;
use crate::usbip_server::{Adapter, Fault, UsbipServer};

const BOARD: &str = "usbip.dev.mvalvekens.be/board";

/// kubelet gets a list within this time after a device was imported or released: the plugin lists
/// each server every 2 s, with a timeout of 5 s.
const SOON: Duration = Duration::from_secs(5);

fn server(fault: Fault) -> UsbipServer {
    UsbipServer::start(vec![Adapter::new("1-1", "FT001")], fault)
}

/// A server at a port that stays reserved while no server runs.
fn server_at(port: &Port) -> UsbipServer {
    UsbipServer::start_at(port.address, vec![Adapter::new("1-1", "FT001")], Fault::None)
}

/// An entry of usbip-device-plugin's file for an adapter of this server.
fn entry(server: &UsbipServer) -> String {
    format!(
        "{{target: {{host: 127.0.0.1, port: {}}}, selector: {{vendor: 0x0403, product: 0x6001}}}}",
        server.address.port()
    )
}

fn file(resources: &[(&str, &UsbipServer)]) -> String {
    let all = resources
        .iter()
        .map(|(name, server)| format!("  {name}:\n  - {}\n", entry(server)));
    format!("resources:\n{}", all.collect::<String>())
}

/// Another host imports the device and releases it, twice. Returns how long each took until kubelet
/// got a list.
async fn taken_and_freed(
    server: &UsbipServer,
    registered: &mut Registered,
    free: &[Device],
) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..2 {
        let other = server.is_imported_elsewhere("1-1");
        let begin = Instant::now();
        assert!(registered.list().await.is_empty());
        took.push(begin.elapsed());
        drop(other);
        let begin = Instant::now();
        assert_eq!(registered.list().await, free);
        took.push(begin.elapsed());
    }
    took
}

fn are_healthy(list: &[Device], count: usize) -> bool {
    list.len() == count && list.iter().all(|unit| unit.health == "Healthy")
}

#[tokio::test]
async fn devices_of_a_server_are_advertised_withdrawn_while_another_host_has_them_and_advertised_again() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", &file(&[("board", &server)]));
    let _plugin = node.plugin(&["--usbip-config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered(BOARD).await;
    let first = registered.list().await;
    assert!(are_healthy(&first, 1), "{first:?}");
    took_less_than(SOON, taken_and_freed(&server, &mut registered, &first).await);
    assert_eq!(server.imports(), 2, "the other host's");
}

#[tokio::test]
async fn servers_that_are_dead_hang_or_lie_delay_no_other_and_a_dead_one_is_used_again_when_it_answers() {
    let (node, port) = (Node::new(), Port::reserve());
    let servers = [
        ("good", server(Fault::None)),
        ("hangs", server(Fault::Stall)),
        ("drips", server(Fault::Drip(Duration::from_millis(500)))),
        ("lies", server(Fault::Endless)),
        ("ends", server(Fault::CloseAfter(100))),
        ("talks", server(Fault::Http)),
        ("dies", server_at(&port)),
    ];
    let all: Vec<_> = servers.iter().map(|(name, server)| (*name, server)).collect();
    let config = node.write("config.yaml", &file(&all));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let plugin = node.plugin(&["--usbip-config", config.to_str().unwrap()]);
    let of = |name| format!("usbip.dev.mvalvekens.be/{name}");
    let mut good = kubelet.registered(&of("good")).await;
    let free = good.list().await;
    assert!(are_healthy(&free, 1), "{free:?}");
    for name in ["hangs", "drips", "lies", "ends", "talks"] {
        assert!(
            kubelet.registered(&of(name)).await.list().await.is_empty(),
            "{name}"
        );
    }
    for reason in [
        "it claims to export 4294967295 devices",
        "it closed the connection while listing",
        "is it a usbip server?",
        "no answer in time while listing",
    ] {
        plugin.logs(reason).await;
    }

    let mut dies = kubelet.registered(&of("dies")).await;
    assert!(are_healthy(&dies.list().await, 1));
    let [(_, good_server), .., (_, dying)] = servers;
    drop(dying);
    assert!(dies.list().await.is_empty());
    plugin.logs("connection refused").await;
    let _again = UsbipServer::start_at(port.address, vec![Adapter::new("1-7", "FT001")], Fault::None);
    assert!(are_healthy(&dies.list().await, 1));
    plugin.logs("answers again").await;

    // While the other servers hang, changes of the good server are noticed as soon as without them.
    took_less_than(SOON, taken_and_freed(&good_server, &mut good, &free).await);
}

#[tokio::test]
async fn allocate_opens_no_connection_and_names_the_cdi_device_whose_hook_attaches_the_device() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let extras = "extras: [{host_path: /dev/ttyUSB0, container_path: /dev/board, permissions: rw}, {host_path: /dev/null, \
                  container_path: /dev/nothing, permissions: rwm}]";
    let with_extras = format!("{}, {extras}}}", entry(&server).strip_suffix('}').unwrap());
    let config = node.write("config.yaml", &format!("resources: {{board: [{with_extras}]}}"));
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered(BOARD).await;
    assert!(registered.options.pre_start_required, "{:?}", registered.options);
    let ids = [registered.list().await[0].id.clone()];
    server.hang(true);
    let mut took = Vec::new();
    for _ in 0..3 {
        let begin = Instant::now();
        registered.allocate(&ids).await.unwrap();
        registered.pre_start(&ids).await.unwrap();
        took.push(begin.elapsed());
    }
    // A connection to a server that hangs takes 5 s to fail.
    took_less_than(Duration::from_secs(2), took);
    let answer = registered.allocate(&ids).await.unwrap();
    server.hang(false);
    assert_eq!(server.imports(), 0);

    let [device] = &answer.cdi_devices[..] else {
        panic!("{answer:?}")
    };
    let name = device
        .name
        .strip_prefix("oci-hotplug.dev/device=")
        .expect("our kind");
    let spec = fs::read_dir(node.cdi_dir())
        .unwrap()
        .flatten()
        .map(|entry| fs::read_to_string(entry.path()).unwrap())
        .find(|spec| spec.contains(name))
        .expect("its spec");
    let address = server.address;
    for request in [
        format!("\"usbip:{address}/0403:6001;required\""),
        format!("\"usbip:{address}/0403:6001;path=/dev/board;only=glob:/dev/ttyUSB[0-9]*\""),
    ] {
        assert!(spec.contains(&request), "{request}: {spec}");
    }
    let devices: Vec<_> = answer
        .devices
        .iter()
        .map(|device| {
            (
                device.host_path.as_str(),
                device.container_path.as_str(),
                device.permissions.as_str(),
            )
        })
        .collect();
    assert_eq!(devices, [("/dev/null", "/dev/nothing", "rwm")]);
}

#[tokio::test]
async fn devices_of_a_pod_stay_when_their_server_goes_and_are_withdrawn_when_the_pod_has_ended() {
    let (node, port) = (Node::new(), Port::reserve());
    let server = server_at(&port);
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let mut pods = PodResources::start(&node.path("pods.sock"));
    let config = node.write("config.yaml", &file(&[("board", &server)]));
    let socket = node.path("pods.sock");
    let arguments = [
        "--usbip-config",
        config.to_str().unwrap(),
        "--pod-resources",
        socket.to_str().unwrap(),
    ];
    let mut first = node.plugin(&arguments);
    let mut registered = kubelet.registered(BOARD).await;
    let before = registered.list().await;
    let id = before[0].id.clone();
    registered.allocate(std::slice::from_ref(&id)).await.unwrap();
    pods.holds("lab", BOARD, &[id]);
    pods.wait_for_lists(2).await;
    drop(server);
    first.logs("connection refused").await;
    assert_eq!(registered.lists_within(Duration::from_secs(1)).await, 0);

    // A plugin that is started later offers it from its first list on.
    first.terminate().await;
    let second = node.plugin(&arguments);
    let mut registered = kubelet.registered(BOARD).await;
    assert_eq!(registered.list().await, before);
    second.logs("connection refused").await;

    pods.clear();
    assert!(registered.list().await.is_empty());
    let _again = server_at(&port);
    assert_eq!(registered.list().await, before);
}

#[tokio::test]
async fn a_listed_pod_keeps_its_device_and_an_allocated_device_is_kept_for_a_while() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", &file(&[("board", &server)]));
    let plugin = node.plugin(&["--usbip-config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered(BOARD).await;
    let ids = [registered.list().await[0].id.clone()];
    registered.allocate(&ids).await.unwrap();
    // The container's hook connects, and the server no longer lists the device; kubelet's
    // pod-resources does not know the pod yet.
    let _hook = server.is_imported_elsewhere("1-1");
    assert_eq!(registered.lists_within(Duration::from_secs(4)).await, 0);
    assert!(!plugin.log().contains("was unplugged while"), "{}", plugin.log());
}

#[tokio::test]
async fn a_changed_file_is_in_force_at_once_and_a_bad_one_keeps_the_old() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", &file(&[("board", &server)]));
    let plugin = node.plugin(&["--usbip-config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered(BOARD).await;
    assert!(are_healthy(&registered.list().await, 1));

    node.write(
        "config.yaml",
        "resources: {board: [{target: {host: lab}, selector: {vendor: '0403'}}]}",
    );
    plugin.logs("the previous configuration stays in force").await;
    let reason = "config.yaml, resource \"board\", entry 1: vendor \"0403\" must be a number";
    assert!(plugin.log().contains(reason), "{}", plugin.log());
    assert_eq!(registered.lists_within(Duration::from_millis(300)).await, 0);

    let other = UsbipServer::start(
        vec![Adapter::new("1-1", "A"), Adapter::new("1-2", "B")],
        Fault::None,
    );
    let two = [entry(&other), entry(&other)].join(", ");
    node.write("config.yaml", &format!("resources: {{board: [{two}]}}"));
    let (list, _) = registered.list_where(|list| list.len() == 2).await;
    assert!(are_healthy(&list, 2), "{list:?}");
    let answer = registered
        .allocate(&[list[0].id.clone(), list[1].id.clone()])
        .await
        .unwrap();
    assert_eq!(answer.cdi_devices.len(), 2, "{answer:?}");
    // The previous server is no longer listed.
    let asked = server.accepted();
    let before = other.accepted();
    eventually("the other server is asked", || other.accepted() >= before + 2).await;
    assert!(server.accepted() <= asked + 1, "{asked}, {}", server.accepted());
}

#[tokio::test]
async fn a_resource_has_a_name_of_any_legal_length() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let long = format!("{}/{}", "d.".repeat(121) + "d", "n".repeat(63));
    let (domain, name) = long.split_once('/').unwrap();
    let config = node.write("config.yaml", &file(&[(name, &server)]));
    let _plugin = node.plugin(&["--usbip-config", config.to_str().unwrap(), "--domain", domain]);
    let mut registered = kubelet.registered(&long).await;
    let list = registered.list().await;
    assert!(are_healthy(&list, 1) && list[0].id.len() <= 63, "{list:?}");
    assert_eq!(registered.specs.len(), 1, "{:?}", registered.specs);
}

#[tokio::test]
async fn without_cdi_nothing_is_advertised_and_the_reason_is_logged() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("config.yaml", &file(&[("board", &server)]));
    let plugin = node.plugin(&["--cdi", "off", "--usbip-config", config.to_str().unwrap()]);
    assert!(kubelet.registered(BOARD).await.list().await.is_empty());
    plugin
        .logs("devices of USB/IP servers are not advertised: the hooks that attach them need CDI")
        .await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn its_flags_environment_health_and_metrics_are_those_of_usbip_device_plugin() {
    let (node, server) = (Node::new(), server(Fault::None));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let pods = PodResources::start(&node.path("pods.sock"));
    let port = Port::reserve();
    let address = port.address.to_string();
    let config = node.write("config.yaml", &file(&[("board", &server)]));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (config, directory) = (text(&config), text(&node.kubelet_dir()));
    let (socket, cdi) = (text(&node.path("pods.sock")), text(&node.cdi_dir()));
    // The form of the file shows that it is that plugin's; its variables are then read.
    let plugin = node.plugin_of(
        &[
            ("DOMAIN", "example.com"),
            ("POD_RESOURCES_SOCKET", &socket),
            ("LISTEN", "127.0.0.1:1"),
            ("LOG_LEVEL", "all"),
            ("OCI_HOTPLUG_PLUGIN_CDI_DIR", &cdi),
            ("OCI_HOTPLUG_PLUGIN_CDI", "on"),
        ],
        &[
            "--config",
            &config,
            "--plugin-directory",
            &directory,
            "--listen",
            &address,
        ],
    );
    let mut registered = kubelet.registered("example.com/board").await;
    let ids = [registered.list().await[0].id.clone()];
    let health = get(&address, "/health").expect("an answer");
    assert_eq!(health, ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    let metrics = || get(&address, "/metrics").map_or_else(String::new, |(_, body)| body);
    let has = |metrics: &str, metric: &str, value: u32| {
        let line = format!("usbip_device_plugin_{metric}{{resource=\"example.com/board\"}} {value}");
        metrics.lines().any(|metric| metric == line)
    };
    let now = metrics();
    for (metric, value) in [
        ("available_devices", 1),
        ("attached_devices", 0),
        ("allocations_total", 0),
        ("restarts_total", 0),
    ] {
        assert!(has(&now, metric, value), "{metric} {value}: {now}");
    }
    registered.allocate(&ids).await.unwrap();
    pods.holds("lab", "example.com/board", &ids);
    registered.close_stream();
    let mut again = kubelet.registered("example.com/board").await;
    again.list().await;
    eventually("all is counted", || {
        let now = metrics();
        has(&now, "allocations_total", 1)
            && has(&now, "restarts_total", 1)
            && has(&now, "available_devices", 0)
    })
    .await;
    assert!(plugin.log().contains("DEBUG"), "{}", plugin.log());
}

#[tokio::test]
async fn variables_of_usbip_device_plugin_are_ignored_with_another_format() {
    let node = Node::new();
    let config = node.write("config.yaml", "resources: []");
    let directory = node.kubelet_dir();
    let mut plugin = node.plugin_of(
        &[
            ("LISTEN", "nonsense"),
            ("DOMAIN", "-"),
            ("LOG_LEVEL", "none"),
            ("PLUGIN_DIRECTORY", "/nowhere"),
        ],
        &[
            "--config",
            config.to_str().unwrap(),
            "--kubelet-dir",
            directory.to_str().unwrap(),
            "--listen",
            "",
            "--pod-resources",
            "",
            "--cdi=off",
        ],
    );
    plugin.logs("nothing to advertise").await;
    assert!(plugin.terminate().await.success());
}

#[tokio::test]
async fn a_check_asks_each_server_once_and_prints_its_devices() {
    let (node, good) = (Node::new(), server(Fault::None));
    let port = Port::reserve();
    let address = port.address;
    let gone = server_at(&port);
    let config = node.write("config.yaml", &file(&[("board", &good), ("other", &gone)]));
    drop(gone);
    let (status, printed, _) = node.run(&["--check", "--usbip-config", config.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1));
    let server = good.address;
    for part in [
        "usbip.dev.mvalvekens.be/board: 1 healthy, 0 unhealthy".to_owned(),
        "usbip.dev.mvalvekens.be/other: 0 healthy, 0 unhealthy".to_owned(),
        format!("ok: usbip server {server}: 1 devices that no host has imported"),
        format!("missing: usbip server {address}: connection refused"),
        "the virtual USB host controller, to which devices of USB/IP servers are attached".to_owned(),
    ] {
        assert!(printed.contains(&part), "{part}: {printed}");
    }
    assert_eq!(good.accepted(), 1);
}
