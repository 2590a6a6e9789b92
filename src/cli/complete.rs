//! `oci-hotplug complete`: what the completions of bash, zsh and fish offer. The shells' scripts
//! are a few lines long. Which words fit is decided here, from the definition of the arguments.

mod names;

use std::io::Write;

use anyhow::Result;
use clap::{Arg, ArgAction, Command, CommandFactory};

pub(super) use self::names::{HostNames, Names};
use crate::model::quoting::visible;

/// The scripts, each with the name of its file.
pub(super) const SCRIPTS: [(&str, &str); 3] = [
    ("oci-hotplug.bash", include_str!("complete/oci-hotplug.bash")),
    ("_oci-hotplug", include_str!("complete/_oci-hotplug")),
    ("oci-hotplug.fish", include_str!("complete/oci-hotplug.fish")),
];

/// A word that fits.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    word: String,
    /// What it means, in a few words.
    about: String,
}

/// What can stand at a place of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Containers,
    Classes,
    CdiDevices,
    Requests,
    /// The shell completes it.
    Files,
    Nothing,
}

/// Prints what fits behind `words`, of which the last one is begun: one candidate in each line,
/// with a tab before its meaning; or the line `:files`.
pub(super) fn run(words: &[String], names: &impl Names) -> Result<()> {
    let mut command = super::args::Command::command();
    command.build();
    let mut out = std::io::stdout().lock();
    match candidates(&command, words, names) {
        None => writeln!(out, ":files")?,
        Some(candidates) => {
            for Candidate { word, about } in candidates {
                writeln!(out, "{word}\t{}", visible(&about))?;
            }
        }
    }
    Ok(())
}

/// What fits, in order; `None` when it is a file.
fn candidates(command: &Command, words: &[String], names: &impl Names) -> Option<Vec<Candidate>> {
    let (begun, before) = words.split_last()?;
    let mut place = Place::behind(command, before);
    // `--option=` with its value, in one word.
    let (option, begun) = match begun.split_once('=') {
        Some((option, value)) if begun.starts_with("--") => (Some(option), value),
        _ => (None, begun.as_str()),
    };
    place.value = place.value.or_else(|| place.value_of(option?));
    let mut fitting = match place.value {
        Some(kind) => named(kind, begun, names)?,
        None if begun.starts_with('-') => options(place.command),
        None if place.words == 0 && place.command.has_subcommands() => verbs(place.command),
        None => named(place.kind(), begun, names)?,
    };
    fitting.retain(|candidate| candidate.word.starts_with(begun));
    for candidate in option.and(Some(&mut fitting)).into_iter().flatten() {
        candidate.word = format!("{}={}", option.unwrap_or_default(), candidate.word);
    }
    Some(fitting)
}

/// Where the begun word stands.
struct Place<'c> {
    /// The command of the verbs before it.
    command: &'c Command,
    /// The names of these verbs.
    path: Vec<&'c str>,
    /// How many words behind the verbs are neither options nor their values.
    words: usize,
    /// What the option before it needs.
    value: Option<Kind>,
}

impl<'c> Place<'c> {
    fn behind(command: &'c Command, words: &[String]) -> Self {
        let mut place = Self {
            command,
            path: Vec::new(),
            words: 0,
            value: None,
        };
        for word in words {
            if place.value.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                place.value = place.value_of(word);
            } else if let Some(verb) = place.verb(word) {
                place.path.push(verb.get_name());
                place.command = verb;
            } else {
                place.words += 1;
            }
        }
        place
    }

    fn verb(&self, word: &str) -> Option<&'c Command> {
        shown_verbs(self.command)
            .find(|verb| verb.get_name() == word)
            .filter(|_| self.words == 0)
    }

    /// The kind of the value that an option needs as the next word.
    fn value_of(&self, option: &str) -> Option<Kind> {
        let has_name = |argument: &&Arg| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            [long, short].into_iter().flatten().any(|name| name == option)
        };
        let argument = self.command.get_arguments().find(has_name)?;
        matches!(argument.get_action(), ArgAction::Set | ArgAction::Append).then(|| self.kind_of(argument))
    }

    /// The kind of the begun word, which is not an option's value.
    fn kind(&self) -> Kind {
        // A container, and then requests.
        if self.path == ["attach"] {
            return if self.words == 0 {
                Kind::Containers
            } else {
                Kind::Requests
            };
        }
        let all: Vec<&Arg> = self.command.get_positionals().collect();
        let is_repeated = |last: &&&Arg| matches!(last.get_action(), ArgAction::Append);
        let argument = all.get(self.words).or_else(|| all.last().filter(is_repeated));
        argument.map_or(Kind::Nothing, |argument| self.kind_of(argument))
    }

    fn kind_of(&self, argument: &Arg) -> Kind {
        let name = argument.get_value_names().and_then(|names| names.first());
        match (name.map(|name| name.as_str()), &self.path[..]) {
            (Some("FILE" | "DIR" | "DEVICE" | "SELECTOR"), _) => Kind::Files,
            (Some("ID"), _) => Kind::Containers,
            (Some("REQUEST"), _) => Kind::Requests,
            (Some("NAME"), ["class", "remove"]) => Kind::Classes,
            (Some("NAME"), ["cdi", "remove" | "resolve"]) => Kind::CdiDevices,
            _ => Kind::Nothing,
        }
    }
}

fn shown_verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn verbs(command: &Command) -> Vec<Candidate> {
    let candidate = |verb: &Command| Candidate {
        word: verb.get_name().to_owned(),
        about: verb.get_about().map_or_else(String::new, ToString::to_string),
    };
    shown_verbs(command).map(candidate).collect()
}

fn options(command: &Command) -> Vec<Candidate> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut options: Vec<Candidate> = shown
        .filter_map(|argument| {
            Some(Candidate {
                word: format!("--{}", argument.get_long()?),
                about: argument.get_help().map_or_else(String::new, ToString::to_string),
            })
        })
        .collect();
    options.sort();
    options
}

/// The names of a kind; `None` when the shell completes files.
fn named(kind: Kind, begun: &str, names: &impl Names) -> Option<Vec<Candidate>> {
    let all = match kind {
        Kind::Containers => names.containers(),
        Kind::Classes => names.classes(),
        Kind::CdiDevices => names.cdi_devices(),
        Kind::Requests if begun.starts_with('/') => return None,
        Kind::Requests => {
            let class = |(name, about)| (format!("class:{name}"), about);
            names.classes().into_iter().map(class).collect()
        }
        Kind::Files => return None,
        Kind::Nothing => Vec::new(),
    };
    let is_plain = |(word, _): &(String, String)| word.bytes().all(is_plain);
    let candidate = |(word, about)| Candidate { word, about };
    Some(all.into_iter().filter(is_plain).map(candidate).collect())
}

/// Shells need no quotes for these. Anyone who starts containers can choose their names.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:/=+@-".contains(&byte)
}

#[cfg(test)]
mod tests;
