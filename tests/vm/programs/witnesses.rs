//! The programs, and how to see in their output which devices they know.

/// The device that a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Adapter,
    Stick,
    Tablet,
    /// A sound card while no other program uses it.
    SoundCardOfPulseAudio,
    SoundCard,
    CardReader,
    Camera,
    Joystick,
}

/// A program. The conditions are shell commands inside the container; `$LOG` is its output and
/// `$round` how often the device was plugged in. The machine has another device of each kind.
pub struct Witness {
    /// Its name in docs/programs.md.
    pub program: &'static str,
    pub kind: Kind,
    /// The command that starts it once; empty if each condition starts it.
    pub starts: &'static str,
    /// The name of its output's file.
    pub log: &'static str,
    /// The program shows the container's device, and no other one.
    pub shows: &'static str,
    /// It does not show the device any more.
    pub lost: &'static str,
    /// At the end: its output has nothing of other devices.
    pub others: &'static str,
}

pub const WITNESSES: &[Witness] = &[
    Witness {
        program: "udevadm monitor --udev",
        kind: Kind::Adapter,
        starts: "exec udevadm monitor --udev",
        log: "udevadm",
        shows: "test $(grep -c 'UDEV .* add .*/1-2/.*/tty/ttyUSB1 ' $LOG) = $round",
        lost: "test $(grep -c 'UDEV .* remove .*/1-2/.*/tty/ttyUSB1 ' $LOG) = $round",
        others: "! grep /1-1/ $LOG",
    },
    Witness {
        program: "udevadm info",
        kind: Kind::Adapter,
        starts: "",
        log: "udevadm",
        shows: "udevadm info -q property -n /dev/ttyUSB1 | grep ID_SERIAL_SHORT=FT001 && \
            ! udevadm info -q property -p /sys/class/tty/ttyUSB0 | grep ID_",
        lost: "! udevadm info -n /dev/ttyUSB1",
        others: "true",
    },
    Witness {
        program: "pyudev.Monitor",
        kind: Kind::Adapter,
        starts: "exec python3 /opt/udev_events.py",
        log: "udev_events",
        shows: "test $(grep -c '^add /dev/ttyUSB1 FT001' $LOG) = $round",
        lost: "test $(grep -c '^remove /dev/ttyUSB1 FT001' $LOG) = $round",
        others: "! grep -e FT999 -e ttyUSB0 $LOG",
    },
    Witness {
        program: "pyudev.Enumerator",
        kind: Kind::Adapter,
        starts: "",
        log: "udev_events",
        shows: "test \"$(python3 /opt/udev_list.py)\" = /dev/ttyUSB1",
        lost: "test -z \"$(python3 /opt/udev_list.py)\"",
        others: "true",
    },
    Witness {
        program: "lsusb -v",
        kind: Kind::Adapter,
        starts: "",
        log: "lsusb",
        shows: "of() { lsusb -v -s $(cat /sys/bus/usb/devices/$1/busnum):$(cat /sys/bus/usb/devices/$1/devnum) 2>&1; }; \
            of 1-2 | grep 'iSerial .* FT001' && ! of 1-2 | grep \"Couldn't open\" && of 1-1.1 | grep \"Couldn't open\"",
        lost: "! lsusb -v 2> /dev/null | grep FT001",
        others: "true",
    },
    Witness {
        program: "serial.tools.list_ports",
        kind: Kind::Adapter,
        starts: "",
        log: "list_ports",
        shows: "test \"$(python3 -m serial.tools.list_ports -q | tr -d ' ')\" = /dev/ttyUSB1",
        lost: "test -z \"$(python3 -m serial.tools.list_ports -q)\"",
        others: "true",
    },
    Witness {
        program: "SerialPort.list",
        kind: Kind::Adapter,
        starts: "echo $$ > /run/w/node; exec node /opt/serial_ports.js",
        log: "serial_ports",
        shows: "test $(grep -c '/dev/ttyUSB1 0403 FT001' $LOG) = $round",
        lost: "tail -n 1 $LOG | grep ports: && ! tail -n 1 $LOG | grep ttyUSB1",
        others: "! grep FT999 $LOG",
    },
    Witness {
        program: "ModemManager",
        kind: Kind::Adapter,
        starts: "exec ModemManager --debug",
        log: "modem_manager",
        shows: "test $(mmcli -L | grep -c /Modem/) = 1",
        lost: "mmcli -L && ! mmcli -L | grep /Modem/",
        others: "! grep ttyUSB0 $LOG | grep -v -e 'not candidate' -e 'adding port'",
    },
    Witness {
        program: "lsblk -f",
        kind: Kind::Stick,
        starts: "",
        log: "lsblk",
        shows: "test \"$(lsblk -nro NAME,FSTYPE,LABEL | grep ' [^ ]')\" = 'sdb1 swap HOTPLUG' && \
            test \"$(head -n 1 /dev/sdb1)\" = hotplug",
        lost: "! lsblk -nro NAME,FSTYPE,LABEL | grep ' [^ ]'",
        others: "true",
    },
    Witness {
        program: "libinput debug-events",
        kind: Kind::Tablet,
        starts: "exec stdbuf -oL libinput debug-events",
        log: "libinput",
        shows: "test $(grep -c 'DEVICE_ADDED .*QEMU USB Tablet' $LOG) = $round",
        lost: "test $(grep -c 'DEVICE_REMOVED .*QEMU USB Tablet' $LOG) = $round",
        others: "true",
    },
    Witness {
        program: "libinput list-devices",
        kind: Kind::Tablet,
        starts: "",
        log: "libinput",
        shows: "test $(libinput list-devices | grep -c '^Device:') = 1",
        lost: "! libinput list-devices | grep '^Device:'",
        others: "true",
    },
    Witness {
        program: "pulseaudio",
        kind: Kind::SoundCardOfPulseAudio,
        starts: "exec pulseaudio -n --exit-idle-time=-1 -L module-native-protocol-unix -L module-udev-detect",
        log: "pulseaudio",
        shows: "test $(pactl list short cards | grep -c alsa_card) = 1 && pactl list short sinks | grep alsa_output",
        lost: "pactl info && ! pactl list short cards | grep alsa_card",
        others: "true",
    },
    Witness {
        program: "aplay -l",
        kind: Kind::SoundCard,
        starts: "",
        log: "aplay",
        shows: "test $(aplay -l | grep -c '^card') = 1",
        lost: "! aplay -l | grep '^card'",
        others: "true",
    },
    Witness {
        program: "pipewire",
        kind: Kind::SoundCard,
        starts: "exec dbus-run-session sh -c \"pipewire & exec wireplumber\"",
        log: "pipewire",
        shows: "test $(pw-cli ls Device | grep -c 'device.name = .alsa_card') = 1 && pw-cli ls Node | grep alsa_output",
        lost: "pw-cli ls Core && ! pw-cli ls Device | grep alsa_card",
        others: "true",
    },
    Witness {
        program: "pcscd",
        kind: Kind::CardReader,
        starts: "exec pcscd --foreground --disable-polkit",
        log: "pcscd",
        shows: "test $(timeout 9 pcsc_scan -r | grep -c 'CCID Interface') = 1",
        lost: "! timeout 9 pcsc_scan -r | grep 'CCID Interface'",
        others: "true",
    },
    Witness {
        program: "v4l2-ctl --list-devices",
        kind: Kind::Camera,
        starts: "",
        log: "v4l2",
        shows: "test \"$(v4l2-ctl --list-devices | grep -o '/dev/.*')\" = /dev/video0 && \
            v4l2-ctl -d /dev/video0 --all | grep vivid",
        lost: "! v4l2-ctl --list-devices | grep /dev/video",
        others: "true",
    },
    Witness {
        program: "SDL_JoystickOpen",
        kind: Kind::Joystick,
        starts: "exec python3 /opt/sdl_joysticks.py",
        log: "sdl",
        shows: "test $(grep -c '^added own stick$' $LOG) = $round",
        lost: "test $(grep -c '^removed' $LOG) = $round",
        others: "! grep 'another stick' $LOG",
    },
];
