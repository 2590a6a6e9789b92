//! generic-device-plugin's arguments, environment and file.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::device_plugin::{Node, eventually, get};
use crate::kubelet::{Behaviour, Registered};
use crate::port::Port;
use crate::yaml;

/// A DaemonSet as users of generic-device-plugin write it.
const DAEMONSET: &str = include_str!("generic/daemonset.yaml");

/// What a container with one unit gets: nodes and mounts, as `HOST CONTAINER PERMISSIONS`.
async fn given(registered: &mut Registered) -> Vec<String> {
    let list = registered.list().await;
    let answer = registered.allocate(&[list[0].id.clone()]).await.expect("a unit");
    let nodes = answer
        .devices
        .iter()
        .map(|spec| format!("{} {} {}", spec.host_path, spec.container_path, spec.permissions));
    let mounts = answer
        .mounts
        .iter()
        .map(|mount| format!("{} {} {}", mount.host_path, mount.container_path, mount.read_only));
    nodes.chain(mounts).collect()
}

/// Case README 8.
#[tokio::test]
async fn a_daemonset_of_its_users_works_with_another_image() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let daemonset = yaml(DAEMONSET);
    let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().expect("arguments");
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|text| text.as_str().expect("text"))
        .collect();
    let _plugin = node.plugin(&arguments);
    for (name, units, nodes) in [
        ("serial", 1, vec!["/dev/null /dev/null rwm"]),
        ("camera", 0, vec![]),
        ("fuse", 10, vec!["/dev/zero /dev/zero rwm"]),
        ("directory", 10, vec!["/dev/pts /dev/pts rwm"]),
        (
            "capture",
            1,
            vec!["/dev/null /dev/snd/controlC0 rwm", "/dev/zero /dev/snd/zero rwm"],
        ),
        ("adapter", 0, vec![]),
    ] {
        let mut registered = kubelet.registered(&format!("devic.es/{name}")).await;
        if units == 0 {
            assert_eq!(registered.list().await.len(), 0, "{name}");
            continue;
        }
        let mut given = given(&mut registered).await;
        given.sort();
        assert_eq!(given, nodes, "{name}");
    }
}

/// Case README 8. As in that plugin, arguments win over variables, and variables over the file.
#[tokio::test]
async fn its_environment_and_its_files_flags_count_in_their_order() {
    let node = Node::new();
    let other = node.path("other");
    fs::create_dir(&other).expect("a directory");
    let ports = [Port::reserve(), Port::reserve()];
    let [of_file, of_environment] = ports.each_ref().map(|port| port.address.to_string());
    let file = format!(
        "domain: file.example\nlisten: \"{of_file}\"\nlog-level: debug\nplugin-directory: {}\ndevices: [{{name: fuse, groups: \
         [{{paths: [{{path: /dev/null}}]}}]}}]",
        node.kubelet_dir().display()
    );
    let file = node.write("config.yaml", &file);
    let file = file.to_str().expect("a path");
    let common = [
        "--config",
        file,
        "--cdi-dir",
        other.to_str().expect("a path"),
        "--pod-resources",
        "",
        "--cdi",
        "off",
    ];
    for (environment, arguments, name, address) in [
        (vec![], vec![], "file.example/fuse", &of_file),
        (
            vec![("DOMAIN", "env.example"), ("LISTEN", of_environment.as_str())],
            vec![],
            "env.example/fuse",
            &of_environment,
        ),
        (
            vec![("DOMAIN", "env.example"), ("LISTEN", "256.0.0.1:1")],
            vec!["--domain", "argument.example", "--listen", of_file.as_str()],
            "argument.example/fuse",
            &of_file,
        ),
    ] {
        let mut kubelet = node.kubelet(Behaviour::Normal);
        let all: Vec<&str> = common.into_iter().chain(arguments).collect();
        let mut plugin = node.plugin_of(&environment, &all);
        kubelet.registered(name).await.list().await;
        eventually("it answers", || get(address, "/health").is_some()).await;
        let (_, metrics) = get(address, "/metrics").expect("metrics");
        let line = format!("generic_device_plugin_devices{{resource=\"{name}\"}} 1");
        assert!(metrics.lines().any(|metric| metric == line), "{line}: {metrics}");
        plugin.terminate().await;
    }
}

/// Case README 8.
#[tokio::test]
async fn an_invalid_value_of_its_environment_or_file_is_refused_by_name() {
    let node = Node::new();
    let file = node.write("config.yaml", "log-level: loud\ndevices: [{name: fuse}]");
    let (status, _, printed) = node.run(&["--config", file.to_str().expect("a path")]);
    assert_eq!(status.code(), Some(2), "{printed}");
    assert!(
        printed.contains("the log level is \"loud\": it must be all, debug"),
        "{printed}"
    );
    let (status, _, printed) = node.run(&["--device", "groups: [", "--listen", ""]);
    assert_eq!(status.code(), Some(2), "{printed}");
    assert!(printed.contains("--device, number 1: "), "{printed}");
}

/// The output of `--check` without a source.
fn found_by_itself(command: &mut Command) -> String {
    let output = command
        .args([
            "--check",
            "--kubelet-dir",
            "/nowhere",
            "--engine-socket",
            "/nowhere",
            "--cdi",
            "on",
        ])
        .output()
        .expect("run the plugin");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

const PLUGIN: &str = env!("CARGO_BIN_EXE_oci-hotplug-device-plugin");
const FILE: &str = "devices: [{name: fuse, groups: [{paths: [{path: /dev/null}]}]}]";

/// Case README 8.
#[test]
fn its_file_in_the_working_directory_is_found() {
    let node = Node::new();
    node.write("config.yaml", FILE);
    let printed = found_by_itself(Command::new(PLUGIN).current_dir(node.path("")));
    assert!(printed.contains("devic.es/fuse: 1 healthy"), "{printed}");
    node.write("config.yaml", "something: else");
    let printed = found_by_itself(Command::new(PLUGIN).current_dir(node.path("")));
    assert!(
        !printed.contains("something"),
        "a file of another program is not read: {printed}"
    );
}

/// Case README 8.
#[test]
#[ignore = "needs root: a private /etc"]
fn its_file_in_etc_is_found() {
    let node = Node::new();
    let file = node.write("theirs.yaml", FILE);
    let script = format!(
        "mount -t tmpfs none /etc && mkdir /etc/generic-device-plugin && cp {} /etc/generic-device-plugin/config.yaml && exec \
         {PLUGIN} \"$@\"",
        file.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    let printed = found_by_itself(&mut command);
    assert!(printed.contains("devic.es/fuse: 1 healthy"), "{printed}");
    command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    let printed = found_by_itself(command.args(["--device", "name: tun"]));
    assert!(
        printed.contains("devic.es/tun: 0 healthy") && !printed.contains("fuse:"),
        "{printed}"
    );
}

/// Case README 13. Paths outside /dev, which have no events.
#[tokio::test]
async fn a_unit_is_advertised_once_its_mount_is_there_and_no_longer_than_that() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let socket = node.path("service.sock");
    let device = format!(
        "name: r\ngroups: [{{paths: [{{path: /dev/null}}, {{path: {}, type: Mount, readOnly: true}}]}}]",
        socket.display()
    );
    let _plugin = node.plugin(&["--device", &device]);
    let mut registered = kubelet.registered("devic.es/r").await;
    assert_eq!(registered.list().await.len(), 0);
    node.write("service.sock", "");
    registered.list_where(|list| list.len() == 1).await;
    fs::remove_file(&socket).expect("remove the mount");
    registered.list_where(<[_]>::is_empty).await;
}

/// Case README 14.
#[tokio::test]
async fn thousands_of_units_reach_kubelet() {
    let node = Node::new();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write("conf.yaml", "- devicematch: ^null$\n  nummaxdevices: 10000\n");
    let plugin = node.plugin(&[
        "--smarter-config",
        config.to_str().expect("a path"),
        "--device",
        "name: f\ngroups: [{count: 20000, paths: [{path: /dev/null}]}]",
    ]);
    for (name, count) in [("smarter-devices/null", 10_000), ("devic.es/f", 20_000)] {
        assert_eq!(kubelet.registered(name).await.list().await.len(), count, "{name}");
    }
    println!("{:?} ticks and KiB", plugin.costs());
    assert!(
        plugin
            .log()
            .lines()
            .all(|line| !line.contains("more than kubelet takes")),
        "{}",
        plugin.log()
    );
    let (status, printed, _) = node.run(&["--check", "--device", "name: f\ngroups: [{count: 30000}]"]);
    assert_eq!(status.code(), Some(1));
    assert!(
        printed.contains("note: --device, number 1 (\"f\"), group 1: count 30000"),
        "{printed}"
    );
    assert_eq!(
        kubelet.registers_within(Duration::from_millis(10)).await,
        None,
        "--check changes nothing"
    );
}
