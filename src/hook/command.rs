//! The commands of the two hooks: arguments, exit codes, and error messages.

use std::io;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use lexopt::{Parser, ValueExt};

use super::prestart::{Arguments, PrestartError};
use super::{poststop as stop, prestart as start, read_state};
use crate::command_line::{self, CommonOptions, OwnArgument, Program};
use crate::exit;
use crate::host::config::Config;
use crate::host::log::{self, PRESTART};
use crate::host::process::raise_limits;
use crate::host::state::refused_starts::{self, RefusedStart};
use crate::host::state::registry::Registry;
use crate::model::oci::HookState;

const POSTSTOP: &str = "oci-hotplug-poststop";

pub(crate) const PRESTART_PROGRAM: Program = Program {
    name: PRESTART,
    help: "\
oci-hotplug-prestart: OCI hook that gives a container the devices that it requests, now and when they are plugged in

An OCI runtime starts it at stage createRuntime (or prestart), with the container's state as JSON on standard input.

Usage: oci-hotplug-prestart [--device REQUEST]... [--symlink RULE]... [--udev MODE]
                             [--config FILE] [--state-dir DIR]

  --device REQUEST   a trusted device request, such as usb:0403:6001
                     (untrusted requests are in the annotation io.oci-hotplug.devices)
  --symlink RULE     a further link, such as usb:0403:6001:0=/dev/ttyBOARD
                     (untrusted rules are in the annotation io.oci-hotplug.symlinks)
  --udev MODE        whether the container gets a udev database on /run/udev: auto or never
                     (wins over the annotation io.oci-hotplug.udev and the configuration)
  --config FILE      the configuration [/etc/oci-hotplug/config.toml, or $OCI_HOTPLUG_CONFIG]
  --state-dir DIR    the state directory [/run/oci-hotplug, or $OCI_HOTPLUG_STATE_DIR;
                     of a rootless engine /run/user/UID/oci-hotplug]
  -h, --help         this text
  -V, --version      the version

Exit codes: 0 done, or the container requests nothing; 1 failed, or a required device is absent;
2 malformed request or usage; 3 denied by the policy.
",
};

pub(crate) const POSTSTOP_PROGRAM: Program = Program {
    name: POSTSTOP,
    help: "\
oci-hotplug-poststop: OCI hook that cleans up after a container of oci-hotplug-prestart

An OCI runtime starts it at stage poststop, with the container's state as JSON on standard input.

Usage: oci-hotplug-poststop [--config FILE] [--state-dir DIR]

  --config FILE      the configuration [/etc/oci-hotplug/config.toml, or $OCI_HOTPLUG_CONFIG]
  --state-dir DIR    the state directory [/run/oci-hotplug, or $OCI_HOTPLUG_STATE_DIR;
                     of a rootless engine /run/user/UID/oci-hotplug]
  -h, --help         this text
  -V, --version      the version

Exit codes: 0 when it runs as a hook, also after an error, which is in the log; 2 usage.
",
};

/// The command `oci-hotplug-prestart`.
pub fn prestart() -> ExitCode {
    raise_limits();
    let (options, requests) = match read_prestart_arguments() {
        Ok(read) => read,
        Err(code) => return code,
    };
    let state = match read_state(io::stdin().lock()) {
        Ok(state) => state,
        Err(error) => {
            log::print_to_stderr(&format!("{PRESTART}: {error}"));
            return ExitCode::from(exit::FAILED);
        }
    };
    let config = Config::load(options.config.as_deref(), options.state_dir.as_deref());
    let (config, outcome) = match config {
        Ok(config) => {
            let outcome = start::run(&state, &requests, &config, &Registry::new(&config.state_dir));
            (config, outcome)
        }
        // An unusable configuration must not prevent the start of containers that request nothing.
        Err(_) if !start::has_request(&state, &requests) => return ExitCode::from(exit::DONE),
        Err(error) => {
            let state_only = Config::of_state_only(options.config.as_deref(), options.state_dir.as_deref());
            (state_only.unwrap_or_default(), Err(error.into()))
        }
    };
    match outcome {
        Ok(_) => {
            forget_refusals(&state, &config);
            ExitCode::from(exit::DONE)
        }
        Err(error) => refuse(&state, &config, &error),
    }
}

fn refuse(state: &HookState, config: &Config, error: &PrestartError) -> ExitCode {
    let code = if error.is_refusal() {
        exit::DENIED
    } else if error.is_malformed_request() {
        exit::USAGE
    } else {
        exit::FAILED
    };
    report_refusal(state, config, error.to_string());
    ExitCode::from(code)
}

/// Reports why a container is not started: on standard error, which runc shows; in the log; and in
/// the state directory, where `oci-hotplug check` and `list` read it. The log is opened only here,
/// to save time in a hook that succeeds.
fn report_refusal(state: &HookState, config: &Config, reason: String) {
    log::start(PRESTART, config.log_level.filter(), &config.state_dir, false);
    let id = state.id.as_str();
    let name = start::engine_name(state);
    log::print_to_stderr(&format!("{PRESTART}: container {id}: {reason}"));
    let named = name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    tracing::error!(
        container = id,
        event = log::event::REFUSED_START,
        device = "",
        node = "",
        "container{named} was not started: {reason}"
    );
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let refused = RefusedStart {
        time: time.map_or(0, |time| time.as_secs()),
        id: id.to_owned(),
        name,
        reason,
    };
    // The log has the reason as well.
    if let Err(error) = refused_starts::note(&config.state_dir, refused) {
        tracing::debug!(container = id, "cannot record the refused start: {error}");
    }
}

/// Refused starts of this container, and of earlier ones with its name, no longer matter.
fn forget_refusals(state: &HookState, config: &Config) {
    let id = state.id.as_str();
    let forgotten = refused_starts::forget(&config.state_dir, id, || start::engine_name(state));
    // They stay in the list, which the next start tries to correct.
    if let Err(error) = forgotten {
        tracing::debug!(
            container = id,
            "cannot remove the record of refused starts: {error}"
        );
    }
}

/// The command `oci-hotplug-poststop`. Its exit code is always 0 when it runs as a hook, so that
/// engines can remove the container.
pub fn poststop() -> ExitCode {
    raise_limits();
    let refuse = |argument: OwnArgument, _: &mut Parser| Err(argument.unexpected());
    let options = match command_line::read(&POSTSTOP_PROGRAM, refuse) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let state = match read_state(io::stdin().lock()) {
        Ok(state) => state,
        Err(error) => {
            log::print_to_stderr(&format!("{POSTSTOP}: {error}"));
            return ExitCode::from(exit::DONE);
        }
    };
    let config = Config::load(options.config.as_deref(), options.state_dir.as_deref());
    let state_only = || Config::of_state_only(options.config.as_deref(), options.state_dir.as_deref());
    let fallback = config.is_err().then(state_only).flatten().unwrap_or_default();
    let in_force = config.as_ref().unwrap_or(&fallback);
    let registry = Registry::new(&in_force.state_dir);
    if registry.root().exists() {
        log::start(POSTSTOP, in_force.log_level.filter(), registry.root(), false);
    }
    // This is done even if the configuration cannot be read: the state is most likely in the
    // default directory.
    let outcome = stop::run(&state, &registry);
    if let Err(error) = &config {
        log::print_to_stderr(&format!("{POSTSTOP}: container {}: {error}", state.id));
    }
    if let Err(error) = outcome {
        tracing::error!(container = %state.id, "{error}");
        log::print_to_stderr(&format!("{POSTSTOP}: container {}: {error}", state.id));
    }
    ExitCode::from(exit::DONE)
}

fn read_prestart_arguments() -> Result<(CommonOptions, Arguments), ExitCode> {
    let mut requests = Arguments::default();
    let take = |argument: OwnArgument, parser: &mut Parser| {
        let list = match &argument {
            OwnArgument::Option(name) if name == "device" => &mut requests.devices,
            OwnArgument::Option(name) if name == "symlink" => &mut requests.symlinks,
            OwnArgument::Option(name) if name == "udev" => {
                requests.udev = Some(parser.value()?.parse()?);
                return Ok(());
            }
            _ => return Err(argument.unexpected()),
        };
        list.push(parser.value()?.string()?);
        Ok(())
    };
    let options = command_line::read(&PRESTART_PROGRAM, take)?;
    Ok((options, requests))
}
