//! Standard streams, command lines and exit codes of hooks and watcher.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{POSTSTOP, PRESTART, Scene, WATCHER, words};

#[test]
fn full_or_broken_standard_streams_do_not_change_the_exit_code() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:nonsense"}"#);
    let state = scene.state("docker-create-runtime.json");
    let full = scene.path("full");
    nix::unistd::mkfifo(&full, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let mut pipe = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&full)
        .expect("open a pipe");
    while pipe.write(&[0; 4096]).is_ok() {}
    for outputs in [
        "exec >/dev/full 2>/dev/full".to_owned(),
        "exec >&- 2>&-".to_owned(),
        format!("exec >{0} 2>{0}", full.display()),
    ] {
        let begin = Instant::now();
        let output = scene.run_after(&outputs, PRESTART, &state);
        assert_eq!(output.status.code(), Some(2), "{outputs}: {output:?}");
        for rubbish in ["", "{\"id\":\"../x\"}"] {
            let output = scene.run_after(&outputs, POSTSTOP, rubbish);
            assert_eq!(output.status.code(), Some(0), "{outputs}: {output:?}");
        }
        // Engines kill a hook after 10 s (hooks.d), and these are three.
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{outputs}: {:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn hooks_and_watcher_work_with_closed_standard_streams() {
    // The shell closes what the runtime may have closed.
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:nonsense"}"#);
    let state = scene.path("state.json");
    fs::write(&state, scene.state("docker-create-runtime.json")).expect("write the state");
    let script = format!(
        "exec <{state} >&- 2>&-; {PRESTART} --state-dir {dir} --config {config}; echo $? >{code}",
        state = state.display(),
        dir = scene.state_dir().display(),
        config = scene.path("config.toml").display(),
        code = scene.path("code").display(),
    );
    let status = Command::new("/bin/sh")
        .args(["-c", &script])
        .status()
        .expect("a shell");
    assert!(status.success());
    assert_eq!(
        fs::read_to_string(scene.path("code")).expect("the code").trim(),
        "2"
    );
}

#[test]
fn wrong_usage_exits_with_2_and_help_and_version_are_printed() {
    let scene = Scene::new("{}");
    for hook in [PRESTART, POSTSTOP] {
        let output = scene.run(hook, &["--nonsense"], "");
        assert_eq!(output.status.code(), Some(2));
        assert!(
            words(&output).contains("--nonsense") && words(&output).contains("--help"),
            "{}",
            words(&output)
        );
        let help = scene.run(hook, &["--help"], "");
        assert_eq!(help.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&help.stdout).contains("--state-dir DIR"));
        let version = scene.run(hook, &["--version"], "");
        assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    }
}

/// For systemd an end before READY=1 is a failure, whatever the exit code (systemd.service(5),
/// `Type=notify`): it would start the unit again and again.
#[test]
fn a_watcher_of_a_unit_reports_ready_and_ends_if_its_container_is_gone() {
    let scene = Scene::new("{}");
    let unit = std::os::unix::net::UnixDatagram::bind(scene.path("notify")).expect("a socket");
    let output = scene
        .command(WATCHER, &["--take-over"])
        .arg("c1")
        .env("NOTIFY_SOCKET", scene.path("notify"))
        .output()
        .expect("start the watcher");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    unit.set_nonblocking(true).expect("a socket");
    let mut message = [0; 64];
    let length = unit.recv(&mut message).expect("its message");
    assert_eq!(&message[..length], b"READY=1");
}
