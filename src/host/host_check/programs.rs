//! Programs of other projects: whether they are installed, and their versions.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tree::Tree;
use crate::model::host_check::version::Version;

/// The directories where engines and runtimes are installed. `PATH` is not used: it belongs to the
/// user who runs the check, not to the engine.
const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// How long a program may take to print its version.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the output is read, in bytes: the version is in the first line.
const MAX_OUTPUT: usize = 4096;

/// The path of the program with this name.
pub(super) fn find(tree: &Tree, name: &str) -> Option<PathBuf> {
    let mut paths = DIRECTORIES.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| tree.has_executable(path))
}

/// The version that a program prints for `--version`, if it does so in time.
pub(super) fn version(tree: &Tree, program: &Path) -> Option<Version> {
    output_start(&tree.at(program)).and_then(|text| Version::find(&text))
}

/// The start of a program's output; `None` if it cannot be started or takes too long.
pub(super) fn output_start(program: &Path) -> Option<String> {
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
        .and_then(|stdout| read_start(stdout, Instant::now() + TIMEOUT));
    // The program may still be running. A program that has ended cannot be killed any more.
    let _ = child.kill();
    let _ = child.wait();
    text
}

/// Reads until the end of the output, the maximum length or the deadline.
fn read_start(mut stdout: ChildStdout, deadline: Instant) -> Option<String> {
    let mut text = Vec::new();
    while text.len() < MAX_OUTPUT {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).ok()?;
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
        }
        let mut part = [0; MAX_OUTPUT];
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
    fn the_version_output_of_a_program_is_read() {
        let text = output_start(Path::new("/bin/sh")).unwrap_or_default();
        // dash has no such option, bash has: both end.
        assert!(text.is_empty() || text.contains("bash"), "{text}");
        assert!(output_start(Path::new("/bin/cat")).is_some_and(|text| text.contains("cat")));
        assert_eq!(output_start(Path::new("/nowhere/program")), None);
    }
}
