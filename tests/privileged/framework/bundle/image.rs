//! The root file system of a bundle.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::MAPPED;
use crate::framework::machine::open_to_all;

/// The process of every container: waits without a child process, writes what signals it got, and
/// ends on SIGTERM.
const INIT: &str = "\
#!/bin/sh
exec </dev/null >/dev/null 2>&1
trap 'echo stopped >/words/last; exit 0' TERM
trap 'echo usr1 >/words/last' USR1
echo listening >/words/last
while :; do sleep 3600 & wait $!; kill $!; done
";

const APPLETS: [&str; 18] = [
    "sh", "cat", "chmod", "dd", "grep", "head", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mv",
    "readlink", "rm", "sleep", "stat",
];

/// Mounts the host's root file system with a writable layer, which is on the scratch file system.
/// `/run` is empty, as in an image: on a host where it is not a mount, it has udevd's database.
pub(super) fn layer_over_host(rootfs: &Path) {
    let parent = rootfs.parent().expect("a bundle has a directory");
    let [upper, work] = ["upper", "work"].map(|name| parent.join(name));
    for directory in [&upper, &work, &rootfs.to_owned()] {
        fs::create_dir_all(directory).expect("make a directory for a layer");
    }
    open_to_all(parent);
    // A device 0:0 in the writable layer hides the file below it
    // (Documentation/filesystems/overlayfs.rst).
    mknod(&upper.join("run"), SFlag::S_IFCHR, Mode::empty(), 0).expect("hide the host's /run");
    let options = format!(
        "lowerdir=/,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    let overlay = Some("overlay");
    mount(overlay, rootfs, overlay, MsFlags::empty(), Some(options.as_str())).expect("mount an overlay");
    fs::create_dir(rootfs.join("run")).expect("make the image's /run");
    let init = rootfs.join("bin/init");
    fs::write(&init, INIT).expect("write the image's init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("make a program executable");
}

pub(super) fn unpack_image(rootfs: &Path) {
    for directory in ["bin", "dev", "proc", "sys", "words", "nodes", "tmp"] {
        fs::create_dir_all(rootfs.join(directory)).expect("make a directory of the image");
    }
    let parent = rootfs.parent().expect("a bundle has a directory");
    open_to_all(parent);
    open_to_all(rootfs);
    let busybox = rootfs.join("bin/busybox");
    let source = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    fs::copy(
        source.expect("busybox is not installed: apt-get install busybox-static"),
        &busybox,
    )
    .expect("copy busybox");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    let init = rootfs.join("bin/init");
    fs::write(&init, INIT).expect("write the image's init");
    for program in [busybox, init] {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make a program executable");
    }
}

pub(super) fn give_to_mapped_root(path: &Path) {
    lchown(path, Some(MAPPED.0), Some(MAPPED.0)).expect("give the image to the mapped root");
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        for entry in fs::read_dir(path).expect("list the image").flatten() {
            give_to_mapped_root(&entry.path());
        }
    }
}
