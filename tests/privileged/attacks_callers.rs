//! Attacks of callers, who set up a hostile environment for hooks and watcher.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::framework::{Bundle, Disk, Machine, eventually};

/// For each trap, a name for messages and the commands of the shell that then becomes the hook.
fn traps(machine: &Machine, library: &Path, fakes: &Path, full: &Path) -> Vec<(&'static str, String)> {
    let library = library.display();
    let full = full.display();
    vec![
        (
            "a preloaded library",
            format!("export LD_PRELOAD={library} LD_LIBRARY_PATH=/nowhere"),
        ),
        (
            "programs of the caller's choice",
            format!("export PATH={} SHELL=/nowhere IFS=/", fakes.display()),
        ),
        (
            "variables that a program might use",
            format!(
                "export NOTIFY_SOCKET=/nowhere LISTEN_FDS=9 LISTEN_PID=1 TMPDIR={0} HOME={0} XDG_RUNTIME_DIR={0} \
                 RUST_LOG=trace RUST_BACKTRACE=full SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console UDEV_LOG=7 \
                 LC_ALL=nonsense TZ=:/nowhere MALLOC_PERTURB_=7 GLIBC_TUNABLES=glibc.malloc.perturb=7",
                fakes.display()
            ),
        ),
        ("umask 0", "umask 0".to_owned()),
        ("umask 0777", "umask 0777".to_owned()),
        (
            "a working directory that is gone",
            format!(
                "mkdir {0} && cd {0} && rmdir {0}",
                machine.scratch("gone").display()
            ),
        ),
        ("outputs that are full", "exec >/dev/full 2>/dev/full".to_owned()),
        ("full outputs without a reader", format!("exec >{full} 2>{full}")),
        ("outputs that are closed", "exec >&- 2>&-".to_owned()),
        ("few descriptors", "ulimit -S -n 5".to_owned()),
        ("no room in files", "ulimit -S -f 0".to_owned()),
        (
            "little memory",
            "prlimit --pid $$ --data=2097152: --as=67108864:".to_owned(),
        ),
        (
            "a small stack and no processes",
            "prlimit --pid $$ --stack=262144 --nproc=0".to_owned(),
        ),
        // Signals that would end a process without handlers: the end of a child, the end of a
        // reader, and requests to end.
        (
            "all signals ignored and blocked",
            "set -- --ignore-signal --block-signal \"$0\" \"$@\"; exec /usr/bin/env \"$@\"".to_owned(),
        ),
    ]
}

#[apply(on_both_hierarchies)]
fn hooks_and_watcher_work_in_a_hostile_environment(machine: &Machine) {
    let seen = machine.scratch("seen");
    let library = preloaded_library(machine, &seen);
    let fakes = fake_programs(machine, &seen);
    let (full, _reader) = pipe_that_nobody_reads(machine);
    let disk = Disk::new(machine);
    for (name, setup) in traps(machine, &library, &fakes, &full) {
        println!("{name}: {setup}");
        disk.plug(1);
        let request = format!("glob:{}p*", disk.node);
        let container = Bundle::requesting(machine, &request).hooks_after(&setup).start();
        container.eventually_reads(&disk.partition(1), &disk.content(1));
        let watcher = container.expect_watcher();
        disk.plug(2);
        container.eventually_reads(&disk.partition(2), &disk.content(2));
        disk.unplug(2);
        container.eventually_lacks(&disk.partition(2));
        assert_eq!(watcher.environment(), "", "{name}");
        assert_eq!(watcher.working_directory(), Path::new("/"), "{name}");
        for limit in ["Max open files", "Max file size", "Max address space"] {
            let (soft, hard) = watcher.limit(limit);
            assert_eq!(soft, hard, "{name}: {limit}");
        }
        kill(Pid::from_raw(watcher.pid), Signal::SIGTERM).expect("signal the watcher");
        watcher.eventually_ends();
        let deleted = container.delete();
        assert!(deleted.status.success(), "{name}: {deleted:?}");
        disk.unplug(1);
        // runc reports a hook that fails here, but succeeds.
        assert_eq!(machine.traces(), Vec::<PathBuf>::new(), "{name}: {deleted:?}");
    }
    let seen = fs::read_to_string(seen).expect("the preloaded library has been in a hook");
    assert!(seen.contains("oci-hotplug-prestart"), "{seen}");
    assert!(
        !seen.contains("oci-hotplug-watcher") && !seen.contains("fake"),
        "{seen}"
    );
}

/// A library that writes into `seen` which program has loaded it.
fn preloaded_library(machine: &Machine, seen: &Path) -> PathBuf {
    let source = machine.scratch("trap.c");
    let library = machine.scratch("trap.so");
    let text = r#"
        #include <fcntl.h>
        #include <unistd.h>
        __attribute__((constructor)) static void trap(void) {
            char name[4096];
            ssize_t length = readlink("/proc/self/exe", name, sizeof name);
            int fd = open(SEEN, O_WRONLY | O_CREAT | O_APPEND, 0666);
            if (length > 0 && fd >= 0 && write(fd, name, length) == length) write(fd, "\n", 1);
            close(fd);
        }"#;
    fs::write(&source, text).expect("write a library");
    let status = Command::new("cc")
        .arg(format!("-DSEEN=\"{}\"", seen.display()))
        .args(["-w", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("start cc (a C compiler builds the product, too)");
    assert!(status.success(), "compile a library");
    library
}

/// A directory with programs that write into `seen` that they were started by name.
fn fake_programs(machine: &Machine, seen: &Path) -> PathBuf {
    let directory = machine.scratch("fakes");
    fs::create_dir(&directory).expect("make a directory");
    for name in [
        "sh",
        "runc",
        "udevadm",
        "oci-hotplug-watcher",
        "mknod",
        "modprobe",
        "systemd-run",
        "systemctl",
    ] {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(directory.join(name))
            .and_then(|mut file| writeln!(file, "#!/bin/sh\necho fake {name} >>{}", seen.display()))
            .expect("write a program");
    }
    directory
}

/// A full pipe, and the end that keeps it open and never reads.
fn pipe_that_nobody_reads(machine: &Machine) -> (PathBuf, fs::File) {
    let path = machine.scratch("full");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("make a pipe");
    let mut pipe = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)
        .expect("open a pipe");
    while pipe.write(&[0; 4096]).is_ok() {}
    (path, pipe)
}

#[apply(on_both_hierarchies)]
fn a_hook_that_cannot_work_reports_it_and_leaves_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    disk.plug(1);
    for (setup, message) in [
        ("ulimit -n 4", "Too many open files"),
        ("ulimit -f 0", "File too large"),
        ("ulimit -v 3000", ""),
        ("exec <&-", "standard input"),
        ("exec </dev/zero", "longer than"),
    ] {
        println!("{setup}");
        let bundle =
            Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).hooks_after(setup);
        let id = bundle.id.clone();
        let begin = Instant::now();
        let Err(refusal) = bundle.try_create() else {
            panic!("{setup}: the container was created without what it requests");
        };
        assert!(refusal.message.contains(message), "{setup}: {}", refusal.message);
        assert!(
            begin.elapsed() < Duration::from_secs(12),
            "{setup}: {:?}",
            begin.elapsed()
        );
        eventually("no watcher is left", || {
            crate::framework::Watcher::of(&id).is_none()
        });
        // The next hook sweeps what a hook left that could not clean up.
        let next = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
        next.reads(&disk.partition(1), &disk.content(1));
        next.delete();
        assert_eq!(machine.traces(), Vec::<PathBuf>::new(), "{setup}");
    }
}
