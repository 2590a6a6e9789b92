//! Installs the built programs in the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Machine;
use crate::release;

/// The content of the containers' image: busybox and nothing else.
const BOX: &str = "mkdir -p /var/lib/box/bin /var/lib/box/tmp /var/lib/box/dev /var/lib/box/proc /var/lib/box/sys /var/lib/box/etc \
    /var/lib/box/run && cp /bin/busybox /var/lib/box/bin/ && chroot /var/lib/box /bin/busybox --install -s /bin && \
    tar -C /var/lib/box -cf /var/lib/box.tar .";

/// By default an annotation gets devices on USB, and no keyboards or tablets. The tests request a
/// tablet and a camera without hardware. Tests of a hub with adapters request the class by name, or
/// by the CDI device generated from it.
const CONFIG: &str = r#"
[[policy.allow]]
devices = ["usb:0627:0001", "subsystem:video4linux"]

[class.lab-board]
devices = ["parent-of:usb:0403:6001:FT001", "usb:0403:6001:FT001;link=/dev/board"]
symlinks = ["usb:0403:6001:0=/dev/ttyBOARD"]
"#;

/// A CNI plugin that gives a pod a separate network with nothing but the loopback interface, and
/// with an unused address, because containerd requires one.
const CNI_PLUGIN: &str = r#"#!/bin/sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}' ;;
ADD)
    nsenter --net="$CNI_NETNS" ip link set lo up
    echo "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"$CNI_IFNAME\",\"sandbox\":\"$CNI_NETNS\"}]," \
        '"ips":[{"interface":0,"address":"10.88.0.2/24"}]}'
    ;;
esac
"#;

/// The directory of the release executables.
pub fn built() -> PathBuf {
    let executables = [
        "oci-hotplug-prestart",
        "oci-hotplug-poststop",
        "oci-hotplug-watcher",
        "oci-hotplug-usbip",
        "oci-hotplug-device-plugin",
        "oci-hotplug",
    ];
    let paths = executables.map(release::executable);
    paths[0].parent().expect("a directory").to_owned()
}

/// Installs as packages do: runs install.sh with a staging directory, and unpacks that in the
/// machine. Creates the CDI devices of the tests and the containers' root file system.
pub fn install(machine: &Machine) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let staged = tempfile::tempdir().expect("a directory to install into");
    let installed = Command::new(root.join("packaging/install.sh"))
        .arg("--bin-dir")
        .arg(built())
        .env("DESTDIR", staged.path())
        .output()
        .expect("running install.sh");
    assert!(
        installed.status.success(),
        "install.sh: {}",
        String::from_utf8_lossy(&installed.stderr)
    );
    let drop_ins = staged.path().join("etc/oci-hotplug/config.d");
    std::fs::create_dir_all(&drop_ins).expect("a directory for the policy");
    std::fs::write(drop_ins.join("50-stories.toml"), CONFIG).expect("writing the policy");
    let archive = Command::new("tar")
        .arg("-C")
        .arg(staged.path())
        .args(["-c", "."])
        .output()
        .expect("running tar");
    let output = machine.output_given(
        "tar -x -C / --no-same-owner --keep-directory-symlink",
        &archive.stdout,
    );
    assert!(
        output.status.success(),
        "installing: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    machine.run(
        "oci-hotplug cdi generate serial --device usb:0403:6001 --symlink usb:0403:6001:0=/dev/ttyBOARD && \
         oci-hotplug cdi generate --all",
    );
    // In the directories where CRI-O and Debian's containerd look for it.
    machine.write("/opt/cni/bin/alone", CNI_PLUGIN);
    machine.write(
        "/etc/cni/net.d/10-alone.conflist",
        r#"{ "cniVersion": "1.0.0", "name": "alone", "plugins": [{ "type": "alone" }] }"#,
    );
    machine.run("cd /opt/cni/bin && chmod 0755 alone && ln -sf alone loopback && mkdir -p /usr/lib/cni && ln -sf $PWD/* /usr/lib/cni/");
    machine.run(BOX);
}
