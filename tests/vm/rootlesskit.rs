//! Engines of an ordinary user in the namespaces of rootlesskit: rootless Docker, and containerd
//! with nerdctl, and with its own client. No uevents arrive in their network namespace, where the
//! hooks run.

use crate::container::{Container, IDLE, quoted};
use crate::engine::{bundle_directory, our_hooks};
use crate::machine::{Machine, machine};
use crate::rootless::{a_lab_of_the_user_is_followed, lab};
use crate::setup::Setup;
use crate::story::{an_adapter_is_followed, nothing_is_left};
use crate::usb::UsbSerial;
use crate::user::User;

const ANNOTATED: &str = "oci-hotplug.dev/device=annotated";

/// Debian's package has the script outside of `PATH`. The containers need no network.
const DOCKERD: &str = "/usr/share/docker.io/contrib/dockerd-rootless.sh --iptables=false --bridge=none";

/// In rootlesskit's namespaces /etc/cdi is a symbolic link, which Docker 26.1 does not follow.
const DOCKER_CONFIG: &str = r#"{"features": {"cdi": true}, "cdi-spec-dirs": ["/home/alice/.config/cdi"]}"#;

/// The units of the user's manager that run the engines.
const UNIT_OF_DOCKER: &str = "docker-of-alice";
const UNIT_OF_CONTAINERD: &str = "containerd-of-alice";

/// nerdctl's script, which starts containerd for a user.
const ROOTLESS_CONTAINERD: &str = "/usr/local/bin/containerd-rootless.sh";

/// Starts containerd as nerdctl's containerd-rootless.sh does; `$1` is a directory of the user for
/// its state.
const CONTAINERD: &str = r#"exec rootlesskit --state-dir="$1/kit" --net=slirp4netns --disable-host-loopback \
  --copy-up=/etc --copy-up=/run --propagation=rslave sh -c '
    rm -rf /run/containerd && mkdir -p /run/containerd "$1/state" && mount --bind "$1/state" /run/containerd &&
    exec containerd --config "$1/config.toml"' containerd "$1"
"#;

/// Without Kubernetes' interface, which takes time to start.
const CONTAINERD_CONFIG: &str = "version = 2\nroot = '/home/alice/.local/share/containerd'\n\
    disabled_plugins = ['io.containerd.grpc.v1.cri']\n";

impl<'m> User<'m> {
    /// Starts a unit of the user's manager with a program of rootlesskit, which needs
    /// slirp4netns's /dev/net/tun.
    fn start_unit(&self, unit: &str, command: &str) {
        self.vm.run("modprobe tun");
        self.vm.run(&self.as_user(&format!(
            "systemd-run --user --quiet --unit {unit} --property Delegate=yes \
             --setenv PATH=/usr/sbin:/usr/bin:/sbin:/bin {command}"
        )));
    }

    fn stop_unit(&self, unit: &str) {
        self.vm
            .run(&self.as_user(&format!("systemctl --user stop {unit}")));
    }

    fn docker(&self) -> String {
        let socket = format!("unix://{}/docker.sock", self.runtime_dir());
        self.as_user(&format!("docker --host {socket}"))
    }

    /// Starts Docker's daemon of this user, with an image.
    fn start_docker(&self) {
        self.vm
            .write("/home/alice/.config/docker/daemon.json", DOCKER_CONFIG);
        self.vm
            .run("mkdir /home/alice/.config/cdi && cp /etc/cdi/oci-hotplug* /home/alice/.config/cdi/");
        self.start_unit(UNIT_OF_DOCKER, DOCKERD);
        self.vm
            .wait_until(&format!("test -S {}/docker.sock", self.runtime_dir()));
        self.vm
            .run(&format!("{} import /var/lib/box.tar box", self.docker()));
    }

    fn docker_container(&self, options: &str) -> Container<'m> {
        let (docker, name) = (self.docker(), self.vm.new_name("c"));
        let id = self.vm.run(&format!(
            "{docker} run -d --name {name} --network none {options} box sh -c '{IDLE}'"
        ));
        Container::new(
            self.vm,
            format!("{docker} exec -i {name}"),
            format!("{docker} rm -f {name}"),
        )
        .known_as(&id, &name)
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn rootless_docker_follows_a_lab_and_brings_devices_back_after_a_restart() {
    let vm = machine();
    vm.run("modprobe fuse");
    let user = User::new(&vm);
    user.start_docker();
    let options = lab().cdi(ANNOTATED).options();
    a_lab_of_the_user_is_followed(&user, || {
        let container = user.docker_container(&options);
        // It replaces the hook's watcher, which receives no uevents.
        vm.wait_until(&user.watcher_in_unit());
        container
    });

    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/serial/by-id");
    let container = user.docker_container(&format!(
        "--device {ANNOTATED} --annotation io.oci-hotplug.devices=usb:0403:6001"
    ));
    container.talks_through(&adapter, "/dev/ttyUSB0");
    vm.run(&format!("{} restart -t 1 {}", user.docker(), container.name));
    container.is_reachable();
    container.gains("/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    drop(container);
    user.has_nothing_left();

    // Its bundle has a path of rootlesskit's mount namespace.
    let container = user.docker_container("");
    user.run(&format!("oci-hotplug attach {} usb:0403:6001", container.name));
    an_adapter_is_followed(&vm, &container);
    drop(container);
    user.has_nothing_left();
    user.stop_unit(UNIT_OF_DOCKER);
    user.remove();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn containerd_in_the_namespaces_of_rootlesskit_follows_an_adapter() {
    let vm = machine();
    let user = User::new(&vm);
    let kit = format!("{}/containerd-kit", user.runtime_dir());
    vm.run(&user.as_user(&format!("mkdir -p {kit}")));
    vm.write(&format!("{kit}/config.toml"), CONTAINERD_CONFIG);
    vm.write(&format!("{kit}/start"), CONTAINERD);
    user.start_unit(UNIT_OF_CONTAINERD, &format!("sh {kit}/start {kit}"));
    vm.wait_until(&format!("test -S {kit}/state/containerd.sock"));
    // ctr 1.7 knows no CDI devices, so the hooks are in the container's own config.json.
    let requests = Setup::default().annotation("io.oci-hotplug.devices", "usb:0403:6001");
    let name = bundle_directory(&vm, &requests, &our_hooks());
    let config = format!("{kit}/config.json");
    vm.run(&format!("cp /run/{name}/config.json {config}"));
    // As nerdctl does, in the namespaces of rootlesskit.
    let ctr = user.as_user(&format!(
        "nsenter --preserve-credentials -U -m -n -t $(cat {kit}/kit/child_pid) ctr"
    ));
    vm.run(&format!("{ctr} run -d --null-io --config {config} {name}"));
    let container = Container::new(
        &vm,
        format!("{ctr} task exec --exec-id shell-$(date +%N) {name}"),
        format!("{ctr} task kill -s SIGKILL {name}; {ctr} task rm -f {name}; {ctr} container rm {name}"),
    )
    .known_as(&name, &name);
    vm.wait_until(&user.watcher_in_unit());
    an_adapter_is_followed(&vm, &container);
    drop(container);
    user.has_nothing_left();
    user.stop_unit(UNIT_OF_CONTAINERD);
    user.remove();
}

/// A container of nerdctl, whose command this is.
fn nerdctl_container<'m>(vm: &'m Machine, nerdctl: &str, options: &str) -> Container<'m> {
    let name = vm.new_name("c");
    let id = vm.run(&format!(
        "{nerdctl} run -d --name {name} --network none {options} box sh -c {}",
        quoted(IDLE)
    ));
    Container::new(
        vm,
        format!("{nerdctl} exec -i {name}"),
        format!("{nerdctl} rm -f {name}"),
    )
    .known_as(&id, &name)
}

/// A container follows an adapter that it requests by annotation, and another one that gets its
/// request later.
fn nerdctl_follows_adapters(vm: &Machine, nerdctl: &str, is_watched: &str, attach: impl Fn(&str)) {
    vm.run(&format!("{nerdctl} import /var/lib/box.tar box"));
    let container = nerdctl_container(
        vm,
        nerdctl,
        &format!("--device {ANNOTATED} --annotation io.oci-hotplug.devices=usb:0403:6001"),
    );
    vm.wait_until(is_watched);
    an_adapter_is_followed(vm, &container);
    drop(container);
    let container = nerdctl_container(vm, nerdctl, "");
    attach(&container.name);
    an_adapter_is_followed(vm, &container);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn nerdctl_of_a_user_follows_adapters() {
    let vm = machine();
    let user = User::new(&vm);
    vm.write("/home/alice/.config/containerd/config.toml", CONTAINERD_CONFIG);
    vm.run(
        "mkdir /home/alice/.config/cdi && cp /etc/cdi/oci-hotplug* /home/alice/.config/cdi/ && \
         chown -R alice: /home/alice/.config",
    );
    user.start_unit(UNIT_OF_CONTAINERD, ROOTLESS_CONTAINERD);
    vm.wait_until(&format!(
        "test -S {}/containerd/containerd.sock",
        user.runtime_dir()
    ));
    let nerdctl = user.as_user("nerdctl");
    nerdctl_follows_adapters(&vm, &nerdctl, &user.watcher_in_unit(), |name| {
        user.run(&format!("oci-hotplug attach {name} usb:0403:6001"));
    });
    user.has_nothing_left();
    user.stop_unit(UNIT_OF_CONTAINERD);
    user.remove();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn nerdctl_of_root_follows_adapters() {
    let vm = machine();
    vm.run("systemctl start containerd");
    nerdctl_follows_adapters(&vm, "nerdctl", "pgrep oci-hotplug-wat", |name| {
        vm.run(&format!("oci-hotplug attach {name} usb:0403:6001"));
    });
    nothing_is_left(&vm);
}
