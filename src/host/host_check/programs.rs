//! Programs of others: whether they are installed, and what they say their version is.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tree::Tree;
use crate::model::host_check::version::Version;

/// Where engines and runtimes are installed. Not $PATH: that is whoever's asks, and not the
/// engine's.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// As much of its answer as is looked at, in bytes: the version stands in the first line.
const ENOUGH: usize = 4096;

/// Where a program of this name is.
pub(super) fn find(tree: &Tree, name: &str) -> Option<PathBuf> {
    let mut paths = DIRECTORIES.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| tree.has_executable(path))
}

/// What a program says to `--version`, if it says anything in time.
pub(super) fn version(tree: &Tree, program: &Path) -> Option<Version> {
    said(&tree.at(program)).and_then(|text| Version::find(&text))
}

/// Its first words on standard output; `None` when it can't be started, or goes on for too long.
pub(super) fn said(program: &Path) -> Option<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        .env("HOME", "/root")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let text = child
        .stdout
        .take()
        .and_then(|stdout| first_words(stdout, Instant::now() + PATIENCE));
    // What goes on after that is not waited for; one that has ended can't be killed any more.
    let _ = child.kill();
    let _ = child.wait();
    text
}

/// What comes until the end, or until there is enough of it.
fn first_words(mut stdout: ChildStdout, deadline: Instant) -> Option<String> {
    let mut text = Vec::new();
    while text.len() < ENOUGH {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).ok()?;
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
        }
        let mut part = [0; ENOUGH];
        match stdout.read(&mut part).ok()? {
            0 => break,
            length => text.extend_from_slice(&part[..length]),
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_for_its_version() {
        let text = said(Path::new("/bin/sh")).unwrap_or_default();
        // dash has no such option, bash has: either way there is an end.
        assert!(text.is_empty() || text.contains("bash"), "{text}");
        assert!(said(Path::new("/bin/cat")).is_some_and(|text| text.contains("cat")));
        assert_eq!(said(Path::new("/nowhere/program")), None);
    }
}
