//! The plugin's documents: man page and completions contain all options, and the plugin accepts all
//! examples.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::device_plugin::Node;
use crate::{stdout_of, yaml};

const PLUGIN: &str = env!("CARGO_BIN_EXE_oci-hotplug-device-plugin");

#[test]
fn install_sh_brings_plugin_page_and_completions_which_name_every_option() {
    let root = tempfile::tempdir().expect("a directory");
    let programs = Path::new(PLUGIN).parent().expect("a directory");
    stdout_of(
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/install.sh"))
            .arg("--device-plugin")
            .arg("--bin-dir")
            .arg(programs)
            .env("DESTDIR", root.path())
            .env_remove("PREFIX"),
    );
    let read = |path: &str| {
        fs::read_to_string(root.path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let page = read("usr/share/man/man8/oci-hotplug-device-plugin.8");
    let plain = page.replace('\\', "");
    let completions = [
        "usr/share/bash-completion/completions/oci-hotplug-device-plugin",
        "usr/share/zsh/site-functions/_oci-hotplug-device-plugin",
        "usr/share/fish/vendor_completions.d/oci-hotplug-device-plugin.fish",
    ]
    .map(read);
    let help = stdout_of(Command::new(PLUGIN).arg("--help"));
    let options: Vec<&str> = help
        .lines()
        .filter_map(|line| {
            line.trim_start()
                .strip_prefix("--")?
                .split([' ', '=', '['])
                .next()
        })
        .collect();
    assert!(
        options.contains(&"grace-period") && options.len() > 10,
        "{options:?}"
    );
    for option in options {
        assert!(
            plain.contains(&format!("--{option}")),
            "the page lacks --{option}"
        );
        for text in &completions {
            assert!(text.contains(option), "a completion lacks {option}");
        }
    }
    assert!(root.path().join("usr/bin/oci-hotplug-device-plugin").is_file());
    assert!(page.contains("oci-hotplug-device-plugin 8 "), "{}", &page[..200]);
}

/// The YAML blocks of docs/kubernetes.md.
fn yaml_blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes.md");
    let text = fs::read_to_string(path).expect("the document");
    let mut blocks = text.split("```yaml\n").skip(1);
    let mut found = Vec::new();
    for block in blocks.by_ref() {
        let (block, _) = block.split_once("```").expect("an end of the block");
        found.push(block.to_owned());
    }
    found
}

/// The right column of a block with manifests before and after.
fn after(block: &str) -> Option<String> {
    let column = block.lines().next()?.find("# after")?;
    let lines = block.lines().skip(1);
    // Count characters instead of bytes, because of "…".
    let lines = lines.map(|line| line.chars().skip(column).collect::<String>());
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// The arguments of the container in a manifest, which has a list `containers` or is its only
/// element.
fn arguments(manifest: &str) -> Vec<String> {
    let manifest = yaml(manifest);
    let container = match manifest.get("containers") {
        Some(containers) => &containers[0],
        None => &manifest[0],
    };
    let arguments = container["args"].as_array().expect("arguments");
    let texts = arguments
        .iter()
        .map(|text| text.as_str().expect("text").to_owned());
    texts.collect()
}

#[test]
fn every_example_of_the_clusters_document_is_read_by_the_plugin() {
    let node = Node::new();
    let classes = "[class.lab-board]\ndevices = [\"usb:0403:6001\"]\n";
    let classes = node.write("config.toml", classes);
    let check = |arguments: &[&str]| {
        let mut all = vec!["--check"];
        all.extend(arguments);
        let environment = [("OCI_HOTPLUG_CONFIG", classes.to_str().expect("a path"))];
        let (status, out, printed) = node.run_with(&environment, &all);
        // 1: this machine lacks something. 2: the configuration has an error.
        assert!(
            matches!(status.code(), Some(0 | 1)),
            "{arguments:?}: {printed}{out}"
        );
        assert!(
            !printed.contains("ERROR") && !out.contains("note: "),
            "{arguments:?}: {printed}{out}"
        );
        out
    };
    let (mut files, mut manifests, mut others) = (Vec::new(), 0, 0);
    for block in yaml_blocks() {
        if let Some(manifest) = after(&block) {
            manifests += 1;
            // The file of another example, or in another plugin's format.
            let arguments =
                arguments(&manifest)
                    .into_iter()
                    .map(|argument| match argument.split_once("=/") {
                        Some(("--smarter-config", _)) => {
                            let file =
                                node.write("conf.yaml", "- {devicematch: ^null$, nummaxdevices: 20}\n");
                            format!("--smarter-config={}", file.display())
                        }
                        Some(("--config", _)) => format!("--config={}", node.path("example.yaml").display()),
                        _ => argument,
                    });
            let arguments: Vec<String> = arguments.collect();
            check(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        } else if block.contains("kustomization.yaml") {
            others += 1;
        } else {
            let file = node.write("example.yaml", &block);
            files.push(check(&["--config", file.to_str().expect("a path")]));
        }
    }
    assert_eq!(
        (files.len(), manifests, others),
        (6, 4, 1),
        "what the document shows"
    );
    let all = files.concat();
    for name in [
        "example.com/sensor",
        "oci-hotplug.dev/tpu",
        "hostdev.k8s.io/dev_ttyUSB0",
        "smarter-devices/ttyUSB0",
        "devic.es/serial",
        "usbip.dev.mvalvekens.be/board",
    ] {
        assert!(all.contains(&format!("{name}: ")), "{name}: {all}");
    }
}
