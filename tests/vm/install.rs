//! Puts what was built into the machine.

use std::path::Path;
use std::process::Command;

use crate::machine::Machine;

/// What the containers are made of: busybox, and nothing else.
const BOX: &str = "mkdir -p /var/lib/box/bin /var/lib/box/tmp /var/lib/box/dev /var/lib/box/proc /var/lib/box/sys /var/lib/box/etc \
    /var/lib/box/run && cp /bin/busybox /var/lib/box/bin/ && chroot /var/lib/box /bin/busybox --install -s /bin && \
    tar -C /var/lib/box -cf /var/lib/box.tar .";

/// By default an annotation gets what is on USB, and no keyboards or tablets. The stories ask for a tablet and for a
/// camera that is no hardware at all.
const POLICY: &str = "[[policy.allow]]\ndevices = [\"usb:0627:0001\", \"subsystem:video4linux\"]\n";

/// The directory of the executables that were built with this test.
fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .parent()
        .expect("executables are in a directory")
}

/// Installs as packages do: install.sh into a directory of its own, and that into the machine. Makes the CDI
/// device of the stories and lays the containers' root file system ready.
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
    std::fs::write(drop_ins.join("50-stories.toml"), POLICY).expect("writing the policy");
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
        "oci-hotplug cdi generate serial --device usb:0403:6001 --symlink usb:0403:6001:0=/dev/ttyBOARD",
    );
    machine.run(BOX);
}
