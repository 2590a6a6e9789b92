//! tests/bench/peer.sh, which compares with another tool: which sources it builds, and what it
//! refuses. The comparison needs root and minutes; these tests build nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A checkout with the files that the script changes, and another one.
struct Checkout(TempDir);

impl Checkout {
    fn new(log: &str) -> Self {
        let checkout = Self(tempfile::tempdir().expect("a directory for a checkout"));
        fs::create_dir_all(checkout.path("src/util")).expect("make its directories");
        for (file, text) in [
            ("build.rs", "fn main() { compile_the_filter(); }\n"),
            ("src/main.rs", "fn main() {}\n"),
            ("src/util/log.rs", log),
        ] {
            fs::write(checkout.path(file), text).expect("write a file of the checkout");
        }
        checkout.git(&["init", "--quiet"]);
        checkout.git(&["add", "."]);
        let author = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"];
        checkout.git(
            &[
                &author[..],
                &["commit", "--quiet", "--no-gpg-sign", "-m", "First"],
            ]
            .concat(),
        );
        checkout
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.0.path());
        // Not the settings of the person who runs the tests.
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        let status = command.status().expect("start git");
        assert!(status.success(), "{command:?}: {status}");
    }
}

fn script(arguments: &[&Path]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/peer.sh");
    let mut command = Command::new(script);
    command
        .args(arguments)
        .output()
        .expect("start tests/bench/peer.sh")
}

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const LOG: &str = "fn connect() {\n    socket.connect(\"/dev/log\")\n}\n";

#[test]
fn the_commit_is_built_with_another_log_and_without_its_build_script() {
    let checkout = Checkout::new(LOG);
    // Not committed, so not built.
    fs::write(checkout.path("src/main.rs"), "changed").expect("change a file");
    let copy = tempfile::tempdir().expect("a directory for the copy");
    let output = script(&[Path::new("--sources"), checkout.0.path(), copy.path()]);
    assert!(output.status.success(), "{output:?}");
    let read = |file: &str| fs::read_to_string(copy.path().join(file)).expect("a file of the copy");
    assert_eq!(read("src/main.rs"), "fn main() {}\n");
    assert_eq!(read("build.rs"), "fn main() {}\n");
    let log = read("src/util/log.rs");
    let (before, after) = LOG.split_once("\"/dev/log\"").expect("the path of the log");
    let changed = log.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    assert!(
        changed.is_some_and(|path| path.contains("OCI_HOTPLUG_PEER")),
        "{log}"
    );
    let original = fs::read_to_string(checkout.path("src/util/log.rs")).expect("a file of the checkout");
    assert_eq!(original, LOG);
}

#[test]
fn a_commit_that_the_script_does_not_know_how_to_change_is_refused() {
    for log in ["fn connect() {}\n", &LOG.repeat(2)] {
        let checkout = Checkout::new(log);
        let copy = tempfile::tempdir().expect("a directory for the copy");
        let output = script(&[Path::new("--sources"), checkout.0.path(), copy.path()]);
        let error = error(&output);
        assert!(
            error.contains("log.rs") && error.contains("adapt tests/bench/peer.sh"),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_a_checkout_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing");
    assert!(error(&script(&[&missing])).contains("is not a directory"));
    assert!(error(&script(&[directory.path()])).contains("is not a git checkout"));
    assert_eq!(script(&[]).status.code(), Some(2));
}
