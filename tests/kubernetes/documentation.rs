//! The plugin's man page and completions: all of its options, and where install.sh puts them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::said;

const PLUGIN: &str = env!("CARGO_BIN_EXE_oci-hotplug-device-plugin");

#[test]
fn install_sh_brings_plugin_page_and_completions_which_name_every_option() {
    let root = tempfile::tempdir().expect("a directory");
    let programs = Path::new(PLUGIN).parent().expect("a directory");
    said(
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
    let help = said(Command::new(PLUGIN).arg("--help"));
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
