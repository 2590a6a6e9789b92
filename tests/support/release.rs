//! The release executables, which tests of what is shipped use: they are built before (tests/run.sh
//! does it).

use std::fs;
use std::path::{Path, PathBuf};

/// Builds them.
const BUILD: &str = "cargo build --release --locked --features kubernetes --bins";

/// Their directory, beside that of the executables that were built with this test.
fn directory() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_oci-hotplug"));
    let target = built.ancestors().nth(2).expect("a target directory");
    target.join("release")
}

/// One of them. It must not be older than its sources, which the file beside it lists (cargo writes
/// that).
///
/// # Panics
/// When it is missing or out of date; the message has the command that builds it.
pub fn executable(name: &str) -> PathBuf {
    let path = directory().join(name);
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let list = fs::read_to_string(path.with_extension("d"));
    let (Ok(built), Ok(list)) = (time(&path), list) else {
        panic!("{} is missing: {BUILD}", path.display())
    };
    let (_, sources) = list
        .split_once(": ")
        .expect("an executable, a colon and its sources");
    for source in sources.split_whitespace() {
        let changed = time(Path::new(source));
        assert!(
            changed.as_ref().is_ok_and(|changed| *changed <= built),
            "{} is older than {source}: {BUILD}",
            path.display()
        );
    }
    path
}
