//! recover, without a container that runs.

use std::process::Command;

use super::record::write_record;
use super::scene::{err, json, out, record, tool, tool_with};

#[test]
fn with_no_container_there_is_nothing_to_recover() {
    let output = tool(&["recover"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "No container is known here: nothing to recover.\n");
    assert_eq!(
        json(&tool(&["recover", "--json"]))["containers"],
        serde_json::json!([])
    );
}

/// A process that is gone with it.
struct Sleeper(std::process::Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn recover_removes_a_record_of_the_last_boot_even_if_a_process_has_its_pid_and_start_time_now() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let sleeper = Sleeper(Command::new("sleep").arg("600").spawn().expect("start sleep"));
    let pid = sleeper.0.id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let started = stat
        .rsplit(')')
        .next()
        .and_then(|fields| fields.split(' ').nth(20));
    let started = started.expect("its start time (proc_pid_stat(5), field 22)");
    let started: u64 = started.parse().expect("a number of ticks");
    let dir = write_record(scratch.path(), "old", |record| {
        record["container"]["pid"] = serde_json::json!(pid);
        record["container"]["start_time"] = serde_json::json!(started);
        record["boot"] = serde_json::json!("00000000-0000-0000-0000-000000000000");
    });
    let output = tool_with(scratch.path(), &["recover"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        out(&output).ends_with("old        the container has ended: its record was removed\n"),
        "{}",
        out(&output)
    );
    assert!(!dir.exists());
}

#[test]
fn recover_removes_records_of_ended_containers_and_reports_each_that_it_cannot_read() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let gone = record(scratch.path(), "gone", 0);
    let newer = record(scratch.path(), "newer", 99);
    let torn = record(scratch.path(), "torn", 1);
    std::fs::write(torn.join("record.json"), "{\"version\":1,\"conta").expect("a torn record");
    let half = scratch.path().join("containers/half");
    std::fs::create_dir_all(&half).expect("a directory without record");
    std::fs::create_dir_all(scratch.path().join("leases")).expect("leases");
    std::fs::write(scratch.path().join("leases/stray"), "").expect("a lease that nobody holds");

    let output = tool_with(scratch.path(), &["recover"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        err(&output),
        "oci-hotplug: 2 of 4 containers could not be recovered\n"
    );
    let said = out(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert_eq!(lines[0], "CONTAINER  DONE");
    assert_eq!(
        lines[1],
        "gone       the container has ended: its record was removed"
    );
    assert_eq!(
        lines[2],
        "half       the container has ended: its record was removed"
    );
    let path = newer.join("record.json");
    assert_eq!(
        lines[3],
        format!(
            "newer      FAILED: cannot read {}: it has version 99, but this oci-hotplug supports versions up to 1 (install the newer oci-hotplug)",
            path.display()
        )
    );
    assert!(
        lines[4].starts_with(&format!(
            "torn       FAILED: cannot read {}/record.json: EOF",
            torn.display()
        )) && lines[4]
            .ends_with("(written by another program? remove the directory after its container has ended)"),
        "{said}"
    );
    assert!(!gone.exists() && !half.exists() && newer.exists() && torn.exists());
    assert!(!scratch.path().join("leases/stray").exists());

    let again: serde_json::Value =
        serde_json::from_str(&out(&tool_with(scratch.path(), &["recover", "--json"]))).expect("JSON");
    assert_eq!(again["containers"][0]["id"], "newer");
    assert_eq!(again["containers"][0]["result"], "failed");
    assert!(
        again["containers"][1]["reason"]
            .as_str()
            .expect("a reason")
            .contains("cannot read ")
    );
}
