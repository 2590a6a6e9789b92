//! What a new user does and sees, from the package to a serial adapter in podman and in Docker:
//! `newcomer.txt` has README's commands and their output. Then the package is upgraded while
//! containers run, and removed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use regex_lite::Regex;

use crate::container::Container;
use crate::engine::{docker_image, podman_image};
use crate::install::{built, install};
use crate::machine::{Machine, machine, poll};
use crate::shell::PATIENCE;
use crate::story::nothing_is_left;
use crate::usb::{Keyboard, Plugged, UsbSerial};

/// Lines after `$ ` are typed, those after `~ ` are done by hand; the other lines are the expected
/// output. OCI_HOTPLUG_GOLDEN=write replaces them by the actual output.
const TRANSCRIPT: &str = "tests/vm/newcomer.txt";

/// A version that will never be released.
const LATER: &str = "999.0.0";

/// Lists all files and units of oci-hotplug in the machine, except what belongs to others: the
/// package manager, the journal, the engines' stores.
const OURS: &str = "find / -xdev -path /proc -prune -o -path /tmp -prune -o -path /var/lib/dpkg -prune -o -path /var/log -prune -o -path /var/cache -prune \
    -o -path /var/lib/containers -prune -o -path /var/lib/docker -prune -o -path /var/lib/containerd -prune -o -path /root -prune -o -name '*oci-hotplug*' -print; \
    find /run -path /run/test -prune -o -name '*oci-hotplug*' -print; ls -d /etc/cdi 2>/dev/null; \
    systemctl list-units --all --plain --no-legend 'oci-hotplug*'; true";

/// Builds a package and copies it into the machine.
fn package(machine: &Machine, version: &str) -> String {
    // Two tests may build a package at the same time.
    let output = tempfile::tempdir().expect("a directory for the package");
    let printed = Command::new("packaging/package.sh")
        .args(["deb", "--version", version, "--bin-dir"])
        .arg(built())
        .arg("--output")
        .arg(output.path())
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
        .output()
        .expect("running package.sh");
    let words = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "package.sh: {words}");
    let package = PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim());
    let there = format!("/tmp/oci-hotplug_{version}.deb");
    let content = fs::read(&package).expect("the package");
    let output = machine.output_given(&format!("cat > {there}"), &content);
    assert!(output.status.success(), "bringing the package");
    there
}

/// A machine without oci-hotplug. What the other tests need is installed again when this is
/// dropped.
struct Fresh<'a>(&'a Machine);

impl<'a> Fresh<'a> {
    fn new(machine: &'a Machine) -> Self {
        let fresh = Self(machine);
        machine.write(
            "/run/test/packaging/install.sh",
            include_str!("../../packaging/install.sh"),
        );
        // Remove /etc/cdi instead of renaming it: dockerd notices a removal and reads the next
        // directory of that name, but it keeps watching a renamed one (container-device-interface
        // 0.6, pkg/cdi/cache.go: Rename events).
        machine.run(
            "sh /run/test/packaging/install.sh --uninstall && mkdir /run/test/kept && mv /etc/oci-hotplug /run/test/kept/ && \
             cp -a /etc/cdi /run/test/kept/ && rm -r /etc/cdi && rm -rf /run/oci-hotplug",
        );
        assert_eq!(machine.run(OURS), "");
        // Left by other tests: a CRI-O, whose hook directory is removed here and would not be
        // watched when it returns, and devices without hardware.
        machine.output("systemctl stop crio");
        machine.output("modprobe -r vivid g_serial dummy_hcd vhci-hcd");
        fresh
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        self.0.output(
            "podman rm -f -t 0 zigbee desk; docker rm -f zigbee desk; OCI_HOTPLUG_REMOVE_ANYWAY=1 dpkg --purge oci-hotplug; \
             rm -rf /etc/oci-hotplug /etc/cdi /tmp/*.deb; mv /run/test/kept/* /etc/; rm -rf /run/test/kept /run/test/packaging",
        );
        install(self.0);
    }
}

/// Replaces what changes from run to run by words.
struct Normal(Vec<(Regex, &'static str)>);

impl Normal {
    fn new() -> Self {
        let rules = [
            (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "WHEN"),
            (r"\b[0-9a-f]{64}\b", "ID"),
            (r"\b[0-9a-f]{12}\b", "SHORT-ID"),
            (r"/dev/bus/usb/(\d{3})/\d{3}", "/dev/bus/usb/$1/NNN"),
            // Versions, but not those in paths.
            (r" \d+(\.\d+)+[-+~.\w]*", " N.N"),
            (r"\b\d+[sm]\b", "Ns"),
            (r"\b189:\d+\b", "189:N"),
            // Inputs and HID devices are counted from the boot on.
            (r"/input/input\d+/event\d+", "/input/inputN/eventN"),
            (r"/dev/input/event\d+", "/dev/input/eventN"),
            (r"\b13:\d+\b", "13:N"),
            (r"(0003:0627:0001)\.[0-9A-F]{4}", "$1.NNNN"),
            (r"\bhidraw\d+\b", "hidrawN"),
            (r"process(es)? [\d ]*\d", "process$1 N"),
            // The width of columns depends on the replaced words.
            (r" {2,}", "  "),
            (r" +\n", "\n"),
        ];
        Self(
            rules
                .into_iter()
                .map(|(pattern, word)| (Regex::new(pattern).expect("a pattern"), word))
                .collect(),
        )
    }

    fn of(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, word) in &self.0 {
            text = pattern.replace_all(&text, *word).into_owned();
        }
        text
    }
}

/// Carries out the lines of the transcript.
struct Newcomer<'a> {
    vm: &'a Machine,
    normal: Normal,
    plugged: BTreeMap<String, Plugged<'a>>,
}

impl<'a> Newcomer<'a> {
    /// The output of a command; of a package manager's output only our own lines.
    fn types(&self, command: &str) -> String {
        let output = self.vm.output(&format!("cd /tmp && ( {command} ) 2>&1"));
        let mut words = String::from_utf8_lossy(&output.stdout).into_owned();
        if command.contains("apt-get") {
            words = words
                .lines()
                .filter(|line| line.starts_with("oci-hotplug:"))
                .map(|line| format!("{line}\n"))
                .collect();
        }
        if !output.status.success() {
            words.push_str(&format!("[exit {}]\n", output.status.code().unwrap_or(-1)));
        }
        self.normal.of(&words)
    }

    /// Carries out `plug SERIAL into port PORT`, `plug keyboard into port PORT`, or `pull … out`.
    fn does(&mut self, what: &str) {
        let words: Vec<&str> = what.split_whitespace().collect();
        match words[..] {
            ["plug", "keyboard", "into", "port", "4"] => {
                self.plugged
                    .insert("keyboard".into(), self.vm.plug(&Keyboard("4")));
                self.vm.wait_until("ls /dev/input/by-id/*-event-kbd");
            }
            ["plug", serial, "into", "port", port] => {
                let adapter = self.vm.plug(&UsbSerial {
                    serial: ["FT001", "FT002"]
                        .into_iter()
                        .find(|known| *known == serial)
                        .expect(serial),
                    port: ["2", "3"].into_iter().find(|known| *known == port).expect(port),
                });
                self.plugged.insert(serial.to_owned(), adapter);
                self.vm.wait_until(&format!("ls /dev/serial/by-id/*{serial}*"));
            }
            ["pull", serial, "out"] => self.plugged.remove(serial).expect(serial).unplug(),
            _ => panic!("~ {what}: what is that?"),
        }
    }

    /// Runs a command while the other end of the adapter's line answers.
    fn types_to_somebody(&self, command: &str) -> String {
        let mut line = self.plugged.values().next().expect("an adapter").line();
        std::thread::scope(|scope| {
            let other_end = scope.spawn(move || {
                line.expect("temperature?");
                line.send("21 degrees\n");
            });
            let words = self.types(command);
            other_end.join().expect("the other end");
            words
        })
    }
}

fn is_writing() -> bool {
    std::env::var_os("OCI_HOTPLUG_GOLDEN").is_some()
}

/// Carries out the transcript, and returns it with the actual output.
fn play(newcomer: &mut Newcomer, transcript: &str) -> String {
    let mut played = String::new();
    let mut rest = transcript.lines().peekable();
    let mut is_first = false;
    while let Some(line) = rest.next() {
        let mut wanted = String::new();
        if line.starts_with("$ ") {
            while let Some(more) = rest.next_if(|more| !more.starts_with(['$', '~', '#'])) {
                wanted.push_str(more);
                wanted.push('\n');
            }
        }
        played.push_str(line);
        played.push('\n');
        if let Some(command) = line.strip_prefix("$ ") {
            // After a device was plugged in or pulled out, repeat a query until it shows that.
            let patience = match is_first && command.starts_with("oci-hotplug ") {
                // The expected output is out of date, so do not wait long for it.
                true if is_writing() => PATIENCE / 6,
                true => PATIENCE,
                false => Duration::ZERO,
            };
            let mut seen = String::new();
            poll(patience, || {
                seen = match command.contains("temperature?") {
                    true => newcomer.types_to_somebody(command),
                    false => newcomer.types(command),
                };
                (seen == wanted).then_some(())
            });
            played.push_str(&seen);
            is_first = false;
        } else if let Some(what) = line.strip_prefix("~ ") {
            newcomer.does(what);
            is_first = true;
        }
    }
    played
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_newcomer_installs_the_package_and_has_an_adapter_in_podman_and_in_docker() {
    let vm = machine();
    podman_image(&vm);
    docker_image(&vm);
    let fresh = Fresh::new(&vm);
    let deb = package(&vm, env!("CARGO_PKG_VERSION"));
    vm.run(&format!("cp {deb} /tmp/oci-hotplug.deb"));
    let transcript = fs::read_to_string(TRANSCRIPT).expect(TRANSCRIPT);
    let mut newcomer = Newcomer {
        vm: &vm,
        normal: Normal::new(),
        plugged: BTreeMap::new(),
    };
    let played = play(&mut newcomer, &transcript);
    if is_writing() {
        return fs::write(TRANSCRIPT, &played).expect("writing the transcript");
    }
    for (seen, wanted) in played.lines().zip(transcript.lines()) {
        assert_eq!(seen, wanted, "in\n{played}");
    }
    assert_eq!(played, transcript);
    assert_eq!(vm.run(OURS), "");
    drop(fresh);
}

/// A container that was started under the package, its node, and the command that prints its
/// watcher's process id.
struct Watched<'a> {
    container: Container<'a>,
    node: String,
    watcher: String,
}

impl<'a> Watched<'a> {
    fn new(vm: &'a Machine, engine: &str, options: &str, image: &str) -> Self {
        let request = "--annotation io.oci-hotplug.devices=usb:0403:6001";
        vm.run(&format!(
            "{engine} run -d --name zigbee --network none {options} {request} {image} sleep 1000000"
        ));
        let container = Container::new(
            vm,
            format!("{engine} exec -i zigbee"),
            format!("{engine} rm -f zigbee"),
        );
        container.gains("/dev/ttyUSB0");
        let node = container.run("stat -c '%i %z' /dev/ttyUSB0");
        // The watcher of the systemd unit takes over from the one that the hook started.
        let id = vm.run(&format!("{engine} inspect --format '{{{{.Id}}}}' zigbee"));
        let unit = format!("oci-hotplug-watcher@{id}.service");
        vm.wait_until(&format!("systemctl is-active '{unit}'"));
        let watcher = format!("systemctl show -P MainPID '{unit}'");
        Self {
            container,
            node,
            watcher,
        }
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn an_upgrade_of_the_package_moves_the_watchers_and_a_removal_waits_for_the_containers() {
    let vm = machine();
    podman_image(&vm);
    docker_image(&vm);
    let fresh = Fresh::new(&vm);
    let deb = package(&vm, env!("CARGO_PKG_VERSION"));
    vm.run(&format!("apt-get install -y {deb}"));
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let watched = [
        Watched::new(&vm, "podman", "", "localhost/box"),
        Watched::new(&vm, "docker", "--device oci-hotplug.dev/device=annotated", "box"),
    ];
    let before = watched.each_ref().map(|one| vm.run(&one.watcher));

    let later = package(&vm, LATER);
    vm.run(&format!("apt-get install -y {later}"));
    assert!(vm.run("dpkg-query -W oci-hotplug").ends_with(LATER));
    for (one, before) in watched.iter().zip(&before) {
        let now = vm.run(&one.watcher);
        assert_ne!(now, *before, "another watcher");
        assert_eq!(
            vm.run(&format!("readlink /proc/{now}/exe")),
            "/usr/libexec/oci/hooks.d/oci-hotplug-watcher"
        );
        assert_eq!(one.container.run("stat -c '%i %z' /dev/ttyUSB0"), one.node);
        one.container.talks_through(&adapter, "/dev/ttyUSB0");
    }

    let refused = vm.output("apt-get remove -y oci-hotplug 2>&1");
    let words = String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success(), "{words}");
    assert!(words.contains("containers are running with watchers"), "{words}");
    for one in &watched {
        one.container.talks_through(&adapter, "/dev/ttyUSB0");
    }
    drop(watched);
    nothing_is_left(&vm);
    vm.run("oci-hotplug cdi generate board --device usb:0403:6001");
    vm.run("apt-get remove -y oci-hotplug");
    vm.run(
        "! test -e /etc/cdi/oci-hotplug.dev-device_annotated.json && test -e /etc/oci-hotplug/config.toml",
    );
    vm.run("apt-get purge -y oci-hotplug");
    assert_eq!(vm.run(OURS), "");
    drop(fresh);
}
