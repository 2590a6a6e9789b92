//! `oci-hotplug-usbip`, which does one task for the hooks or the watcher.

use std::io::Write;
use std::process::{Command, Stdio};

use oci_hotplug::usbip::task::{AttachReply, AttachTask, Release, Task, Work};

use super::LONG;
use super::port::Port;

/// Exit code, reply and messages of the worker for this standard input.
fn worker(input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oci-hotplug-usbip"))
        .env("OCI_HOTPLUG_CONFIG", "/no/such/configuration")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start oci-hotplug-usbip");
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin.write_all(input.as_bytes()).expect("write the task");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for oci-hotplug-usbip");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_worker_does_the_task_that_it_reads_and_replies_once() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let task = |work: Work| {
        let state_dir = scratch.path().to_owned();
        serde_json::to_string(&Task { state_dir, work }).expect("JSON")
    };
    let release = task(Work::Release(Release::Container("c1".into())));
    assert_eq!(
        worker(&release),
        (Some(0), "{\"Ok\":null}\n".into(), String::new())
    );
    let port = Port::reserve();
    let attach = task(Work::Attach(AttachTask {
        device: format!("{}/0403:6001", port.address).parse().expect("a device"),
        container: "c1".into(),
        last: None,
        timeout: LONG,
    }));
    let (code, reply, _) = worker(&attach);
    let reply: AttachReply = serde_json::from_str(&reply).expect("a reply");
    let failure = reply.expect_err("nothing listens there");
    assert!(!failure.is_taken && !failure.reason.is_empty(), "{failure:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn the_worker_refuses_input_that_is_not_a_task() {
    let (code, reply, error) = worker("attach lab/0403:6001");
    assert_eq!((code, reply.as_str()), (Some(2), ""));
    assert!(
        error.starts_with("oci-hotplug-usbip: cannot read the task from standard input: ")
            && error.lines().count() == 1,
        "{error}"
    );
}
