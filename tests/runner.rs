//! The judge of a test run (tests/runner): a failure fails the run, unless the test is listed as
//! unstable; what was not run is not passed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A run of one test binary, which prints what it is given instead of running tests.
struct Run {
    directory: TempDir,
    unstable: &'static str,
    skipped: &'static str,
    allowed: &'static str,
}

/// How a run ended: whether it succeeded, its last line, and everything that it printed.
struct Verdict {
    is_success: bool,
    last_line: String,
    text: String,
}

impl Run {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory for the run"),
            unstable: "",
            skipped: "",
            allowed: "",
        }
    }

    /// Runs tests/runner/binary.sh on a program that prints `output` and exits with `status`.
    fn binary(&self, output: &str, status: i32) -> &Self {
        let program = self.path("device-0123456789abcdef");
        fs::write(self.path("output"), output).expect("write the output");
        fs::write(self.path("status"), status.to_string()).expect("write the status");
        // Not a program that this process writes: such a one cannot be started while another thread
        // forks (ETXTBSY).
        if !program.is_symlink() {
            symlink(here("tests/fixtures/test_binary"), &program).expect("make the program");
        }
        let ended = self
            .command(&here("tests/runner/binary.sh"))
            .arg(&program)
            .arg("--ignored")
            .output()
            .expect("start tests/runner/binary.sh");
        assert_eq!(
            ended.status.code(),
            Some(status),
            "binary.sh keeps the exit status"
        );
        self
    }

    fn verdict(&self) -> Verdict {
        fs::write(self.path("unstable.txt"), self.unstable).expect("write the list of unstable tests");
        fs::write(self.path("skipped"), self.skipped).expect("write the list of skipped tests");
        let script = format!(
            ". {}; summary {}",
            here("tests/runner/results.sh").display(),
            self.allowed
        );
        let ended = self
            .command(&PathBuf::from("bash"))
            .args(["-euo", "pipefail", "-c", &script])
            .output()
            .expect("start bash");
        let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        Verdict {
            is_success: ended.status.success(),
            last_line: text.lines().last().unwrap_or_default().to_owned(),
            text,
        }
    }

    fn command(&self, program: &PathBuf) -> Command {
        let mut command = Command::new(program);
        command
            .env("OCI_HOTPLUG_RUN", self.directory.path())
            .env("OCI_HOTPLUG_UNSTABLE", self.path("unstable.txt"))
            .env("OCI_HOTPLUG_SEED", "7");
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

const ALL_PASS: &str = "\
running 2 tests
test plug::a ... ok
test plug::b ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.01s
";

const ONE_FAILS: &str = "\
running 2 tests
test plug::a ... ok
test plug::b ... noise of a child process
FAILED

failures:

---- plug::b stdout ----
    indented
failures:
    not_a_test
thread 'plug::b' panicked at tests/plug.rs:7:9:
no node within 30 s
stack backtrace:
   0: rust_begin_unwind

failures:
    plug::b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

#[test]
fn a_run_whose_tests_pass_succeeds() {
    let verdict = Run::new().binary(ALL_PASS, 0).verdict();
    assert!(verdict.is_success, "{}", verdict.text);
    assert_eq!(verdict.last_line, "2 passed, 0 failed, 0 skipped");
}

#[test]
fn a_test_that_fails_fails_the_run_and_is_named_with_its_log_and_the_seed() {
    let run = Run::new();
    let verdict = run.binary(ONE_FAILS, 101).verdict();
    assert!(!verdict.is_success, "{}", verdict.text);
    assert_eq!(verdict.last_line, "1 passed, 1 failed, 0 skipped");
    let log = run.path("logs/device-1.log");
    let line = format!("FAILED: device::plug::b (log: {})", log.display());
    assert!(verdict.text.contains(&line), "{}", verdict.text);
    assert!(verdict.text.contains("OCI_HOTPLUG_SEED=7"), "{}", verdict.text);
    let message = "    thread 'plug::b' panicked at tests/plug.rs:7:9:\n    no node within 30 s\n";
    let (_, after) = verdict.text.split_once(&line).expect("the failed test");
    assert_eq!(
        after
            .split_once("the same order")
            .map(|(text, _)| text.trim_start_matches('\n')),
        Some(message)
    );
    let log = fs::read_to_string(log).expect("read the log");
    assert!(log.ends_with(ONE_FAILS), "{log}");
}

#[test]
fn the_tests_run_in_the_order_of_the_seed() {
    let run = Run::new();
    run.binary(ALL_PASS, 0);
    let log = fs::read_to_string(run.path("logs/device-1.log")).expect("read the log");
    let first = log.lines().next().expect("a line");
    assert_eq!(
        first,
        "arguments: -Z unstable-options --report-time --shuffle-seed 7 --ignored"
    );
}

#[test]
fn a_second_run_of_a_binary_keeps_the_log_of_the_first() {
    let run = Run::new();
    let verdict = run.binary(ONE_FAILS, 101).binary(ALL_PASS, 0).verdict();
    assert!(!verdict.is_success, "{}", verdict.text);
    assert_eq!(verdict.last_line, "3 passed, 1 failed, 0 skipped");
    let log = fs::read_to_string(run.path("logs/device-1.log")).expect("read the first log");
    assert!(log.ends_with(ONE_FAILS), "{log}");
}

#[test]
fn a_failure_of_a_test_that_is_listed_as_unstable_is_printed_and_not_counted() {
    let mut run = Run::new();
    run.unstable = "# a comment\ndevice::plug::b | QEMU bug 1 | QEMU 99\n";
    let verdict = run.binary(ONE_FAILS, 101).verdict();
    assert!(verdict.is_success, "{}", verdict.text);
    assert_eq!(verdict.last_line, "1 passed, 0 failed, 0 skipped");
    assert!(
        verdict.text.contains("device::plug::b | QEMU bug 1 | QEMU 99"),
        "{}",
        verdict.text
    );
}

#[test]
fn an_unstable_test_excuses_neither_its_neighbours_nor_the_same_name_in_another_binary() {
    for unstable in [
        "device::plug::a | x | y\n",
        "other::plug::b | x | y\n",
        "device::plug | x | y\n",
    ] {
        let mut run = Run::new();
        run.unstable = unstable;
        let verdict = run.binary(ONE_FAILS, 101).verdict();
        assert!(!verdict.is_success, "{unstable}: {}", verdict.text);
    }
}

#[test]
fn a_test_binary_that_crashes_fails_the_run() {
    let crashed = "running 2 tests\ntest plug::a ... ok\n";
    let verdict = Run::new().binary(crashed, 134).verdict();
    assert!(!verdict.is_success, "{}", verdict.text);
    assert_eq!(verdict.last_line, "0 passed, 1 failed, 0 skipped");
    assert!(
        verdict.text.contains("device ended with status 134"),
        "{}",
        verdict.text
    );
}

#[test]
fn a_test_binary_that_fails_after_all_its_tests_passed_fails_the_run() {
    let verdict = Run::new().binary(ALL_PASS, 1).verdict();
    assert!(!verdict.is_success, "{}", verdict.text);
}

#[test]
fn a_run_without_any_test_fails() {
    let none = "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n";
    let verdict = Run::new().binary(none, 0).verdict();
    assert!(!verdict.is_success, "{}", verdict.text);
    assert!(verdict.text.contains("no test was run"), "{}", verdict.text);
}

#[test]
fn skipped_tests_are_counted_with_their_reasons() {
    let mut run = Run::new();
    run.skipped = "210\tthis kernel has no cgroup v1\nprivileged::plug::c: no USB\n";
    let verdict = run.binary(ALL_PASS, 0).verdict();
    assert!(verdict.is_success, "{}", verdict.text);
    assert_eq!(verdict.last_line, "2 passed, 0 failed, 211 skipped");
    assert!(
        verdict.text.contains("skipped: privileged::plug::c: no USB (1)"),
        "{}",
        verdict.text
    );
}

#[test]
fn a_check_beside_the_tests_is_waited_for_shown_and_counted_when_it_fails() {
    let run = Run::new();
    run.binary(ALL_PASS, 0);
    // The outputs are named after the commands.
    for name in ["works", "fails"] {
        symlink("/bin/bash", run.path(name)).expect("make a program");
    }
    let script = format!(
        "cd {}; . runner/results.sh; . runner/beside.sh; begin_check {} -c 'echo all is well'; \
         begin_check {} -c 'echo it is broken; exit 3'; end_checks; end_checks; \
         begin_check {} -c 'sleep 1000'; stop_checks; wait $! || echo it was stopped",
        here("tests").display(),
        run.path("works").display(),
        run.path("fails").display(),
        run.path("works").display()
    );
    let ended = run
        .command(&PathBuf::from("bash"))
        .args(["-euo", "pipefail", "-c", &script])
        .output();
    let ended = ended.expect("start bash");
    let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    for part in [
        "check-works.log has passed:\nall is well\n",
        "check-fails.log has FAILED:\nit is broken\n",
        "it was stopped",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let verdict = run.verdict();
    assert!(
        !verdict.is_success && verdict.text.contains("FAILED: check-fails.log (log: "),
        "{}",
        verdict.text
    );
    assert_eq!(verdict.last_line, "2 passed, 1 failed, 0 skipped");
}

#[test]
fn more_skipped_tests_than_allowed_fail_the_run() {
    for (allowed, is_success) in [("0", false), ("1", true)] {
        let mut run = Run::new();
        run.skipped = "privileged::plug::c: no USB\n";
        run.allowed = allowed;
        let verdict = run.binary(ALL_PASS, 0).verdict();
        assert_eq!(verdict.is_success, is_success, "{allowed}: {}", verdict.text);
    }
}
