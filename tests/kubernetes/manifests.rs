//! packaging/kubernetes: the Helm chart is valid and has the same objects as the Kustomize base.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{stdout_of, yaml};

/// Objects by kind; there is one of each.
type Objects = BTreeMap<String, Value>;

/// The Kubernetes version that the chart is rendered for; a helm that is built as a Go module
/// assumes an older one.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.34.0"];

fn packaged(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/kubernetes")
        .join(path)
}

fn helm() -> Command {
    static HELM: OnceLock<String> = OnceLock::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/helm.sh");
    Command::new(HELM.get_or_init(|| stdout_of(&mut Command::new(script)).trim().to_owned()))
}

/// The documents of a YAML stream. The plugin's configuration in the ConfigMap is compared as the
/// plugin parses it, without comments.
#[track_caller]
fn objects(text: &str) -> Objects {
    let mut objects = Objects::new();
    for document in text.split("\n---\n") {
        let mut object = yaml(document);
        if object.is_null() {
            continue;
        }
        if let Some(Value::Object(files)) = object.get_mut("data") {
            for (_, file) in files.iter_mut() {
                *file = yaml(file.as_str().expect("a file's text"));
            }
        }
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        assert!(
            objects.insert(kind.clone(), object).is_none(),
            "two of kind {kind}"
        );
    }
    objects
}

/// The base as Kustomize builds it, with the namespace in each object.
fn base() -> Objects {
    let read = |name: &str| fs::read_to_string(packaged("base").join(name)).expect("a file of the base");
    let kustomization = yaml(&read("kustomization.yaml"));
    let files = kustomization["resources"].as_array().expect("resources");
    let texts: Vec<String> = files
        .iter()
        .map(|file| read(file.as_str().expect("a name")))
        .collect();
    let mut all = objects(&texts.join("\n---\n"));
    for (kind, object) in &mut all {
        if kind != "Namespace" {
            object["metadata"]["namespace"] = kustomization["namespace"].clone();
        }
    }
    all
}

#[track_caller]
fn template(arguments: &[&str]) -> Objects {
    let mut command = helm();
    command.args(["template", "oci-hotplug", "--namespace", "oci-hotplug"]);
    objects(&stdout_of(
        command.args(KUBERNETES).args(arguments).arg(packaged("chart")),
    ))
}

#[test]
#[ignore = "builds helm: tests/run.sh --privileged"]
fn the_chart_is_in_order_and_says_what_the_base_says() {
    stdout_of(
        helm()
            .args(["lint", "--strict"])
            .args(KUBERNETES)
            .arg(packaged("chart")),
    );
    let base = base();
    assert_eq!(base.len(), 4, "{:?}", base.keys());
    assert_eq!(template(&["--set", "createNamespace=true"]), base);
    let mut without = base;
    without.remove("Namespace");
    assert_eq!(template(&[]), without);
}

/// The base with the component for events, as Kustomize builds it.
fn base_with_events() -> Objects {
    let read =
        |name: &str| fs::read_to_string(packaged("events").join(name)).expect("a file of the component");
    let component = yaml(&read("kustomization.yaml"));
    let mut all = base();
    all.extend(objects(&read("rbac.yaml")));
    let patch = yaml(component["patches"][0]["patch"].as_str().expect("a patch"));
    let pod = &mut all.get_mut("DaemonSet").expect("a DaemonSet")["spec"]["template"]["spec"];
    for step in patch.as_array().expect("steps") {
        assert_eq!(step["op"], "add");
        let path = step["path"].as_str().expect("a path");
        let list = path
            .strip_prefix("/spec/template/spec/")
            .and_then(|path| path.strip_suffix("/-"))
            .expect("a list in the pod");
        let list = match list.strip_prefix("containers/0/") {
            Some(list) => &mut pod["containers"][0][list],
            None => &mut pod[list],
        };
        list.as_array_mut().expect("a list").push(step["value"].clone());
    }
    all
}

#[test]
#[ignore = "builds helm: tests/run.sh --privileged"]
fn the_chart_with_events_says_what_the_base_with_the_component_says() {
    let chart = template(&["--set", "createNamespace=true", "--set", "events.enabled=true"]);
    assert_eq!(chart, base_with_events());
}

/// A further right is a decision.
#[test]
fn the_plugin_may_write_events_and_nothing_else_and_only_where_it_is_to() {
    let all = base_with_events();
    let rules = yaml("[{apiGroups: [''], resources: [events], verbs: [create, patch]}]");
    assert_eq!(all["ClusterRole"]["rules"], rules);
    let plain = base();
    assert!(
        plain.keys().all(|kind| !kind.contains("Role")),
        "{:?}",
        plain.keys()
    );
    let pod = &plain["DaemonSet"]["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(!pod.to_string().contains("serviceAccountToken"));
}

#[test]
#[ignore = "builds helm: tests/run.sh --privileged"]
fn the_charts_values_reach_plugin_and_node() {
    let all = template(&[
        "--set",
        "install.prefix=/opt/oci-hotplug",
        "--set",
        "devs=/dev/mem:r\\,/dev/fuse:rwm",
        "--set",
        "smarterConfig[0].devicematch=^snd$",
        "--set",
        "usbipConfig.resources.board[0].target.host=lab",
        "--set",
        "usbipConfig.resources.board[0].selector.vendor=0x0403",
        "--set",
        "image.tag=7",
        "--set",
        "extraArgs[0]=--cdi=off",
    ]);
    let pod = &all["DaemonSet"]["spec"]["template"]["spec"];
    let plugin = &pod["containers"][0];
    for argument in [
        "--devs=/dev/mem:r,/dev/fuse:rwm",
        "--smarter-config=/config/conf.yaml",
        "--usbip-config=/config/usbip.yaml",
        "--hook-dir=/opt/oci-hotplug/libexec/oci/hooks.d",
        "--cdi=off",
    ] {
        let arguments = plugin["args"].as_array().expect("arguments");
        assert!(
            arguments.contains(&argument.into()),
            "{argument} in {arguments:?}"
        );
    }
    let hooks = |list: &Value| {
        let list = list.as_array().expect("a list");
        let hooks = list.iter().find(|entry| entry["name"] == "hooks");
        hooks.expect("the hooks").clone()
    };
    let directory = "/opt/oci-hotplug/libexec/oci/hooks.d";
    assert_eq!(hooks(&plugin["volumeMounts"])["mountPath"], directory);
    assert_eq!(hooks(&pod["volumes"])["hostPath"]["path"], directory);
    assert_eq!(plugin["image"], "localhost/oci-hotplug-device-plugin:7");
    assert_eq!(pod["initContainers"][0]["args"][2], "--prefix=/opt/oci-hotplug");
    assert_eq!(all["ConfigMap"]["data"]["conf.yaml"][0]["devicematch"], "^snd$");
    let board = &all["ConfigMap"]["data"]["usbip.yaml"]["resources"]["board"][0];
    assert_eq!(board["target"]["host"], "lab");
    assert_eq!(board["selector"]["vendor"], "0x0403");

    let by_packages = template(&["--set", "install.enabled=false"]);
    let pod = &by_packages["DaemonSet"]["spec"]["template"]["spec"];
    assert!(pod.get("initContainers").is_none());
    let volumes = pod["volumes"].as_array().expect("volumes");
    assert!(
        volumes.iter().all(|volume| volume["name"] != "host"),
        "{volumes:?}"
    );
}

/// Names everything of the node that a container may change: an addition is a decision.
#[test]
fn the_containers_have_no_more_rights_than_they_need() {
    let base = base();
    let pod = &base["DaemonSet"]["spec"]["template"]["spec"];
    let rights = |container: &Value| {
        let security = &container["securityContext"];
        assert_eq!(security["privileged"], false);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"][0], "ALL");
        let added = security["capabilities"].get("add").cloned().unwrap_or_default();
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        let written = mounts
            .iter()
            .filter(|mount| mount.get("readOnly") != Some(&true.into()));
        let written: Vec<String> = written
            .map(|mount| mount["mountPath"].as_str().expect("a path").to_owned())
            .collect();
        (added, written)
    };
    let (added, written) = rights(&pod["containers"][0]);
    assert_eq!(
        (added, written),
        (
            Value::Null,
            vec![
                "/var/lib/kubelet/device-plugins".to_owned(),
                "/var/run/cdi".to_owned()
            ]
        )
    );
    let (added, written) = rights(&pod["initContainers"][0]);
    assert_eq!(added, yaml("[SYS_CHROOT]"));
    assert_eq!(written, ["/host"]);
}
