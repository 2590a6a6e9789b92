//! The engines, each used by its command line.

use serde_json::{Value, json};

use crate::container::{Container, idle_with_shell, quoted};
use crate::machine::Machine;
use crate::setup::Setup;

/// An OCI runtime by the name that engines use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    Crun,
    Runc,
    Youki,
}

impl Runtime {
    /// The path of its program.
    pub fn path(self) -> &'static str {
        match self {
            Self::Crun => "/usr/bin/crun",
            Self::Runc => "/usr/sbin/runc",
            Self::Youki => "/usr/local/bin/youki",
        }
    }

    /// Its name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Youki => "youki",
        }
    }
}

/// Every engine, each with the runtime that it is mostly used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Podman,
    Docker,
    Containerd,
    Crio,
}

impl Engine {
    pub const ALL: [Self; 4] = [Self::Podman, Self::Docker, Self::Containerd, Self::Crio];

    /// Starts a container of this engine.
    pub fn start<'a>(self, machine: &'a Machine, setup: &Setup) -> Container<'a> {
        match self {
            Self::Podman => podman(machine, Runtime::Crun, &setup.options()),
            Self::Docker => docker(machine, &setup.options()),
            Self::Containerd => pod(machine, Cri::Containerd, Runtime::Runc, setup),
            Self::Crio => pod(machine, Cri::Crio, Runtime::Crun, setup),
        }
    }
}

/// Starts a container of podman with `runtime`: the hooks start by hooks.d if an annotation in
/// `options` requests devices, or by CDI.
pub fn podman<'a>(machine: &'a Machine, runtime: Runtime, options: &str) -> Container<'a> {
    podman_image(machine);
    let name = machine.new_name("c");
    let network = if options.contains("--network") {
        ""
    } else {
        "--network none"
    };
    // `--rootfs DIR` takes the place of the image, so it must be the last option.
    let image = if options.contains("--rootfs") {
        ""
    } else {
        "localhost/box"
    };
    // With the systemd cgroup manager, its default, youki 0.7.0 attaches no device filter: the
    // container has access to every device.
    let manager = match runtime {
        Runtime::Youki => "--cgroup-manager cgroupfs",
        Runtime::Crun | Runtime::Runc => "",
    };
    let id = machine.run(&format!(
        "podman {manager} --runtime {} run -d --name {name} {network} --cap-add MKNOD {options} {image} {}",
        runtime.path(),
        idle(&name)
    ));
    Container::new(
        machine,
        format!("podman exec -i {name}"),
        format!("podman rm -f -t 2 {name}"),
    )
    .with_shell(&name)
    .known_as(&id, &name)
    .updated_by(format!(
        "podman {manager} --runtime {} update --pids-limit 100 {name}",
        runtime.path()
    ))
}

/// The command of a container's first process, with a shell of this name.
pub fn idle(shell: &str) -> String {
    format!("sh -c {}", quoted(&idle_with_shell(shell)))
}

/// Imports the image of the tests' containers for podman and CRI-O, which share a store.
pub fn podman_image(machine: &Machine) {
    podman_imports(machine, "box:latest", "");
}

fn podman_imports(machine: &Machine, name: &str, options: &str) {
    // Read the store's list: `podman image exists` takes almost a second under emulation.
    machine.run(&format!(
        "grep -qs '\"localhost/{name}\"' /var/lib/containers/storage/overlay-images/images.json || \
         podman import -q {options} /var/lib/box.tar localhost/{name}"
    ));
}

/// Starts a container of Docker, through CDI.
pub fn docker<'a>(machine: &'a Machine, options: &str) -> Container<'a> {
    docker_image(machine);
    let name = machine.new_name("c");
    let network = if options.contains("--network") {
        ""
    } else {
        "--network none"
    };
    let id = machine.run(&format!(
        "docker run -d --name {name} {network} {options} box {}",
        idle(&name)
    ));
    Container::new(
        machine,
        format!("docker exec -i {name}"),
        format!("docker rm -f {name}"),
    )
    .with_shell(&name)
    .known_as(&id, &name)
    .updated_by(format!("docker update --pids-limit 100 {name}"))
}

/// Starts Docker's daemon and imports the image of the tests' containers.
pub fn docker_image(machine: &Machine) {
    machine.run(
        "systemctl start docker && { grep -qs '\"box:latest\"' /var/lib/docker/image/*/repositories.json || \
         docker import /var/lib/box.tar box; }",
    );
}

/// An engine with the interface that kubelet uses (CRI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cri {
    Containerd,
    Crio,
}

impl Cri {
    /// The crictl command for this engine.
    pub fn crictl(self) -> &'static str {
        match self {
            Self::Containerd => "crictl -r unix:///run/containerd/containerd.sock",
            Self::Crio => "crictl -r unix:///run/crio/crio.sock",
        }
    }

    /// Starts the engine with the images of pods and containers.
    pub fn start(self, machine: &Machine) {
        podman_image(machine);
        podman_imports(
            machine,
            "pause:test",
            r#"--change 'ENTRYPOINT ["/bin/busybox","sleep","1000000"]'"#,
        );
        machine.run(match self {
            Self::Containerd => {
                "set -o pipefail; systemctl start containerd; for image in pause:test box:latest; do \
                 grep -qsa localhost/$image /var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db || \
                 podman save -q --format docker-archive localhost/$image | ctr -n k8s.io images import - || exit 1; done"
            }
            Self::Crio => "systemctl start crio",
        });
    }
}

/// Starts a pod of one container as kubelet does. Pod and container have the same annotations.
pub fn pod<'a>(machine: &'a Machine, engine: Cri, runtime: Runtime, setup: &Setup) -> Container<'a> {
    engine.start(machine);
    let (name, crictl) = (machine.new_name("c"), engine.crictl());
    let (sandbox, container) = setup.pod(&name, &["sh", "-c", &idle_with_shell(&name)]);
    machine.write(&format!("/run/{name}/pod.json"), &sandbox.to_string());
    machine.write(&format!("/run/{name}/container.json"), &container.to_string());
    let started = machine.run(&format!(
        "set -e; cd /run/{name}; mkdir -p /var/log/pods/{name}; \
         pod=$({crictl} runp --runtime {} pod.json); echo $pod; \
         id=$({crictl} create --no-pull $pod container.json pod.json); echo $id; {crictl} start $id > /dev/null",
        runtime.name()
    ));
    let (pod, id) = started.split_once('\n').expect("two ids");
    Container::new(
        machine,
        format!("{crictl} exec -i {id}"),
        format!("{crictl} rmp -f {pod}"),
    )
    .with_shell(&name)
    .known_as(id, &format!("tests/{name}/{name}"))
    .updated_by(format!("{crictl} update --cpu-share 512 {id}"))
}

/// A container of an OCI runtime alone, with our hooks in its config.json.
pub fn bundle<'a>(machine: &'a Machine, runtime: Runtime, setup: &Setup) -> Container<'a> {
    bundle_with_hooks(machine, runtime, setup, &our_hooks())
}

/// Our hooks as a config.json has them.
pub fn our_hooks() -> Value {
    let hooks = "/usr/libexec/oci/hooks.d/oci-hotplug";
    json!({ "createRuntime": [{ "path": format!("{hooks}-prestart") }],
        "poststop": [{ "path": format!("{hooks}-poststop") }] })
}

/// A container of an OCI runtime alone, without our hooks.
pub fn bundle_without_hooks<'a>(machine: &'a Machine, runtime: Runtime, setup: &Setup) -> Container<'a> {
    bundle_with_hooks(machine, runtime, setup, &json!({}))
}

fn bundle_with_hooks<'a>(
    machine: &'a Machine,
    runtime: Runtime,
    setup: &Setup,
    hooks: &Value,
) -> Container<'a> {
    let (name, program) = (bundle_directory(machine, setup, hooks), runtime.path());
    machine.run(&format!(
        "cd /run/{name}; \
         {program} create {name} < /dev/null > output 2>&1 || {{ cat output; exit 1; }}; {program} start {name}"
    ));
    Container::new(
        machine,
        format!("{program} exec {name}"),
        format!(
            "{program} kill {name} KILL; {}",
            crate::shell::until(&format!("{program} delete {name}"))
        ),
    )
    .known_as(&name, &name)
    .updated_by(format!("{program} update --pids-limit 100 {name}"))
}

/// Creates a bundle at /run/NAME for a container named NAME: `runc spec`'s config.json with these
/// hooks.
pub fn bundle_directory(machine: &Machine, setup: &Setup, hooks: &Value) -> String {
    let name = machine.new_name("c");
    let edit = format!(
        r#".process.args = ["sleep", "1000000"] | .process.terminal = false
            | .root = {{ "path": "/var/lib/box" }} | .hostname = "box"
            | .process.capabilities |= with_entries(.value += ["CAP_MKNOD"])
            | .hooks = {hooks}
            | $setup[0] as $setup | .annotations = $setup.annotations | .mounts += $setup.mounts
            | .linux.devices += $setup.devices | .linux.resources.devices += $setup.rules"#
    );
    machine.write(&format!("/run/{name}/edit.jq"), &edit);
    machine.write(&format!("/run/{name}/setup.json"), &setup.config().to_string());
    machine.run(&format!(
        "set -e; cd /run/{name}; runc spec; \
         jq --slurpfile setup setup.json -f edit.jq config.json > new.json; mv new.json config.json"
    ));
    name
}
