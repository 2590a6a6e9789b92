//! A shell that stays open, in the machine or in a container, and runs one command after another.
//! Each command is a separate process, as if ssh or the engine's exec had started it, without
//! their cost (1.5 to 2 s under emulation).
//!
//! The shell reads commands from its standard input. Marks in its output show where the output of a
//! command begins and ends.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ExitStatus, Output};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::container::quoted;
use crate::times;

/// The longest time for a command. Commands that wait have a shorter deadline.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long a shell may take to end after its input has ended.
const END: Duration = Duration::from_secs(20);

/// A mark that no command prints.
const MARK: char = '\u{1}';

/// The exit status of a command whose shell ended with it.
const GONE: i32 = 255;

pub struct RunningShell {
    /// ssh or the engine's exec, with pipes.
    child: Child,
    /// The program that runs each command.
    interpreter: &'static str,
    stdin: Option<ChildStdin>,
    /// Pieces of the output with the number of their stream; `None` is the end of the stream.
    pieces: Receiver<(usize, Option<Vec<u8>>)>,
    /// Output of each stream that belongs to no finished command yet.
    streams: [Stream; 2],
    count: u32,
}

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    has_ended: bool,
}

/// A command that a shell is running.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    number: u32,
    began: Instant,
}

impl RunningShell {
    /// Runs a command in the shell at `place`. `start` starts a new shell if there is none, or if
    /// it ended before it began the command.
    pub fn output(place: &mut Option<Self>, command: &str, start: impl Fn() -> Self) -> Output {
        let running = Self::begin(place, command, start);
        Self::end(place, running, command)
    }

    /// Begins a command, and does not wait for its end.
    pub fn begin(place: &mut Option<Self>, command: &str, start: impl Fn() -> Self) -> Running {
        let began = Instant::now();
        if let Some(shell) = place {
            if let Some(number) = shell.try_begin(command) {
                return Running { number, began };
            }
            *place = None;
        }
        let shell = place.insert(start());
        let number = shell.try_begin(command).unwrap_or_else(|| {
            let words = shell.streams.each_ref();
            let words = words.map(|stream| String::from_utf8_lossy(&stream.bytes).into_owned());
            panic!("no shell for {command}: {}", words.concat());
        });
        times::record("(a shell starts)", began.elapsed());
        Running {
            number,
            began: Instant::now(),
        }
    }

    /// Waits for the end of a command.
    pub fn end(place: &mut Option<Self>, running: Running, command: &str) -> Output {
        let shell = place.as_mut().expect("the shell that began the command");
        let output = shell.finish(running.number, command);
        times::record(command, running.began.elapsed());
        if output.status.code() == Some(GONE) && shell.has_ended() {
            *place = None;
        }
        output
    }

    /// Lets the shell end: it gets no more commands.
    pub fn let_go(&mut self) {
        self.stdin.take();
    }

    /// `child` as a shell that reads commands from a pipe and runs each with `interpreter -c
    /// COMMAND`.
    pub fn new(mut child: Child, interpreter: &'static str) -> Self {
        let (sender, pieces) = channel();
        copy(child.stdout.take().expect("a pipe"), 0, sender.clone());
        copy(child.stderr.take().expect("a pipe"), 1, sender);
        Self {
            stdin: child.stdin.take(),
            child,
            interpreter,
            pieces,
            streams: Default::default(),
            count: 0,
        }
    }

    fn has_ended(&self) -> bool {
        self.streams[0].has_ended
    }

    /// Waits for more output; false at its end.
    fn hears_more(&mut self, command: &str, deadline: Instant) -> bool {
        match self
            .pieces
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok((stream, Some(piece))) => self.streams[stream].bytes.extend(piece),
            Ok((stream, None)) => self.streams[stream].has_ended = true,
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                // The next command gets another shell.
                let _ = self.child.kill();
                panic!("{command}: no end within {} s", PATIENCE.as_secs());
            }
        }
        true
    }

    /// Removes the text before a mark, and the mark, from a stream, and returns the text.
    fn take_until(&mut self, stream: usize, mark: &str) -> Option<Vec<u8>> {
        let bytes = &mut self.streams[stream].bytes;
        let at = bytes
            .windows(mark.len())
            .position(|window| window == mark.as_bytes())?;
        let before = bytes.drain(..at + mark.len()).take(at).collect();
        Some(before)
    }

    /// Sends a command to the shell. `None` if the shell ended before it began the command.
    fn try_begin(&mut self, command: &str) -> Option<u32> {
        self.count += 1;
        let number = self.count;
        let begun = format!("{MARK}begin {number}{MARK}");
        let end = format!("{MARK}end {number} ");
        // printf gets its text in octal, so that the command line does not contain the marks.
        let octal = |mark: &str| mark.replace(MARK, r"\001");
        let line = format!(
            "printf '{}'; {} -c {} < /dev/null; status=$?; printf '{3}\\001' >&2; printf '{3}%d\\001' $status\n",
            octal(&begun),
            self.interpreter,
            quoted(command),
            octal(&end),
        );
        let stdin = self.stdin.as_mut()?;
        if stdin
            .write_all(line.as_bytes())
            .and_then(|()| stdin.flush())
            .is_err()
        {
            return None;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.take_until(0, &begun).is_some() {
                return Some(number);
            }
            if self.has_ended() || !self.hears_more(command, deadline) {
                return None;
            }
        }
    }

    fn finish(&mut self, number: u32, command: &str) -> Output {
        let end = format!("{MARK}end {number} ");
        let mark = &MARK.to_string();
        let deadline = Instant::now() + PATIENCE;
        let (mut stdout, mut stderr) = (None, None);
        loop {
            stdout = stdout.or_else(|| self.take_until(0, &end));
            stderr = stderr.or_else(|| self.take_until(1, &end));
            if let (Some(out), Some(err)) = (&stdout, &stderr)
                && let Some(status) = self.take_until(0, mark)
            {
                self.take_until(1, mark);
                let status = String::from_utf8_lossy(&status)
                    .parse()
                    .expect("a status from the shell");
                return output(status, out.clone(), err.clone());
            }
            let is_over = self.streams.iter().all(|stream| stream.has_ended);
            if is_over || !self.hears_more(command, deadline) {
                let rest = self
                    .streams
                    .each_mut()
                    .map(|stream| std::mem::take(&mut stream.bytes));
                let [out, err] = rest;
                return output(GONE, stdout.unwrap_or(out), stderr.unwrap_or(err));
            }
        }
    }
}

fn output(code: i32, stdout: Vec<u8>, stderr: Vec<u8>) -> Output {
    Output {
        status: ExitStatus::from_raw(code << 8),
        stdout,
        stderr,
    }
}

/// Sends the pieces of a stream and its end.
fn copy(mut from: impl Read + Send + 'static, stream: usize, to: Sender<(usize, Option<Vec<u8>>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.send((stream, Some(buffer[..length].to_vec()))).is_err() {
                return;
            }
        }
        let _ = to.send((stream, None));
    });
}

impl Drop for RunningShell {
    /// Ends the shell, and waits until the engine has noticed.
    fn drop(&mut self) {
        self.let_go();
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
