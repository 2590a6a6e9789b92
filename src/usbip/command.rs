//! The program `oci-hotplug-usbip`: reads a task, carries it out, and writes the reply.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use super::attachments::{Purpose, Usbip, binding};
use super::client::ClientError;
use super::error::UsbipError;
use super::records::Record;
use super::task::{AttachReply, AttachTask, AttachedDevice, Failure, Release, ReleaseReply, Task, Work};
use crate::command_line::{self, Program};
use crate::exit;
use crate::host::log;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// The name of the program, with the places of its help and version.
pub(crate) const PROGRAM: Program = Program {
    name: "oci-hotplug-usbip",
    help: "\
oci-hotplug-usbip: attaches and detaches USB devices of other hosts (USB/IP) for containers

The watchers and hooks of oci-hotplug and `oci-hotplug recover` start it. Operators use `oci-hotplug usbip`.

Usage: oci-hotplug-usbip < TASK

It reads one task as JSON from standard input, and writes the reply as JSON to standard output.

  -h, --help         this text
  -V, --version      the version

Exit codes: 0 the reply is written; 1 it cannot be written; 2 the task is malformed.
",
};

/// The longest task that is read, in bytes.
const MAX_TASK: u64 = 64 * 1024;

/// `oci-hotplug-usbip`.
pub fn main() -> ExitCode {
    if let Err(code) = command_line::read_plain(&PROGRAM) {
        return code;
    }
    let task: Task = match read_task(io::stdin().lock()) {
        Ok(task) => task,
        Err(error) => return fail(exit::USAGE, "read the task from standard input", &error),
    };
    let written = match &task.work {
        Work::Attach(work) => write_reply(&attach(&task.state_dir, work)),
        Work::Release(work) => write_reply(&release(&task.state_dir, work)),
    };
    match written {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => fail(exit::FAILED, "write the reply to standard output", &error),
    }
}

fn fail(code: u8, action: &str, error: &dyn Display) -> ExitCode {
    log::print_to_stderr(&format!("{}: cannot {action}: {error}", PROGRAM.name));
    ExitCode::from(code)
}

fn read_task(input: impl Read) -> io::Result<Task> {
    let mut text = Vec::new();
    input.take(MAX_TASK).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn write_reply(reply: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(reply)?;
    text.push(b'\n');
    io::stdout().write_all(&text)
}

fn attach(state_dir: &Path, task: &AttachTask) -> AttachReply {
    let purpose = Purpose {
        container: Some(task.container.clone()),
        last: task.last.clone(),
    };
    let attached = Usbip::open(state_dir)
        .map_err(UsbipError::from)
        .and_then(|usbip| usbip.attach(&task.device, &purpose, task.timeout))
        .map_err(|error| failure(&error))?;
    match binding(&attached) {
        Some(binding) => Ok(AttachedDevice {
            binding,
            note: attached.record.as_ref().and_then(Record::note),
        }),
        None => Err(Failure {
            reason: "the device was detached again right after it was attached".into(),
            is_taken: false,
        }),
    }
}

fn release(state_dir: &Path, release: &Release) -> ReleaseReply {
    // Without the kernel's module, nothing is attached.
    let Ok(usbip) = Usbip::open(state_dir) else {
        return Ok(());
    };
    let registry = Registry::new(state_dir);
    let is_meant = |container: &str, record: &Record| match release {
        Release::EndedContainers => !exists(&registry, container),
        Release::Container(id) => id == container,
        Release::Device {
            container: id,
            device,
        } => id == container && record.requested == *device,
        Release::Unfinished(id) => id == container && record.local.is_none(),
    };
    match usbip.release(is_meant) {
        Ok(_) => Ok(()),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &UsbipError) -> Failure {
    Failure {
        reason: error.to_string(),
        is_taken: matches!(
            error,
            UsbipError::AlreadyAttached { .. }
                | UsbipError::InProgress { .. }
                | UsbipError::Client(ClientError::Busy { .. } | ClientError::Refused { .. })
        ),
    }
}

/// Whether a container that had a device attached still runs or is starting, as far as known.
fn exists(registry: &Registry, id: &str) -> bool {
    let Ok(id) = id.parse::<ContainerId>() else {
        return false;
    };
    match registry.record(&id) {
        Ok(Some(record)) => record.is_running(),
        Ok(None) => registry.is_watched(&id),
        // A newer version may have written the record.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_parsed_as_it_was_written_and_anything_else_is_refused() {
        let task = Task {
            state_dir: "/run/oci-hotplug".into(),
            work: Work::Release(Release::Device {
                container: "c1".into(),
                device: "lab/0403:6001".parse().unwrap(),
            }),
        };
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(
            text,
            r#"{"state_dir":"/run/oci-hotplug","work":{"release":{"device":{"container":"c1","device":"lab/0403:6001"}}}}"#
        );
        assert_eq!(read_task(text.as_bytes()).unwrap(), task);
        for text in ["", "{}", r#"{"state_dir":"/x","work":"dance"}"#] {
            assert!(read_task(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_that_another_host_has_may_be_released_soon() {
        let remote = || "lab/busid:1-1".parse().unwrap();
        for (error, is_taken) in [
            (UsbipError::InProgress { remote: remote() }, true),
            (UsbipError::NoSpeed { remote: remote() }, false),
        ] {
            assert_eq!(failure(&error).is_taken, is_taken, "{error}");
        }
    }
}
