//! Programs of Debian packages in a container, which use devices as they come and go: whether each
//! notices them without being restarted, and no device of another container. docs/programs.md has
//! the results.

mod witnesses;

use std::thread::JoinHandle;

use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::podman;
use crate::machine::{Machine, machine};
use crate::programs::witnesses::{Kind, WITNESSES, Witness};
use crate::usb::{Audio, CardReader, Hub, Plugged, Stick, Tablet, UsbSerial};

/// The container's own devices, and those that the operator gives it: the joystick, and the clock
/// with which PulseAudio plays on USB.
const REQUESTS: &str = "port:1-2,port:1-3,port:2-3,port:1-4,devnode:/dev/video0";
const JOYSTICK: &str = "attr:name=own stick";
const CLOCK: &str = "devnode:/dev/snd/timer";

/// Scripts of the container and of the machine.
const SCRIPTS: [(&str, &str); 5] = [
    ("udev_events.py", include_str!("programs/udev_events.py")),
    ("udev_list.py", include_str!("programs/udev_list.py")),
    ("sdl_joysticks.py", include_str!("programs/sdl_joysticks.py")),
    ("joystick.py", include_str!("programs/joystick.py")),
    ("serial_ports.js", include_str!("programs/serial_ports.js")),
];

/// ModemManager uses only ports that udev's rules of the host mark.
const MODEM_RULE: &str =
    r#"SUBSYSTEM=="tty", ENV{ID_VENDOR_ID}=="0403", ENV{ID_MM_CANDIDATE}="1", ENV{ID_MM_DEVICE_PROCESS}="1""#;
const MODEM_RULES: &str = "/run/udev/rules.d/90-programs.rules";

/// A container with all programs. Its first process finds the database, whatever the runtime has
/// yet to mount.
fn container(vm: &Machine) -> Container<'_> {
    for (name, text) in SCRIPTS {
        vm.write(&format!("/run/programs/{name}"), text);
    }
    let options = format!("--annotation 'io.oci-hotplug.devices={REQUESTS}' --rootfs /srv/programs:O");
    let once = vm.run(&format!(
        "podman run --rm --network none {options} ls /run/udev/control"
    ));
    assert_eq!(once, "/run/udev/control");
    let container = podman(vm, Crun, &format!("-v /run/programs:/opt:ro {options}"));
    vm.run(&format!(
        "oci-hotplug attach {} '{JOYSTICK}' {CLOCK}",
        container.id
    ));
    container.run("mkdir -p /run/dbus /run/w && dbus-daemon --system --fork --nopidfile");
    // A sound card plays for one program at a time: PipeWire follows PulseAudio.
    start(
        &container,
        |kind| kind != Kind::SoundCard,
        "grep listening /run/w/udev_events && grep ports: /run/w/serial_ports && grep listening /run/w/sdl && grep '^UDEV - ' /run/w/udevadm && \
         pactl info && mmcli -L && test -S /run/pcscd/pcscd.comm",
    );
    container
}

/// Starts programs by the kind of their devices, and waits until all of them listen (`are_ready`, a
/// shell command).
fn start(container: &Container<'_>, is_due: impl Fn(Kind) -> bool, are_ready: &str) {
    let due = |witness: &&Witness| is_due(witness.kind) && !witness.starts.is_empty();
    for Witness { log, starts, .. } in WITNESSES.iter().filter(due) {
        container.run(&format!(
            "XDG_RUNTIME_DIR=/run/w setsid sh -c '{starts}' > /run/w/{log} 2>&1 < /dev/null &"
        ));
    }
    container.wait_until(&format!("export XDG_RUNTIME_DIR=/run/w; {are_ready}"));
}

/// Devices of the same models, which no container requests.
fn others(vm: &Machine) -> Vec<Plugged<'_>> {
    let others = vec![
        vm.plug(&Hub("1")),
        vm.plug(&UsbSerial {
            serial: "FT999",
            port: "1.1",
        }),
        vm.plug(&Stick("1.2")),
        vm.plug(&Tablet("1.3")),
        vm.plug(&Audio("1.4")),
        vm.plug(&CardReader("1.5")),
    ];
    create_joystick(vm, "another stick", "other");
    vm.wait_until(
        "ls /dev/ttyUSB0 /dev/sda1 /dev/snd/controlC0 /dev/input/js0 /sys/bus/usb/devices/1-1.3 \
         /sys/bus/usb/devices/1-1.5",
    );
    vm.run("udevadm settle");
    others
}

/// Creates a joystick, which ends with the process whose number is in /run/test/joystick-NAME.
fn create_joystick(vm: &Machine, title: &str, name: &str) {
    vm.run(&format!(
        "modprobe uinput; mkdir -p /run/test; mkfifo /run/test/joystick-{name}.end; \
         setsid sh -c 'echo $$ > /run/test/joystick-{name}; \
         exec python3 /run/programs/joystick.py \"{title}\" <> /run/test/joystick-{name}.end' \
         > /run/test/joystick-{name}.log 2>&1 &"
    ));
    vm.wait_until(&format!("grep created /run/test/joystick-{name}.log"));
}

fn remove_joystick(vm: &Machine, name: &str) {
    vm.run(&format!(
        "kill $(cat /run/test/joystick-{name}); rm /run/test/joystick-{name}*"
    ));
}

/// Waits until all programs for these kinds of devices show them, or (`is_plugged` is false) do not
/// show them any more.
fn expect(container: &Container<'_>, kinds: &[Kind], round: u32, is_plugged: bool) {
    for witness in WITNESSES.iter().filter(|witness| kinds.contains(&witness.kind)) {
        let condition = if is_plugged { witness.shows } else { witness.lost };
        eprintln!("vm: {}, round {round}, plugged: {is_plugged}", witness.program);
        container.wait_until(&format!(
            "export round={round} LOG=/run/w/{} XDG_RUNTIME_DIR=/run/w; {condition}",
            witness.log
        ));
    }
}

/// Serial adapter, stick and sound card, twice.
fn first_devices(vm: &Machine, container: &Container<'_>) {
    let kinds = [Kind::Adapter, Kind::Stick, Kind::SoundCardOfPulseAudio];
    for round in 1..=2 {
        let adapter = vm.plug(&UsbSerial {
            serial: "FT001",
            port: "2",
        });
        let modem = answer_as_modem(&adapter);
        let rest = (vm.plug(&Stick("3")), vm.plug(&Audio("4")));
        expect(container, &kinds, round, true);
        adapter.unplug();
        modem.join().expect("the modem's thread");
        drop(rest);
        expect(container, &kinds, round, false);
    }
    // node-serialport starts udevadm again and again.
    container.run("XDG_RUNTIME_DIR=/run/w pactl exit && kill $(cat /run/w/node)");
    start(container, |kind| kind == Kind::SoundCard, "wpctl status");
}

/// Sound card, card reader, tablet, camera and joystick, twice.
fn second_devices(vm: &Machine, container: &Container<'_>) {
    let kinds = [
        Kind::SoundCard,
        Kind::CardReader,
        Kind::Tablet,
        Kind::Camera,
        Kind::Joystick,
    ];
    for round in 1..=2 {
        let plugged = (
            vm.plug(&Audio("2")),
            vm.plug(&CardReader("3")),
            vm.plug(&Tablet("4")),
        );
        vm.run("modprobe vivid n_devs=2");
        create_joystick(vm, "own stick", "own");
        expect(container, &kinds, round, true);
        remove_joystick(vm, "own");
        drop(plugged);
        vm.wait_until("rmmod vivid");
        expect(container, &kinds, round, false);
    }
}

/// A modem at the other end of the adapter's line that says yes to every command, until the adapter
/// is unplugged.
fn answer_as_modem(adapter: &Plugged<'_>) -> JoinHandle<()> {
    let mut line = adapter.line();
    std::thread::spawn(move || while line.answers("\r", "\r\nOK\r\n") {})
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn programs_notice_the_devices_of_their_container_and_no_others() {
    let vm = machine();
    vm.write(MODEM_RULES, MODEM_RULE);
    vm.run("udevadm control --reload");
    let container = container(&vm);
    let others = others(&vm);
    first_devices(&vm, &container);
    second_devices(&vm, &container);
    drop(others);
    remove_joystick(&vm, "other");
    for witness in WITNESSES {
        container.run(&format!("LOG=/run/w/{}; {}", witness.log, witness.others));
    }
    vm.run(&format!(
        "rm -r {MODEM_RULES} /run/programs && udevadm control --reload"
    ));
}
