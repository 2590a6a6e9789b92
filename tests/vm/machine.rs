//! The virtual machines of this test binary. Each test has a free machine for itself alone; the
//! first tests boot them. They end with the test binary, even if it is killed.

use std::cell::{Cell, RefCell, RefMut};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::install;
use crate::qmp::Qmp;
use crate::running_shell::RunningShell;
use crate::shell::{Shell, expect_success, read, until};

/// Starts QEMU, and stops it and removes its files when standard input ends, which is when the test
/// binary has ended. It has its own process group, so that ctrl-c reaches it only in this way.
const GUARD: &str = r#"
directory=$1; shift
"$@" < /dev/null > "$directory/qemu.log" 2>&1 &
qemu=$!
cat > /dev/null
kill $qemu; wait $qemu
rm -rf "$directory"
"#;

/// Gives the USB controller the buses 1 and 2, which tests name. It has other buses after a boot
/// in which vhci-hcd was loaded first: the kernel takes the lowest free number (hcd.c,
/// usb_register_bus).
const FIRST_BUSES: &str = "controller=0000:00:02.0; driver=/sys/bus/pci/drivers/xhci_hcd; \
    test -d $driver/$controller/usb1 || { modprobe -r vhci-hcd && \
    echo $controller > $driver/unbind && echo $controller > $driver/bind && udevadm settle && \
    test -e /dev/bus/usb/001/001 && test -e /dev/bus/usb/002/001; }";

/// How often a machine is booted until it is up.
const BOOTS: u32 = 4;

/// A running machine: a [`Shell`] in it, and QEMU's side of it.
pub struct Machine {
    shell: Shell,
    /// Runs the commands of [`Machine::output`]; the first command starts it.
    commands: RefCell<Option<RunningShell>>,
    qmp: RefCell<Qmp>,
    /// How many names [`Machine::new_name`] has given.
    names: Cell<u32>,
    /// Holds the guard's standard input open.
    _guard: Child,
}

/// A machine for one test. It returns to the pool when this is dropped.
pub struct Session {
    place: Place,
    began: Instant,
}

/// The machines that no test uses now.
struct Pool {
    free: Vec<Machine>,
    /// How many machines there are, free or not.
    running: usize,
    /// Why no machine boots: every test that needs another one fails with this at once.
    broken: Option<String>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: Vec::new(),
    running: 0,
    broken: None,
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The machine of the test that this thread runs: a panic reports its journal before its
    /// containers are removed.
    static WITNESS: RefCell<Option<Shell>> = const { RefCell::new(None) };
}

/// One of the machines that the pool may have.
struct Place {
    machine: Option<Machine>,
}

impl Place {
    /// Waits until a machine is free, or until another one may be started.
    fn take() -> Self {
        static LIMIT: LazyLock<usize> = LazyLock::new(|| number_from("OCI_HOTPLUG_VM_MACHINES", 2));
        let mut pool = pool();
        loop {
            if let Some(machine) = pool.free.pop() {
                return Self {
                    machine: Some(machine),
                };
            }
            if pool.running < *LIMIT {
                pool.running += 1;
                return Self { machine: None };
            }
            pool = CHANGED.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let machine = self.machine.take();
        let mut pool = pool();
        match machine {
            // A failed test may leave anything behind, so its machine is not used again.
            Some(machine) if !std::thread::panicking() => pool.free.push(machine),
            _ => pool.running -= 1,
        }
        CHANGED.notify_one();
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A free machine. Boots one if none is free, and waits for one if no more may be started.
pub fn machine() -> Session {
    let mut place = Place::take();
    if let Some(machine) = &place.machine
        && !machine.begin_story()
    {
        report("a machine does not answer any more, and is replaced");
        place.machine = None;
    }
    if place.machine.is_none() {
        let broken = pool().broken.clone();
        assert!(broken.is_none(), "{}", broken.unwrap_or_default());
        let machine = Machine::boot();
        assert!(machine.begin_story(), "the machine has just booted");
        place.machine = Some(machine);
    }
    let session = Session {
        place,
        began: Instant::now(),
    };
    WITNESS.set(Some(session.shell.clone()));
    session
}

/// A number from the environment.
fn number_from(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text}: not a number"))
    })
}

/// Reports a failure of the emulation: on standard error, which the test harness does not capture
/// here, and in the file of OCI_HOTPLUG_INFRASTRUCTURE_LOG.
fn report(what: &str) {
    let line = format!("infrastructure: {what}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("OCI_HOTPLUG_INFRASTRUCTURE_LOG") {
        let file = std::fs::File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("cannot write to {path:?}: {error}"));
    }
}

impl Deref for Session {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        self.place.machine.as_ref().expect("a machine until the end")
    }
}

/// Prints the time that the test took, for the table in README.md (`--nocapture` shows it).
impl Drop for Session {
    fn drop(&mut self) {
        WITNESS.set(None);
        eprintln!("vm: {:.0?}", self.began.elapsed());
        if std::thread::panicking() {
            eprintln!("vm: the machine of this story is not used again");
        }
    }
}

impl Deref for Machine {
    type Target = Shell;
    fn deref(&self) -> &Shell {
        &self.shell
    }
}

impl Machine {
    /// Boots, several times if necessary: with one thread for each processor, QEMU's emulation was
    /// seen to break the guest's kernel while that patches its own code, early in one of ten boots
    /// ("Kernel panic").
    fn boot() -> Self {
        for attempt in 1.. {
            let problem = match Self::try_boot() {
                Ok(machine) => {
                    install::install(&machine);
                    return machine;
                }
                Err(problem) => problem,
            };
            report(&format!("the machine did not boot, attempt {attempt}: {problem}"));
            if attempt == BOOTS {
                pool().broken = Some(format!("no machine boots: {problem}"));
                panic!("the machine does not boot");
            }
        }
        unreachable!("the attempts end in a machine or a panic")
    }

    fn try_boot() -> Result<Self, String> {
        let began = Instant::now();
        static IMAGE: LazyLock<PathBuf> =
            LazyLock::new(|| PathBuf::from(stdout_of(Command::new("sh").arg("tests/vm/image.sh"))));
        let image = IMAGE.clone();
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
        // Its standard input is a pipe that is open as long as this value exists.
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
        let shell = Shell {
            directory,
            image,
            port,
        };
        let qmp = poll(Duration::from_secs(30), || {
            Qmp::connect(&shell.directory.join("qmp")).ok()
        })
        .ok_or_else(|| format!("qemu does not start: {}", read(&shell.directory.join("qemu.log"))));
        let qmp = match qmp.and_then(|qmp| shell.connect().map(|()| qmp)) {
            Ok(qmp) => qmp,
            Err(problem) => {
                // The guard stops QEMU when its standard input ends.
                drop(guard.stdin.take());
                let _ = guard.wait();
                return Err(problem);
            }
        };
        eprintln!("vm: booted in {:.0?}: {}", began.elapsed(), shell.by_hand());
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                before(panic);
                if let Some(witness) = WITNESS.take() {
                    witness.tell_what_happened();
                }
            }));
        });
        Ok(Self {
            shell,
            commands: RefCell::new(None),
            qmp: RefCell::new(qmp),
            names: Cell::new(0),
            _guard: guard,
        })
    }

    /// Begins a test: from now on the journal and /run/test belong to it, and the USB controller
    /// has the buses 1 and 2. Returns whether the machine answers.
    fn begin_story(&self) -> bool {
        let begun = self.output(&format!(
            "{{ {FIRST_BUSES}; }} && rm -rf /run/test && mkdir /run/test && \
             journalctl --lines=1 --quiet --cursor-file=/run/test/cursor"
        ));
        begun.status.success()
    }

    /// Runs a shell command in the machine and returns its output without the last newline. Panics
    /// if it fails.
    pub fn run(&self, command: &str) -> String {
        expect_success(command, &self.output(command))
    }

    /// Runs a shell command in the machine and returns its status and output.
    pub fn output(&self, command: &str) -> Output {
        let mut commands = self.commands.borrow_mut();
        RunningShell::output(&mut commands, command, || {
            RunningShell::new(self.shell.spawn("exec sh"), "bash")
        })
    }

    /// Waits until a shell command succeeds in the machine. Panics after the deadline with the
    /// command's last output.
    pub fn wait_until(&self, condition: &str) {
        self.run(&until(condition));
    }

    /// Reboots the machine as an operator does. Returns when there is a shell again.
    pub fn reboot(&self) {
        self.is_rebooted_by(|| {
            self.output("systemctl reboot");
        });
    }

    /// Switches the machine off and on, as a power cut does. Returns when there is a shell again.
    pub fn switch_off_and_on(&self) {
        self.is_rebooted_by(|| self.reset());
    }

    fn reset(&self) {
        self.qmp().execute("system_reset", serde_json::json!({}));
    }

    /// Calls `end`, which ends the machine's run, and returns when there is a shell in the next
    /// run.
    fn is_rebooted_by(&self, end: impl FnOnce()) {
        self.shell.is_rebooted_by(end, || {
            report("the machine did not come up again, and is switched off and on");
            self.reset();
        });
        self.commands.take();
    }

    /// The connection to QEMU.
    pub fn qmp(&self) -> RefMut<'_, Qmp> {
        self.qmp.borrow_mut()
    }

    /// A new name for a device or container, unique in this machine.
    pub fn new_name(&self, prefix: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{prefix}{}", self.names.get())
    }
}

/// The command that starts QEMU. The kernel does not copy and clear memory with `rep movs` and
/// `rep stos`: QEMU emulates each repetition separately, which took 8 % more processor time. It
/// gives every program the same addresses: QEMU finds translated code by its address, and
/// translated the same libraries again for each start of a program, which took two thirds of it.
/// The translated code of all tests, that of a cluster among them, is more than 1 GiB, QEMU's usual
/// limit, at which it drops all of it. QEMU 7.2 accepts at most 2047 MiB.
fn qemu(directory: &Path, image: &Path, overlay: &Path, port: u16) -> Vec<String> {
    let at = |name: &str| directory.join(name).display().to_string();
    let mut command: Vec<String> =
        "qemu-system-x86_64 -accel tcg,thread=multi,tb-size=2047 -cpu max,erms=off -m 3072 -nodefaults -display none \
        -device qemu-xhci,id=xhci -audiodev none,id=silent -device virtio-rng-pci -device virtio-net-pci,netdev=net"
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
    command.extend([
        "-smp".into(),
        number_from("OCI_HOTPLUG_VM_PROCESSORS", 1).to_string(),
        "-append".into(),
        "root=/dev/vda rw console=ttyS0 quiet mitigations=off clearcpuid=rep_good norandmaps nokaslr systemd.show_status=no"
            .into(),
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

/// Calls `ask` until it returns a value, for at most `patience`.
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
