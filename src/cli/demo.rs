//! `oci-hotplug demo`: the promise kept, in front of one's eyes.
//!
//! A small container under plain runc with our two hooks in its config.json; a real block device that is plugged
//! in (a partition of a loop device), read through inside, unplugged, and gone. Everything it makes is its own
//! and is removed again, also when a step fails.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    Capability, Hook, HookBuilder, HooksBuilder, LinuxBuilder, LinuxCapabilitiesBuilder,
    LinuxDeviceCgroupBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, get_default_mounts,
};

use crate::host::programs;
use crate::model::request::annotations;
use crate::sys::loop_device::LoopDevice;

/// What the disk says when it is read.
const WORDS: &str = "Hello from the disk that was just plugged in.";

/// The size of the disk, and where its partition begins, in bytes.
const DISK: u64 = 4 << 20;
const PARTITION_START: u64 = 1 << 20;

/// By default an annotation gets only what is on USB. A host without hardware has loop devices to show.
const CONFIG: &str = "[[policy.allow]]\ndevices = [\"subsystem:block\"]\n";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows it.
pub fn run() -> Result<()> {
    let tools = Tools::find()?;
    let scratch = Scratch::new()?;
    let disk = Disk::new(&scratch.dir)?;
    let node = disk.partition_node();

    say(&format!(
        "A container under plain runc, which asks for {node} by the annotation"
    ));
    say(&format!(
        "{} = \"devnode:{node}\"; the device does not exist yet.",
        annotations::DEVICES
    ));
    let container = DemoContainer::start(&tools, &scratch, &node)?;
    container.shows(&format!("ls {node}"), "No such file or directory")?;

    say(&format!(
        "Plugging it in: a partition appears on the host, {node}."
    ));
    let (major, minor) = disk.plug()?;
    container.eventually(&format!("head -c {} {node}", WORDS.len()), |output| {
        output.status.success() && output.stdout == WORDS.as_bytes()
    })?;
    container.shows(&format!("ls -l {node}"), &node)?;
    container.shows(&format!("head -c {} {node}", WORDS.len()), WORDS)?;

    say("What the host knows of it:");
    print!("{}", container.list()?);

    say("Pulling it out.");
    disk.unplug()?;
    container.eventually(&format!("ls {node}"), |output| !output.status.success())?;
    container.shows(&format!("ls {node}"), "No such file or directory")?;
    say("And a node that the container keeps, or makes for itself, is refused:");
    container.shows(
        &format!("mknod /dev/kept b {major} {minor} && ls -l /dev/kept"),
        "/dev/kept",
    )?;
    container.shows("head -c 1 /dev/kept", "/dev/kept: Operation not permitted")?;

    say("Stopping the container.");
    drop(container);
    drop(disk);
    let left = fs::read_dir(scratch.state_dir().join("containers")).map_or(0, Iterator::count);
    ensure!(
        left == 0,
        "{left} records are left in {}",
        scratch.state_dir().display()
    );
    drop(scratch);
    say("Nothing is left behind. To have this for your containers: see README.md.");
    Ok(())
}

fn say(text: &str) {
    println!("==> {text}");
}

/// The programs that the demo needs, and our own.
struct Tools {
    runc: PathBuf,
    busybox: PathBuf,
    prestart: PathBuf,
    poststop: PathBuf,
}

impl Tools {
    fn find() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the demo starts a container and plugs a disk in: run it as root"
        );
        Ok(Self {
            runc: in_path("runc", "apt-get install runc")?,
            busybox: in_path("busybox", "apt-get install busybox-static")?,
            prestart: programs::find("oci-hotplug-prestart")?,
            poststop: programs::find("oci-hotplug-poststop")?,
        })
    }
}

fn in_path(name: &str, hint: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed ({hint})"))
}

/// A directory of our own, removed when dropped.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("oci-hotplug-demo-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        let scratch = Self { dir };
        fs::write(scratch.config(), CONFIG).context("writing a configuration")?;
        Ok(scratch)
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("oci-hotplug: removing {}: {error}", self.dir.display());
        }
    }
}

/// A disk with one partition, which comes and goes.
struct Disk {
    device: LoopDevice,
}

impl Disk {
    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("disk.img");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        file.set_len(DISK)?;
        std::os::unix::fs::FileExt::write_all_at(&file, WORDS.as_bytes(), PARTITION_START)?;
        let device = LoopDevice::attach(file.as_fd()).context("attaching a loop device (modprobe loop?)")?;
        Ok(Self { device })
    }

    fn partition_node(&self) -> String {
        format!("/dev/loop{}p1", self.device.number())
    }

    /// Plugs the partition in; its device number.
    fn plug(&self) -> Result<(u32, u32)> {
        self.device
            .add_partition(1, PARTITION_START, PARTITION_START)
            .context("adding a partition")?;
        let loop_name = format!("loop{}", self.device.number());
        let path = format!("/sys/block/{loop_name}/{loop_name}p1/dev");
        let number = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let (major, minor) = number
            .trim()
            .split_once(':')
            .with_context(|| format!("{path} holds {number:?}"))?;
        Ok((major.parse()?, minor.parse()?))
    }

    fn unplug(&self) -> Result<()> {
        // udevd may be looking at it right now.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.device.delete_partition(1) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other.context("removing the partition"),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A partition would outlive its disk. Mostly it is gone by now.
        let _ = self.device.delete_partition(1);
    }
}

/// The container; deleted when dropped.
struct DemoContainer<'a> {
    tools: &'a Tools,
    scratch: &'a Scratch,
    id: String,
}

impl<'a> DemoContainer<'a> {
    fn start(tools: &'a Tools, scratch: &'a Scratch, node: &str) -> Result<Self> {
        let bundle = scratch.dir.join("bundle");
        make_rootfs(&bundle.join("rootfs"), &tools.busybox)?;
        let spec = spec(tools, scratch, node)?;
        spec.save(bundle.join("config.json"))
            .context("writing config.json")?;
        let id = format!("oci-hotplug-demo-{}", std::process::id());
        let container = Self { tools, scratch, id };
        // Not a pipe: the container's own process keeps these open, and we would wait for its end.
        let words = scratch.dir.join("runc.log");
        let run = container
            .runc()
            .args(["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg(&container.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&words)?)
            .status()
            .context("starting runc")?;
        ensure!(
            run.success(),
            "runc run failed:\n{}",
            fs::read_to_string(&words).unwrap_or_default()
        );
        Ok(container)
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(&self.tools.runc);
        command.arg("--root").arg(self.scratch.dir.join("runc"));
        command
    }

    fn sh(&self, line: &str) -> Result<Output> {
        self.runc()
            .args(["exec", &self.id, "sh", "-c", line])
            .output()
            .context("runc exec")
    }

    /// Runs a line inside, shows both, and makes sure that the answer has `part` in it.
    fn shows(&self, line: &str, part: &str) -> Result<()> {
        let output = self.sh(line)?;
        let answer = [output.stdout, output.stderr].concat();
        let answer = String::from_utf8_lossy(&answer);
        println!("    inside # {line}");
        for answer_line in answer.lines() {
            println!("    {answer_line}");
        }
        ensure!(answer.contains(part), "expected {part:?} in the answer");
        Ok(())
    }

    fn eventually(&self, line: &str, is_so: impl Fn(&Output) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.sh(line)?;
            if is_so(&output) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "inside, `{line}` still says: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }

    fn list(&self) -> Result<String> {
        let output = Command::new("/proc/self/exe")
            .arg("--state-dir")
            .arg(self.scratch.state_dir())
            .args(["inspect", &self.id])
            .output()
            .context("oci-hotplug inspect")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| format!("    {line}\n")).collect())
    }
}

impl Drop for DemoContainer<'_> {
    fn drop(&mut self) {
        let delete = self.runc().args(["delete", "--force", &self.id]).output();
        match delete {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!(
                "oci-hotplug: runc delete: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => eprintln!("oci-hotplug: runc delete: {error}"),
        }
    }
}

fn make_rootfs(rootfs: &Path, busybox: &Path) -> Result<()> {
    let bin = rootfs.join("bin");
    for dir in [
        &bin,
        &rootfs.join("dev"),
        &rootfs.join("proc"),
        &rootfs.join("sys"),
    ] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::copy(busybox, bin.join("busybox")).context("copying busybox")?;
    fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755))?;
    for applet in ["sh", "ls", "head", "sleep", "mknod"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

fn spec(tools: &Tools, scratch: &Scratch, node: &str) -> Result<Spec> {
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Network,
    ]
    .into_iter()
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
    .collect::<Result<Vec<_>, _>>()?;
    // What every engine writes: no devices but those that the runtime adds.
    let nothing = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let hooks = HooksBuilder::default()
        .create_runtime(vec![hook(&tools.prestart, scratch)?])
        .poststop(vec![hook(&tools.poststop, scratch)?])
        .build()?;
    // The one capability with which a container could try to make itself a node.
    let mknod: HashSet<Capability> = [Capability::Mknod].into_iter().collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(mknod.clone())
        .effective(mknod.clone())
        .permitted(mknod)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .capabilities(capabilities)
        .args(["/bin/sleep".to_owned(), "600".to_owned()])
        .env(["PATH=/bin".to_owned()])
        .cwd("/")
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(None);
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(LinuxResourcesBuilder::default().devices(vec![nothing]).build()?)
        .build()?;
    let annotation = (annotations::DEVICES.to_owned(), format!("devnode:{node}"));
    Ok(SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path("rootfs").readonly(false).build()?)
        .process(process)
        .mounts(
            get_default_mounts()
                .into_iter()
                .filter(is_small)
                .collect::<Vec<_>>(),
        )
        .hostname("hotplug")
        .annotations(
            [annotation]
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        )
        .hooks(hooks)
        .linux(linux)
        .build()?)
}

/// Only /proc and the /dev of any container: cgroup mounts differ from host to host.
fn is_small(mount: &oci_spec::runtime::Mount) -> bool {
    ["/proc", "/dev", "/dev/pts"]
        .iter()
        .any(|path| mount.destination() == Path::new(path))
}

fn hook(program: &Path, scratch: &Scratch) -> Result<Hook> {
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(HookBuilder::default()
        .path(program)
        .args([
            name,
            "--state-dir".into(),
            scratch.state_dir().to_string_lossy().into_owned(),
            "--config".into(),
            scratch.config().to_string_lossy().into_owned(),
        ])
        .timeout(10)
        .build()?)
}
