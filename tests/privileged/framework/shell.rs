//! A shell that was entered once and answers many questions: a thousand looks into a container
//! would otherwise be a thousand times `runc exec`. Must not know containers: it is given the
//! command that enters.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::eventually::{DEADLINE, wait_within};

/// Ends every answer; nothing that a container prints looks like it.
const MARK: &str = "--oci-hotplug-answer--";

/// What a command line said (output and errors together, without the last line's end) and its exit
/// status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Standard output and standard error.
    pub said: String,
    /// The exit status.
    pub status: i32,
}

/// A shell at the other end of two pipes.
pub struct Shell {
    child: Child,
    questions: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Shell {
    /// Starts `command`, which must end up being a POSIX shell that reads its standard input.
    pub fn enter(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("enter the container");
        let questions = child.stdin.take();
        let output = child.stdout.take().expect("a pipe was asked for");
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

    /// Runs one command line in a subshell and gives what it said.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> Answer {
        let mut questions = self
            .questions
            .as_ref()
            .expect("a shell that is used has its pipe");
        writeln!(questions, "({command}) </dev/null 2>&1; echo \"\n{MARK}$?\"")
            .unwrap_or_else(|error| panic!("the shell inside is gone ({error}); asked: {command}"));
        let mut said = Vec::new();
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| {
                panic!("no answer from inside ({error}); asked: {command}; heard: {said:?}")
            });
            if let Some(status) = line.strip_prefix(MARK) {
                let status = status.parse().expect("the shell prints its status");
                return Answer {
                    said: said.join("\n").trim_end_matches('\n').to_owned(),
                    status,
                };
            }
            said.push(line);
        }
    }
}

impl Drop for Shell {
    /// The end of its input ends it, and `runc exec` reaps it. (Killed, `runc exec` would leave it
    /// to the computer's init, and the container's process namespace cannot end before that has
    /// reaped it.)
    fn drop(&mut self) {
        self.questions.take();
        wait_within(&mut self.child, DEADLINE);
    }
}
