//! poststop, a second prestart, `recover` and the next watcher, with the record of a container.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs2::FileExt;

use super::record::write_record;
use super::{OPERATOR, POSTSTOP, PRESTART, STOP_STATES, Scene, WATCHER, words};

/// A process that stands for a container's init or for a watcher, and ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(stdin: impl Into<Stdio>) -> Self {
        let sleeper = Command::new("sleep").arg("3600").stdin(stdin).spawn();
        Self(sleeper.expect("start sleep"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    fn start_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("read a process's stat");
        let (_, fields) = stat.rsplit_once(')').expect("stat has the name in parentheses");
        let field = fields.split_whitespace().nth(19).expect("a start time");
        field.parse().expect("a number")
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("look at a child").is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The container `c1` as a hook and its watcher have recorded it. Both processes are sleepers.
struct Enrolled<'s> {
    scene: &'s Scene,
    init: Sleeper,
    watcher: Sleeper,
}

const ELSEWHERE: &str = "/other/bundle";

impl<'s> Enrolled<'s> {
    /// With this bundle, and the record as `change` leaves it. The watcher has the lock as its
    /// standard input.
    fn new(scene: &'s Scene, bundle: &str, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let init = Sleeper::start(Stdio::null());
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot's id");
        let directory = write_record(&scene.state_dir(), "c1", |record| {
            record["container"]["pid"] = init.pid().into();
            record["container"]["start_time"] = init.start_time().into();
            record["container"]["bundle"] = bundle.into();
            record["container"]["rootfs"] = format!("{bundle}/rootfs").into();
            record["boot"] = boot.trim().into();
            change(record);
        });
        let lock = fs::File::create(directory.join("lock")).expect("make a lock");
        FileExt::lock_exclusive(&lock).expect("take a lock");
        let watcher = Sleeper::start(lock);
        let said = serde_json::json!({ "pid": watcher.pid(), "start_time": watcher.start_time() });
        fs::write(directory.join("lock"), said.to_string()).expect("write a lock");
        Self { scene, init, watcher }
    }

    fn poststop(&self, state: &str) {
        let output = self.scene.run(POSTSTOP, &[], state);
        assert_eq!(output.status.code(), Some(0), "{state}: {}", words(&output));
    }

    #[track_caller]
    fn stays(&mut self, state: &str) {
        assert!(self.watcher.runs(), "the watcher was ended: {state}");
        assert!(!self.scene.has_no_trace(), "the record was removed: {state}");
    }

    #[track_caller]
    fn is_gone(&mut self, state: &str) {
        assert!(!self.watcher.runs(), "the watcher runs: {state}");
        assert!(self.scene.has_no_trace(), "the record is there: {state}");
    }
}

#[test]
fn poststop_succeeds_with_every_input_and_leaves_nothing() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    for name in STOP_STATES {
        for _ in 0..2 {
            let output = scene.run(POSTSTOP, &[], &scene.state(name));
            assert_eq!(output.status.code(), Some(0), "{name}: {}", words(&output));
            assert_eq!(words(&output), "", "{name}");
            assert!(!scene.state_dir().exists(), "{name}");
        }
    }
    for rubbish in ["", "{", r#"{"id":"../x"}"#] {
        let output = scene.run(POSTSTOP, &[], rubbish);
        assert_eq!(output.status.code(), Some(0), "{rubbish:?}");
        assert!(
            words(&output).starts_with("oci-hotplug-poststop: "),
            "{rubbish:?}: {}",
            words(&output)
        );
    }
}

/// Case security 6.
#[test]
fn poststop_leaves_a_running_container_with_the_same_id_alone() {
    let scene = Scene::new("{}");
    let mut other = Enrolled::new(&scene, ELSEWHERE, |_| {});
    for name in STOP_STATES {
        let state = scene.state(name);
        for _ in 0..2 {
            other.poststop(&state);
            other.stays(&state);
        }
    }
}

/// Case security 6. The engine starts a container again with the same id and bundle before the
/// poststop of its previous run.
#[test]
fn a_late_poststop_leaves_the_next_run_of_its_container_alone() {
    let scene = Scene::new("{}");
    let bundle = scene.bundle().display().to_string();
    let mut next = Enrolled::new(&scene, &bundle, |_| {});
    for name in ["podman-poststop.json", "youki-poststop.json"] {
        let state = scene.state(name);
        next.poststop(&state);
        next.stays(&state);
    }
}

/// Case security 6.
#[test]
fn poststop_keeps_the_record_of_a_running_container_that_a_newer_version_wrote_or_whose_watcher_died() {
    let scene = Scene::new("{}");
    let bundle = scene.bundle().display().to_string();
    let mut newer = Enrolled::new(&scene, &bundle, |record| record["version"] = 99.into());
    let state = scene.state("runc-poststop.json");
    newer.poststop(&state);
    newer.stays(&state);
    newer.watcher.0.kill().expect("end the watcher");
    newer.watcher.0.wait().expect("end the watcher");
    newer.poststop(&state);
    assert!(!scene.has_no_trace(), "the record was removed");
}

/// Case security 6. Whatever the id, bundle and pid are: a process that started at another time is
/// another one.
#[test]
fn poststop_ends_the_watcher_of_a_container_that_has_ended() {
    for name in STOP_STATES {
        let scene = Scene::new("{}");
        let bundle = scene.bundle().display().to_string();
        let state = scene.state(name);
        let mut ended = Enrolled::new(&scene, &bundle, |_| {});
        ended.init.0.kill().expect("end the init");
        // Not yet reaped: a zombie has ended.
        let init = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(ended.init.pid() as i32));
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(init, flags).expect("wait for the init's end");
        ended.poststop(&state);
        ended.is_gone(&state);
        ended.poststop(&state);

        let reused = |record: &mut serde_json::Value| {
            let time = record["container"]["start_time"].as_u64().expect("a start time");
            record["container"]["start_time"] = (time + 1).into();
        };
        let mut ended = Enrolled::new(&scene, &bundle, reused);
        ended.poststop(&state);
        ended.is_gone(&state);

        let mut ended = Enrolled::new(&scene, ELSEWHERE, |record| {
            record["boot"] = "an earlier one".into()
        });
        ended.poststop(&state);
        ended.is_gone(&state);
    }
}

/// Case security 6. crun's `delete --force` starts poststop while the killed init is still there.
#[test]
fn poststop_waits_for_the_end_of_an_init_that_is_being_killed() {
    let scene = Scene::new("{}");
    let bundle = scene.bundle().display().to_string();
    let state = scene.state("crun-poststop.json");
    let mut ending = Enrolled::new(&scene, &bundle, |_| {});
    let mut poststop = scene
        .command(POSTSTOP, &[])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start the hook");
    let mut input = poststop.stdin.take().expect("its standard input");
    input.write_all(state.as_bytes()).expect("write the state");
    drop(input);
    let descriptors = format!("/proc/{}/fd", poststop.id());
    let holds_init = || {
        let entries = fs::read_dir(&descriptors).expect("list descriptors").flatten();
        let mut leads_to = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        leads_to.any(|path| path.to_string_lossy().contains("[pidfd]"))
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds_init() {
        assert!(Instant::now() < deadline, "poststop does not look at the init");
    }
    ending.init.0.kill().expect("end the init");
    assert!(poststop.wait().expect("wait for the hook").success());
    ending.is_gone(&state);
}

/// Case security 6.
#[test]
fn a_second_container_with_an_id_in_use_is_refused_at_once_and_the_first_keeps_its_watcher() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    let mut first = Enrolled::new(&scene, ELSEWHERE, |_| {});
    let record = scene.state_dir().join("containers/c1/record.json");
    let before = fs::read(&record).expect("read a record");
    let second = Sleeper::start(Stdio::null());
    let state = scene.state("runc-create-runtime.json");
    let state = state.replace("2147483646", &second.pid().to_string());
    for watched in [true, false] {
        let began = Instant::now();
        let output = scene.run(PRESTART, &[], &state);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        let expected = format!(
            "oci-hotplug-prestart: container c1: container id c1 is in use by another running container (process {}, \
             bundle {ELSEWHERE}): stop that container, or start this one with another id; different engines, runtime \
             roots and containerd namespaces must not use the same id\n",
            first.init.pid()
        );
        assert_eq!(words(&output), expected);
        // Less than a hook waits for a watcher that does not answer.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert_eq!(fs::read(&record).expect("read a record"), before);
        if watched {
            first.stays(&state);
            first.watcher.0.kill().expect("end the watcher");
            first.watcher.0.wait().expect("end the watcher");
        }
    }
}

/// Case security 6. What `recover`, and a watcher that takes over, do with a record whose init is
/// another process by now.
#[test]
fn recover_and_the_next_watcher_identify_a_container_by_start_time_and_boot() {
    let changes: [fn(&mut serde_json::Value); 2] = [
        |record| {
            let time = record["container"]["start_time"].as_u64().expect("a start time");
            record["container"]["start_time"] = (time + 1).into();
        },
        |record| record["boot"] = "an earlier one".into(),
    ];
    for change in changes {
        let scene = Scene::new("{}");
        let mut another = Enrolled::new(&scene, ELSEWHERE, change);
        another.watcher.0.kill().expect("end the watcher");
        another.watcher.0.wait().expect("end the watcher");
        let output = scene
            .command(OPERATOR, &["recover"])
            .output()
            .expect("start the tool");
        assert!(output.status.success(), "{}", words(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("the container has ended: its record was removed"),
            "{said}"
        );
        assert!(scene.has_no_trace());
        assert!(another.init.runs());

        let mut another = Enrolled::new(&scene, ELSEWHERE, change);
        another.watcher.0.kill().expect("end the watcher");
        another.watcher.0.wait().expect("end the watcher");
        let output = scene
            .command(WATCHER, &["--take-over"])
            .arg("c1")
            .output()
            .expect("start the watcher");
        assert!(output.status.success(), "{}", words(&output));
        assert!(scene.has_no_trace());
        assert!(another.init.runs());
    }
}
