//! The container image (packaging/image.sh), run by runc alone with no more rights than the
//! DaemonSet's init container has: it installs hooks, watcher and tool on a host, here a bare
//! Debian, where they run.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stdout_of;

const HOOKS: &str = "usr/libexec/oci/hooks.d";
const WANTED: &str = "etc/systemd/system/multi-user.target.wants/oci-hotplug-recover.service";
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The image, unpacked, and a bare Debian as the host.
struct Scene {
    scratch: TempDir,
    config: Value,
}

impl Scene {
    fn new() -> Self {
        let scratch =
            TempDir::with_prefix_in("oci-hotplug-image.", env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let at = |name: &str| scratch.path().join(name);
        let programs = Path::new(env!("CARGO_BIN_EXE_oci-hotplug"))
            .parent()
            .expect("a directory");
        let archive = stdout_of(
            Command::new(here("packaging/image.sh"))
                .arg("--bin-dir")
                .arg(programs)
                .arg("--output")
                .arg(scratch.path()),
        );
        for directory in ["layout", "image", "host", "runc"] {
            fs::create_dir(at(directory)).expect("make a directory");
        }
        let unpack = |archive: &Path, to: &str| {
            stdout_of(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(at(to)));
        };
        unpack(Path::new(archive.trim()), "layout");
        let blob =
            |digest: &Value| at("layout/blobs").join(digest.as_str().expect("a digest").replace(':', "/"));
        let read = |path: &Path| -> Value {
            serde_json::from_slice(&fs::read(path).expect("read a blob")).expect("JSON")
        };
        let index = read(&at("layout/index.json"));
        let manifest = read(&blob(&index["manifests"][0]["digest"]));
        let config = read(&blob(&manifest["config"]["digest"]));
        for layer in manifest["layers"].as_array().expect("layers") {
            unpack(&blob(&layer["digest"]), "image");
        }
        let roots = stdout_of(&mut Command::new(here("tests/packages/roots.sh")));
        unpack(&Path::new(roots.trim()).join("bookworm.tar"), "host");
        Self { scratch, config }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    fn host(&self, path: &str) -> PathBuf {
        self.at("host").join(path)
    }

    /// Runs a container of the image with these arguments, as the init container of
    /// packaging/kubernetes/base.
    fn run(&self, arguments: &[&str]) -> Output {
        let capabilities = json!(["CAP_SYS_CHROOT"]);
        let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": arguments,
                "env": self.config["config"]["Env"],
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
                "noNewPrivileges": true,
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "root": { "path": self.at("image"), "readonly": true },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/host", "type": "bind", "source": self.at("host"), "options": ["rbind", "rw"] },
            ],
            "linux": { "namespaces": namespaces, "cgroupsPath": format!("/oci-hotplug-tests/image-{}", std::process::id()) },
        });
        fs::create_dir_all(self.at("image/host")).expect("make a mount point");
        fs::create_dir_all(self.at("image/proc")).expect("make a mount point");
        fs::write(self.at("config.json"), config.to_string()).expect("write config.json");
        Command::new("runc")
            .arg("--root")
            .arg(self.at("runc"))
            .args(["run", "--bundle"])
            .arg(self.scratch.path())
            .arg(format!("oci-hotplug-image-{}", std::process::id()))
            .output()
            .expect("start runc")
    }

    #[track_caller]
    fn installs(&self) -> String {
        let output = self.run(&["/usr/bin/oci-hotplug", "install", "--to", "/host"]);
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// The output of a program on the host.
    fn on_the_host(&self, program: &str) -> String {
        stdout_of(
            Command::new("chroot")
                .arg(self.at("host"))
                .arg(program)
                .arg("--version"),
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let parent = "/sys/fs/cgroup";
        let _ = fs::remove_dir(format!("{parent}/oci-hotplug-tests"));
        for hierarchy in fs::read_dir(parent).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join("oci-hotplug-tests"));
        }
    }
}

#[test]
#[ignore = "as root, with buildah and runc: tests/run.sh --privileged"]
fn the_image_installs_what_runs_on_the_host_and_again_changes_nothing() {
    let scene = Scene::new();
    let label = &scene.config["config"]["Labels"]["org.opencontainers.image.version"];
    assert_eq!(label, VERSION);
    assert_eq!(
        scene.config["config"]["Entrypoint"],
        json!(["/usr/bin/oci-hotplug-device-plugin"])
    );
    let plugin = scene.run(&["/usr/bin/oci-hotplug-device-plugin", "--version"]);
    assert_eq!(text(&plugin), format!("oci-hotplug-device-plugin {VERSION}\n"));

    let first = scene.installs();
    assert!(first.lines().all(|line| line.starts_with("wrote /")), "{first}");
    for name in [
        "oci-hotplug-prestart",
        "oci-hotplug-poststop",
        "oci-hotplug-watcher",
        "oci-hotplug-usbip",
    ] {
        let program = format!("{HOOKS}/{name}");
        assert_eq!(
            fs::read(scene.host(&program)).expect("the host's"),
            fs::read(scene.at("image").join(&program)).expect("the image's"),
            "{name}"
        );
        assert_eq!(
            scene.on_the_host(&format!("/{program}")),
            format!("{name} {VERSION}\n")
        );
    }
    assert_eq!(
        scene.on_the_host("/usr/bin/oci-hotplug"),
        format!("oci-hotplug {VERSION}\n")
    );
    for (file, words) in [
        (
            "etc/cdi/oci-hotplug.dev-device_annotated.json",
            "\"/usr/libexec/oci/hooks.d/oci-hotplug-prestart\"",
        ),
        (
            "usr/share/containers/oci/hooks.d/oci-hotplug-prestart.json",
            "/usr/libexec/oci/hooks.d/oci-hotplug-prestart",
        ),
        (
            "usr/lib/systemd/system/oci-hotplug-watcher@.service",
            "ExecStart=/usr/libexec/oci/hooks.d/oci-hotplug-watcher",
        ),
        (
            "usr/lib/systemd/system/oci-hotplug-recover.service",
            "ExecStart=/usr/bin/oci-hotplug recover",
        ),
    ] {
        let text = fs::read_to_string(scene.host(file)).expect("a file of the host's");
        assert!(text.contains(words), "{file}: {text}");
        assert_eq!(
            fs::metadata(scene.host(file)).expect("it").permissions().mode() & 0o777,
            0o644
        );
    }

    let at_boot = scene.host(WANTED);
    assert_eq!(
        fs::read_link(&at_boot).expect("a link"),
        Path::new("/usr/lib/systemd/system/oci-hotplug-recover.service")
    );
    fs::remove_file(&at_boot).expect("disable it, as an administrator may");

    let watcher = scene.host(&format!("{HOOKS}/oci-hotplug-watcher"));
    let inode = |path: &Path| fs::metadata(path).expect("it is there").ino();
    let before = inode(&watcher);
    let second = scene.installs();
    assert!(
        second.contains(&format!("unchanged /{HOOKS}/oci-hotplug-watcher\n")),
        "{second}"
    );
    assert!(
        second.lines().all(|line| line.starts_with("unchanged /")),
        "{second}"
    );
    assert_eq!(inode(&watcher), before);
    assert!(fs::symlink_metadata(&at_boot).is_err(), "it stays disabled");

    // Another version is installed by rename, so that running processes keep the old one.
    fs::write(&watcher, "another version").expect("change the watcher");
    let old = fs::File::open(&watcher).expect("open the old one");
    let third = scene.installs();
    assert!(
        third.contains(&format!("updated /{HOOKS}/oci-hotplug-watcher\n")),
        "{third}"
    );
    assert_eq!(third.matches("updated").count(), 1, "{third}");
    assert_eq!(
        std::io::read_to_string(old).expect("read the old one"),
        "another version"
    );
    let files = fs::read_dir(scene.host(HOOKS)).expect("list").flatten();
    let mut names: Vec<_> = files
        .map(|file| file.file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let programs = ["poststop", "prestart", "usbip", "watcher"];
    assert_eq!(names, programs.map(|name| format!("oci-hotplug-{name}")));
}

#[test]
#[ignore = "as root, with buildah and runc: tests/run.sh --privileged"]
fn links_resolve_as_on_the_host_and_programs_that_cannot_run_are_reported_before_an_engine_starts_them() {
    let scene = Scene::new();
    fs::create_dir_all(scene.host("opt/hooks")).expect("make a directory");
    fs::create_dir_all(scene.host("usr/libexec/oci")).expect("make a directory");
    symlink("/opt/hooks", scene.host(HOOKS)).expect("make an absolute link");
    let library = stdout_of(
        Command::new("find")
            .arg(scene.at("host/usr/lib"))
            .args(["-name", "libudev.so.1"]),
    );
    let library = Path::new(library.trim());
    let aside = library.with_extension("aside");
    fs::rename(library, &aside).expect("take libudev away");
    let output = scene.run(&["/usr/bin/oci-hotplug", "install", "--to", "/host"]);
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("cannot run /usr/bin/oci-hotplug on this host") && printed.contains("libudev.so.1"),
        "{printed}"
    );
    assert!(
        !scene
            .host("usr/share/containers/oci/hooks.d/oci-hotplug-prestart.json")
            .exists()
    );
    assert!(
        !scene
            .host("etc/cdi/oci-hotplug.dev-device_annotated.json")
            .exists()
    );

    fs::rename(aside, library).expect("bring libudev back");
    scene.installs();
    assert!(scene.host("opt/hooks/oci-hotplug-watcher").is_file());
    assert!(!scene.at("image/opt").exists());
    let elsewhere = scene.run(&[
        "/usr/bin/oci-hotplug",
        "install",
        "--to",
        "/host",
        "--prefix",
        "/opt/oci-hotplug",
    ]);
    assert!(elsewhere.status.success(), "{}", text(&elsewhere));
    assert_eq!(
        scene.on_the_host("/opt/oci-hotplug/libexec/oci/hooks.d/oci-hotplug-watcher"),
        format!("oci-hotplug-watcher {VERSION}\n")
    );
    let unit =
        fs::read_to_string(scene.host("etc/systemd/system/oci-hotplug-watcher@.service")).expect("a unit");
    assert!(
        unit.contains("ExecStart=/opt/oci-hotplug/libexec/oci/hooks.d/oci-hotplug-watcher "),
        "{unit}"
    );
    let recover =
        fs::read_to_string(scene.host("etc/systemd/system/oci-hotplug-recover.service")).expect("a unit");
    assert!(
        recover.contains("ExecStart=/opt/oci-hotplug/bin/oci-hotplug recover"),
        "{recover}"
    );
}
