//! A shell in a container that runs many commands: `runc exec` for each of a thousand commands
//! would take too long. Does not know containers: the caller passes the command that enters.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::eventually::{DEADLINE, wait_within};

/// Ends the output of every command; containers print nothing like it.
const MARK: &str = "--oci-hotplug-result--";

/// The output of a command line (standard output and error together, without the last newline) and
/// its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellOutput {
    /// Standard output and standard error.
    pub output: String,
    pub status: i32,
}

/// A shell that is connected by two pipes.
pub struct Shell {
    child: Child,
    questions: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Shell {
    /// Starts `command`, which must become a POSIX shell that reads its standard input.
    pub fn enter(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("enter the container");
        let questions = child.stdin.take();
        let output = child.stdout.take().expect("a pipe was requested");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            questions,
            lines,
        }
    }

    /// Runs one command line in a subshell; returns its output.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> ShellOutput {
        let mut questions = self
            .questions
            .as_ref()
            .expect("a shell that is used has its pipe");
        writeln!(questions, "({command}) </dev/null 2>&1; echo \"\n{MARK}$?\"")
            .unwrap_or_else(|error| panic!("the shell inside is gone ({error}); command: {command}"));
        let mut message = Vec::new();
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| {
                panic!("the shell in the container ended ({error}); command: {command}; output: {message:?}")
            });
            if let Some(status) = line.strip_prefix(MARK) {
                let status = status.parse().expect("the shell prints its status");
                return ShellOutput {
                    output: message.join("\n").trim_end_matches('\n').to_owned(),
                    status,
                };
            }
            message.push(line);
        }
    }
}

impl Drop for Shell {
    /// The shell ends when its input does, and `runc exec` reaps it. (A killed `runc exec` would
    /// leave it to the host's init, and the container's pid namespace cannot end before it is
    /// reaped.)
    fn drop(&mut self) {
        self.questions.take();
        wait_within(&mut self.child, DEADLINE);
    }
}
