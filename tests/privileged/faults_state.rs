//! A state directory that is full, read-only, removed or of another version, a stopped watcher, and
//! impossible times: every wait ends, errors have path and hint, and the attached devices stay
//! right.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::hook::{inspect_json, oci_state};
use crate::framework::machine::{PERMISSIVE, mount_tmpfs};
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, Watcher, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

/// Less than the default wait of a hook, which is 9 s. (On an idle machine this takes less than 3
/// s.)
const AT_ONCE: Duration = Duration::from_millis(8_500);

/// A file that takes all free space until it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn load(directory: &Path) -> Self {
        let path = directory.join("ballast");
        let mut file = File::create(&path).expect("make a file");
        while file.write_all(&[0; 512]).is_ok() {}
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The state directory on a separate file system with almost no space.
fn small_state_directory(machine: &Machine) -> PathBuf {
    let directory = machine.state_dir();
    fs::create_dir_all(&directory).expect("make the state directory");
    mount_tmpfs(&directory, "mode=700,size=256k");
    directory
}

/// Asserts that the hook's message has all of these words.
#[track_caller]
fn refused(bundle: Bundle<'_>, words: &[&str]) {
    let id = bundle.id.clone();
    let Err(refusal) = bundle.try_create() else {
        panic!("the container was created");
    };
    for word in words {
        assert!(
            refusal.message.contains(word),
            "no {word:?} in {}",
            refusal.message
        );
    }
    eventually("no watcher is left", || Watcher::of(&id).is_none());
}

fn is_well(machine: &Machine, container: &RuncContainer<'_>) -> bool {
    inspect_json(machine, &container.id).contains("\"health\": \"ok\"")
}

#[apply(on_both_hierarchies)]
fn a_full_state_directory_prevents_the_start_and_nothing_is_left(machine: &Machine) {
    let state = small_state_directory(machine);
    let disk = Disk::new(machine);
    let requesting = || Bundle::requesting(machine, &format!("devnode:{}", disk.plug_again(1)));
    let ballast = Ballast::load(&state);
    refused(
        requesting(),
        &[
            "No space left",
            state.to_str().expect("text"),
            "--state-dir names another",
        ],
    );
    drop(ballast);
    assert_eq!(machine.traces(), NOTHING);
    // Space for the lock and the record only, and so on: the hook fails at each step.
    for room in [1, 2, 3, 4, 6, 8] {
        let reserve = state.join("reserve");
        fs::write(&reserve, vec![0; room * 4096]).expect("keep some room");
        let ballast = Ballast::load(&state);
        fs::remove_file(reserve).expect("give the room back");
        let bundle = requesting();
        let id = bundle.id.clone();
        let begin = Instant::now();
        let outcome = bundle.try_create();
        let took = begin.elapsed();
        match outcome {
            Ok(container) => {
                container.start();
                container.eventually_reads(&disk.partition(1), &disk.content(1));
                container.delete();
            }
            Err(refusal) => {
                assert!(refusal.message.contains("No space left"), "{}", refusal.message);
                assert!(took < AT_ONCE, "a hook that can't succeed took {took:?}");
                eventually("no watcher is left", || Watcher::of(&id).is_none());
            }
        }
        drop(ballast);
        eventually("nothing is left", || machine.traces() == NOTHING);
    }
    let container = requesting().start();
    container.reads(&disk.partition(1), &disk.content(1));
}

#[apply(on_both_hierarchies)]
fn attached_devices_stay_right_while_the_state_directory_is_full(machine: &Machine) {
    let state = small_state_directory(machine);
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .capability("CAP_MKNOD")
        .start();
    let [goes, stays] = [disk.plug(1), disk.plug(2)];
    container.eventually_reads(&goes, &disk.content(1));
    container.eventually_reads(&stays, &disk.content(2));
    let own = container.make_node("own", 'b', number_of(&goes));
    let ballast = Ballast::load(&state);
    // Removal never depends on a note.
    disk.unplug(1);
    container.eventually_lacks(&goes);
    container.eventually_refuses(&own);
    // A device whose note cannot be written is not attached; the reason is reported, and it is
    // attached later without help.
    // The last block of the file has room for the notes of a few devices.
    let is_unwritten = |partition: &u8| {
        let node = disk.plug(*partition);
        eventually("it is attached, or inspect shows the full directory", || {
            let shown = inspect_json(machine, &container.id);
            container.has(&node)
                || ["No space left", "attached.jsonl", "\"problems\""]
                    .iter()
                    .all(|word| shown.contains(word))
        });
        !container.has(&node)
    };
    let partition = (3..12).find(is_unwritten).expect("a device without room");
    let late = disk.partition(partition);
    container.reads(&stays, &disk.content(2));
    drop(ballast);
    container.eventually_reads(&late, &disk.content(partition));
    eventually("nothing is wrong any more", || is_well(machine, &container));
    let ballast = Ballast::load(&state);
    assert!(container.delete().status.success());
    drop(ballast);
    assert_eq!(machine.traces(), NOTHING);
}

/// A read-only mount over the state directory; processes with open files are not affected.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn cover(directory: &Path) -> Self {
        let bind = |flags| mount(Some(directory), directory, None::<&str>, flags, None::<&str>);
        bind(MsFlags::MS_BIND).expect("bind the state directory");
        bind(MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY).expect("make it read-only");
        Self(directory.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[apply(on_both_hierarchies)]
fn a_read_only_state_directory_prevents_the_start(machine: &Machine) {
    let state = machine.state_dir();
    for there_already in [true, false] {
        if there_already {
            fs::create_dir_all(&state).expect("make the state directory");
        }
        let cover = ReadOnly::cover(&state);
        refused(
            Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing"),
            &[
                "Read-only",
                state.to_str().expect("text"),
                "--state-dir names another",
            ],
        );
        drop(cover);
        assert_eq!(machine.traces(), NOTHING);
        if there_already {
            let _ = fs::remove_dir_all(&state);
            fs::create_dir_all(&state).expect("make the state directory");
        }
    }
}

#[apply(on_both_hierarchies)]
fn attached_devices_stay_right_while_the_state_directory_is_read_only(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let goes = disk.plug(1);
    container.eventually_reads(&goes, &disk.content(1));
    let cover = ReadOnly::cover(&machine.state_dir());
    disk.unplug(1);
    container.eventually_lacks(&goes);
    let late = disk.plug(2);
    eventually("inspect shows the read-only directory", || {
        inspect_json(machine, &container.id).contains("Read-only")
    });
    assert!(!container.has(&late));
    drop(cover);
    container.eventually_reads(&late, &disk.content(2));
    eventually("nothing is wrong any more", || is_well(machine, &container));
}

#[apply(on_both_hierarchies)]
fn a_removed_state_directory_is_restored(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let watcher = container.expect_watcher();
    for partition in [2, 3] {
        fs::remove_dir_all(machine.state_dir()).expect("remove the state directory");
        container.reads(&node, &disk.content(1));
        let late = disk.plug(partition);
        container.eventually_reads(&late, &disk.content(partition));
        eventually("the container is listed again", || is_well(machine, &container));
        assert_eq!(container.expect_watcher(), watcher);
        assert!(
            machine.log().contains("was removed; restoring it"),
            "{}",
            machine.log()
        );
    }
    disk.unplug(1);
    container.eventually_lacks(&node);
    // A hook that runs now uses the existing watcher as usual.
    let state = oci_state(
        &container.id,
        "created",
        &json!(container.pid),
        container.bundle.to_str().expect("text"),
    );
    let joined = Hook::prestart(
        machine,
        &["--device".into(), "devnode:/dev/oci-hotplug-nothing".into()],
    )
    .run(&[], &state);
    assert!(joined.status.success(), "{}", text(&joined));
    assert_eq!(Watcher::all_of(&container.id), std::slice::from_ref(&watcher));
    // A watcher that is killed leaves notes from which the next one knows what is attached.
    watcher.kill();
    assert!(container.delete().status.success());
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn a_record_of_a_newer_version_affects_no_other_container(machine: &Machine) {
    let newer = machine.state_dir().join("containers/newer");
    fs::create_dir_all(&newer).expect("make a container's directory");
    let record = newer.join("record.json");
    fs::write(&record, r#"{"version":99,"something":"new"}"#).expect("write a record");
    fs::write(newer.join("lock"), "").expect("write a lock");
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    assert!(is_well(machine, &container));
    assert!(container.delete().status.success());
    assert!(record.exists(), "what is not understood is not removed");
    let shown = operator(machine, &["inspect", "newer"]);
    assert!(text(&shown.1).contains("version 99"), "{}", text(&shown.1));
    assert!(
        text(&shown.1).contains("install the newer oci-hotplug"),
        "{}",
        text(&shown.1)
    );
    // A container that gets this id is a new one, whatever an earlier one left.
    fs::remove_dir_all(newer).expect("remove a record");
}

/// Runs the operator's tool; returns the time that it took, and its output.
fn operator(machine: &Machine, arguments: &[&str]) -> (Duration, std::process::Output) {
    let state_dir = machine.state_dir();
    let mut all = arguments.to_vec();
    all.extend(["--state-dir", state_dir.to_str().expect("text")]);
    let begin = Instant::now();
    let output = Hook::operator().run(&all, "");
    (begin.elapsed(), output)
}

/// A watcher that is stopped until this is dropped.
struct Stopped(Watcher);

impl Stopped {
    fn of(container: &RuncContainer<'_>) -> Self {
        let watcher = container.expect_watcher();
        watcher.pause();
        Self(watcher)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.resume();
    }
}

#[apply(on_cgroup_v2)]
fn the_wait_for_a_stopped_watcher_is_bounded(machine: &Machine) {
    machine.configure(&format!("prestart-timeout = 2\n{PERMISSIVE}"));
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    let stopped = Stopped::of(&container);
    let process = format!("process {}", stopped.0.pid);
    for arguments in [vec!["list"], vec!["inspect", container.id.as_str()]] {
        let (took, output) = operator(machine, &arguments);
        let message = text(&output);
        assert!(took < AT_ONCE, "{arguments:?} took {took:?}");
        assert!(message.contains("no answer"), "{message}");
        if arguments[0] == "inspect" {
            assert!(message.contains(&process), "{message}");
        }
    }
    let state = oci_state(
        &container.id,
        "created",
        &json!(container.pid),
        container.bundle.to_str().expect("text"),
    );
    let begin = Instant::now();
    let joining = Hook::prestart(
        machine,
        &["--device".into(), "devnode:/dev/oci-hotplug-other".into()],
    )
    .run(&[], &state);
    let took = begin.elapsed();
    let message = text(&joining);
    assert_eq!(joining.status.code(), Some(1), "{message}");
    assert!(took < AT_ONCE, "a hook took {took:?}");
    assert!(message.contains("did not answer in time"), "{message}");
    assert!(
        message.contains(machine.state_dir().to_str().expect("text")),
        "{message}"
    );
    // Nothing else waits at all.
    let begin = Instant::now();
    let other = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    assert!(other.delete().status.success());
    assert!(begin.elapsed() < AT_ONCE, "another container waited");
    drop(stopped);
    eventually("it goes on where it was stopped", || is_well(machine, &container));
}

#[apply(on_both_hierarchies)]
fn poststop_ends_a_stopped_watcher(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let stopped = Stopped::of(&container);
    let begin = Instant::now();
    assert!(container.delete().status.success());
    let took = begin.elapsed();
    // The runtime kills a hook after 15 s.
    assert!(took < Duration::from_secs(12), "runc delete took {took:?}");
    assert!(!stopped.0.is_alive());
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn a_full_queue_of_a_stopped_watcher_does_not_block_clients(machine: &Machine) {
    machine.configure(&format!("prestart-timeout = 2\n{PERMISSIVE}"));
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    let stopped = Stopped::of(&container);
    let socket = machine
        .state_dir()
        .join("containers")
        .join(&container.id)
        .join("control.sock");
    // Like a `list` with a timeout every minute for days: a connection that the client has closed
    // stays in the queue until the watcher accepts it.
    let address = nix::sys::socket::UnixAddr::new(&socket).expect("a short path");
    let mut queued = 0;
    loop {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, socket};
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let caller = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("make a socket");
        match connect(std::os::fd::AsRawFd::as_raw_fd(&caller), &address) {
            Ok(()) => queued += 1,
            Err(nix::errno::Errno::EAGAIN) => break,
            Err(error) => panic!("knock at the watcher's door: {error}"),
        }
        assert!(queued < 1_000_000, "the queue has no end");
    }
    let (took, output) = operator(machine, &["list"]);
    assert!(took < AT_ONCE, "list took {took:?}");
    assert!(text(&output).contains("no answer"), "{}", text(&output));
    drop(stopped);
    eventually("it goes on where it was stopped", || is_well(machine, &container));
    let answering = UnixStream::connect(&socket);
    assert!(answering.is_ok(), "{answering:?}");
}

#[apply(on_both_hierarchies)]
fn impossible_times_are_shown(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let record = machine
        .state_dir()
        .join("containers")
        .join(&container.id)
        .join("record.json");
    let written = fs::read(&record).expect("read a record");
    for enrolled in [0, 1 << 40, u64::MAX] {
        let mut changed: Value = serde_json::from_slice(&written).expect("a record is JSON");
        changed["enrolled"] = json!(enrolled);
        fs::write(&record, changed.to_string()).expect("write a record");
        for arguments in [
            vec!["list"],
            vec!["list", "--json"],
            vec!["inspect", &container.id],
        ] {
            let (_, output) = operator(machine, &arguments);
            assert!(output.status.success(), "{enrolled}: {}", text(&output));
            assert!(text(&output).contains(&node), "{enrolled}: {}", text(&output));
        }
    }
}
