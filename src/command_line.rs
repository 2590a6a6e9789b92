//! The command lines of the hooks, the watcher and the USB/IP worker. (The operator's tool and the
//! device plugin use clap.)

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Error, Parser};

use crate::exit;
use crate::host::log;

/// A program and its help text.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name.
    pub name: &'static str,
    /// What `--help` prints.
    pub help: &'static str,
}

/// The options that hooks and watcher have in common.
#[derive(Debug, Default)]
pub(crate) struct CommonOptions {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
}

/// An argument that only one program has.
#[derive(Debug)]
pub(crate) enum OwnArgument {
    /// An option, without its dashes.
    Option(String),
    /// Anything else.
    Value(OsString),
}

impl OwnArgument {
    /// The error for an argument that the program does not have.
    pub(crate) fn unexpected(self) -> Error {
        match self {
            Self::Option(name) => Error::UnexpectedOption(format!("--{name}")),
            Self::Value(value) => Error::UnexpectedArgument(value),
        }
    }
}

/// Reads the command line of this process. `take` gets the arguments that are not common, with the
/// parser for their values.
///
/// # Errors
/// The exit code, when the process must end: after `--help`, `--version`, or an error that
/// was printed.
pub(crate) fn read(
    program: &Program,
    take: impl FnMut(OwnArgument, &mut Parser) -> Result<(), Error>,
) -> Result<CommonOptions, ExitCode> {
    let mut options = CommonOptions::default();
    match parse(program, Some(&mut options), take, Parser::from_env()) {
        Ok(None) => Ok(options),
        Ok(Some(text)) => Err(print(&text)),
        Err(error) => Err(usage_error(program, &error.to_string())),
    }
}

/// [`read`] for a program without any option but `--help` and `--version`.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_plain(program: &Program) -> Result<(), ExitCode> {
    let refuse = |argument: OwnArgument, _: &mut Parser| Err(argument.unexpected());
    match parse(program, None, refuse, Parser::from_env()) {
        Ok(None) => Ok(()),
        Ok(Some(text)) => Err(print(&text)),
        Err(error) => Err(usage_error(program, &error.to_string())),
    }
}

/// Reads all arguments; returns a text that is to be printed instead of running the program.
fn parse(
    program: &Program,
    mut common: Option<&mut CommonOptions>,
    mut take: impl FnMut(OwnArgument, &mut Parser) -> Result<(), Error>,
    mut parser: Parser,
) -> Result<Option<String>, Error> {
    while let Some(argument) = parser.next()? {
        let own = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Some(program.help.to_owned())),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Some(format!("{} {}\n", program.name, env!("CARGO_PKG_VERSION"))));
            }
            Arg::Short(_) => return Err(argument.unexpected()),
            Arg::Long(name) => OwnArgument::Option(name.to_owned()),
            Arg::Value(value) => OwnArgument::Value(value),
        };
        match (&own, common.as_deref_mut()) {
            (OwnArgument::Option(name), Some(common)) if name == "config" => {
                common.config = Some(parser.value()?.into());
            }
            (OwnArgument::Option(name), Some(common)) if name == "state-dir" => {
                common.state_dir = Some(parser.value()?.into());
            }
            _ => take(own, &mut parser)?,
        }
    }
    Ok(None)
}

/// Prints a text to standard output.
fn print(text: &str) -> ExitCode {
    let printed = io::stdout().write_all(text.as_bytes());
    ExitCode::from(if printed.is_ok() { exit::DONE } else { exit::FAILED })
}

/// Prints what is wrong with the command line.
pub(crate) fn usage_error(program: &Program, message: &str) -> ExitCode {
    log::print_to_stderr(&format!("{}: {message} (--help shows the usage)", program.name));
    ExitCode::from(exit::USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program {
        name: "oci-hotplug-test",
        help: "help\n",
    };

    type Outcome = Result<(Option<String>, CommonOptions, Vec<String>), String>;

    fn read(arguments: &[&str]) -> Outcome {
        let (mut common, mut own) = (CommonOptions::default(), Vec::new());
        let take = |argument: OwnArgument, parser: &mut Parser| match argument {
            OwnArgument::Option(name) if name == "device" => {
                own.push(format!("device={}", parser.value()?.to_string_lossy()));
                Ok(())
            }
            OwnArgument::Value(value) => {
                own.push(value.to_string_lossy().into_owned());
                Ok(())
            }
            other => Err(other.unexpected()),
        };
        let printed = parse(&PROGRAM, Some(&mut common), take, Parser::from_args(arguments));
        let printed = printed.map_err(|error| error.to_string())?;
        Ok((printed, common, own))
    }

    #[test]
    fn common_options_and_those_of_the_program_are_read() {
        let (printed, common, own) =
            read(&["--config", "/c", "--device=usb:1", "--state-dir=/s", "--", "--x"]).unwrap();
        assert_eq!(printed, None);
        assert_eq!(
            (common.config, common.state_dir),
            (Some("/c".into()), Some("/s".into()))
        );
        assert_eq!(own, ["device=usb:1", "--x"]);
    }

    #[test]
    fn help_and_version_are_texts_to_print() {
        for (argument, text) in [("-h", "help\n"), ("--help", "help\n")] {
            assert_eq!(read(&[argument]).unwrap().0.as_deref(), Some(text));
        }
        let version = concat!("oci-hotplug-test ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(read(&["-V"]).unwrap().0.as_deref(), Some(version));
    }

    #[test]
    fn an_unknown_option_is_an_error_that_names_it() {
        for (argument, message) in [
            ("--what", "invalid option '--what'"),
            ("-x", "invalid option '-x'"),
            ("--config", "missing argument for option '--config'"),
        ] {
            assert_eq!(read(&[argument]).unwrap_err(), message);
        }
    }
}
