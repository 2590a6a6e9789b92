//! The one virtual machine of this test binary: booted by the first test that asks, used by one test at a time,
//! and gone with the test binary, however that ends.

use std::cell::{Cell, RefCell, RefMut};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::install;
use crate::qmp::Qmp;
use crate::shell::{Shell, read};

/// Starts QEMU, and stops it and removes its files when standard input ends: when the test binary is no more.
/// It is in a process group of its own, so that ctrl-c reaches it this way only.
const GUARD: &str = r#"
directory=$1; shift
"$@" < /dev/null > "$directory/qemu.log" 2>&1 &
qemu=$!
cat > /dev/null
kill $qemu; wait $qemu
rm -rf "$directory"
"#;

/// How often a machine is booted until it is up.
const BOOTS: u32 = 4;

/// The running machine: a [`Shell`] in it, and what can be plugged into it.
pub struct Machine {
    shell: Shell,
    qmp: RefCell<Qmp>,
    /// How many names were given.
    names: Cell<u32>,
    /// Held open for the guard.
    _guard: Child,
}

/// The machine, for this test alone until it is dropped.
pub struct Session {
    machine: MutexGuard<'static, Machine>,
    began: Instant,
}

/// Boots the machine if no test has yet, and waits for the tests before this one to be done with it.
pub fn machine() -> Session {
    static MACHINE: OnceLock<Option<Mutex<Machine>>> = OnceLock::new();
    let machine = MACHINE
        .get_or_init(|| panic::catch_unwind(|| Mutex::new(Machine::boot())).ok())
        .as_ref()
        .expect("the machine did not boot: the first test that wanted it tells why");
    // A test that failed has put its things away, like any other.
    let machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
    machine.run(
        "mkdir -p /run/test && rm -f /run/test/cursor && journalctl --lines=1 --quiet --cursor-file=/run/test/cursor",
    );
    Session {
        machine,
        began: Instant::now(),
    }
}

impl Deref for Session {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.machine
    }
}

/// How long it took, for the table in README.md (`--nocapture` shows it).
impl Drop for Session {
    fn drop(&mut self) {
        eprintln!("vm: {:.0?}", self.began.elapsed());
    }
}

impl Deref for Machine {
    type Target = Shell;
    fn deref(&self) -> &Shell {
        &self.shell
    }
}

impl Machine {
    /// Boots, more than once if need be: QEMU's emulation with a thread for each processor was seen to break the
    /// guest's kernel while that patches its own code, early in the boot ("Kernel panic", one boot in ten or so).
    fn boot() -> Self {
        for attempt in 1.. {
            match Self::try_boot() {
                Ok(machine) => return machine,
                Err(console) if attempt < BOOTS => eprintln!("vm: it does not boot, once more: {console}"),
                Err(console) => panic!("the machine does not boot: {console}"),
            }
        }
        unreachable!("the attempts end in a machine or a panic")
    }

    fn try_boot() -> Result<Self, String> {
        let began = Instant::now();
        let image = PathBuf::from(stdout_of(Command::new("sh").arg("tests/vm/image.sh")));
        let directory = PathBuf::from(stdout_of(
            Command::new("mktemp").args(["-d", "/tmp/oci-hotplug-vm.XXXXXX"]),
        ));
        let overlay = directory.join("disk.qcow2");
        stdout_of(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(image.join("disk.raw"))
                .arg(&overlay),
        );
        let port = free_port();
        // Its standard input is a pipe that lives as long as this value does.
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory)
            .args(qemu(&directory, &image, &overlay, port))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("starting the guard of qemu");
        let qmp = poll(Duration::from_secs(30), || {
            Qmp::connect(&directory.join("qmp")).ok()
        })
        .unwrap_or_else(|| panic!("qemu does not start: {}", read(&directory.join("qemu.log"))));
        let shell = Shell {
            directory,
            image,
            port,
        };
        if let Err(console) = shell.connect() {
            // The guard stops QEMU when its standard input ends.
            drop(guard.stdin.take());
            let _ = guard.wait();
            return Err(console);
        }
        eprintln!("vm: booted in {:.0?}: {}", began.elapsed(), shell.by_hand());
        // What a failed test has to tell, it tells before its containers are removed.
        let (before, witness) = (panic::take_hook(), shell.clone());
        panic::set_hook(Box::new(move |panic| {
            before(panic);
            witness.tell_what_happened();
        }));
        let machine = Self {
            shell,
            qmp: RefCell::new(qmp),
            names: Cell::new(0),
            _guard: guard,
        };
        install::install(&machine);
        Ok(machine)
    }

    /// The connection to QEMU.
    pub fn qmp(&self) -> RefMut<'_, Qmp> {
        self.qmp.borrow_mut()
    }

    /// Switches the machine off and on, as a power cut does. Returns when there is a shell again.
    pub fn switch_off_and_on(&self) {
        let reset = || {
            self.qmp().execute("system_reset", serde_json::json!({}));
        };
        self.is_rebooted_by(reset, reset);
    }

    /// A name that nothing in this machine has had: for devices and containers.
    pub fn new_name(&self, prefix: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{prefix}{}", self.names.get())
    }
}

fn qemu(directory: &Path, image: &Path, overlay: &Path, port: u16) -> Vec<String> {
    let at = |name: &str| directory.join(name).display().to_string();
    let mut command: Vec<String> =
        "qemu-system-x86_64 -accel tcg,thread=multi -smp 2 -cpu max -m 3072 -nodefaults -display none \
        -device qemu-xhci,id=xhci -device virtio-rng-pci -device virtio-net-pci,netdev=net"
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
    command.extend([
        "-append".into(),
        "root=/dev/vda rw console=ttyS0 quiet mitigations=off systemd.show_status=no".into(),
        "-kernel".into(),
        image.join("vmlinuz").display().to_string(),
        "-initrd".into(),
        image.join("initrd.img").display().to_string(),
        "-drive".into(),
        format!("file={},if=virtio,format=qcow2,cache=unsafe", overlay.display()),
        "-netdev".into(),
        format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        "-serial".into(),
        format!("file:{}", at("console.log")),
        "-qmp".into(),
        format!("unix:{},server=on,wait=off", at("qmp")),
    ]);
    command
}

/// Asks again until there is an answer, for as long as `patience`.
pub fn poll<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

fn stdout_of(command: &mut Command) -> String {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {} (tests/vm/prepare.sh installs what is missing)",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
