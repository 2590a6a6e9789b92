//! The options after the `;` of a request.
//!
//! Must not know selectors, except that `only=` and `or=` take one.

use std::path::PathBuf;

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{NodePath, OnRemoval, Options, Ready, cost, signals};
use crate::model::device::Access;
use crate::model::quoting::{nearest, shown, unescape};
use crate::model::request::selector::path::{link_path, node_directory, node_path};
use crate::model::request::selector::{PathFault, SelectorError, did_you_mean};

/// The most `link=` options of one request.
pub const MAX_LINKS: usize = 64;

/// The most `only=` options of one request.
pub(super) const MAX_ONLY: usize = 16;

/// The most `or=` options of one request.
pub const MAX_ALTERNATIVES: usize = 16;

/// The longest `grace=`.
pub const MAX_GRACE: Duration = Duration::from_secs(3600);

/// The options with an example each; for an option without value, its name.
const OPTIONS: [(&str, &str); 13] = [
    ("access", "access=rw"),
    ("mode", "mode=0660"),
    ("uid", "uid=1000"),
    ("gid", "gid=20"),
    ("path", "path=/dev/sensor"),
    ("link", "link=/dev/sensor"),
    ("only", "only=subsystem:tty"),
    ("or", "or=usb:18d1:9302"),
    ("required", "required"),
    ("exclusive", "exclusive"),
    ("ready", "ready=kernel"),
    ("on-removal", "on-removal=stop"),
    ("grace", "grace=10s"),
];

/// How many characters of a word a message shows.
const SHOWN_WORD: usize = 24;

/// The error in an option, with its hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// `;;` or a `;` at the end.
    #[error("an option is missing after a \";\": remove the extra \";\"")]
    Empty,
    #[error("unknown option \"{name}\"{hint}; known are {known}", hint = did_you_mean(.near), known = known())]
    Unknown {
        /// The name, shortened.
        name: String,
        /// The known option that is most similar.
        near: Option<&'static str>,
    },
    /// An option without the value that it needs.
    #[error("option {name} needs a value, such as {example}")]
    NeedsValue {
        name: &'static str,
        example: &'static str,
    },
    /// `required=yes`.
    #[error("option {name} takes no value: write ;{name}")]
    TakesNoValue { name: &'static str },
    /// An option is given more than once.
    #[error("option {name} is given twice: only link=, only= and or= may be repeated")]
    Twice { name: &'static str },
    #[error("more than {MAX_LINKS} link= options")]
    TooManyLinks,
    /// Evaluating the selectors of `or=` and `only=` would take too much time and memory of the
    /// host.
    #[error(
        "the selectors of or= and only= cost too much: write fewer or shorter globs and regular expressions"
    )]
    TooCostly,
    #[error("more than {MAX_ONLY} only= options: write a glob or a regex that covers several")]
    TooManyOnly,
    #[error("more than {MAX_ALTERNATIVES} or= options")]
    TooManyAlternatives,
    /// `\` at the end.
    #[error("nothing follows the last \"\\\": write \"\\\\\" for a backslash")]
    Dangling,
    #[error("access must be one to three of the letters r, w and m, each at most once, such as access=rw")]
    Access,
    #[error("mode must be an octal number from 0001 to 0777, such as mode=0660")]
    Mode,
    /// Not an id. 4294967295 is -1, which means "leave unchanged" to chown(2).
    #[error("{name} must be a number from 0 to 4294967294")]
    Id {
        /// `uid` or `gid`.
        name: &'static str,
    },
    #[error("{name} {fault}")]
    Path {
        /// `path` or `link`.
        name: &'static str,
        fault: PathFault,
    },
    /// `link=` beside a directory for all nodes.
    #[error(
        "link= names one node, and path={directory}/ is a directory for all nodes: remove link=, or name one node by path= without the last \"/\""
    )]
    LinkAndDirectory {
        /// Shortened.
        directory: String,
    },
    #[error("only= takes one selector: {0}")]
    Only(SelectorError),
    #[error("or= takes a selector, as at the beginning of a request: {0}")]
    Or(SelectorError),
    #[error(
        "grace must be a number of seconds or milliseconds, at most 3600s, such as grace=10s or grace=500ms"
    )]
    Grace,
    /// `grace=` without an effect.
    #[error("grace= delays what on-removal= does: add on-removal=stop, kill or signal:NAME")]
    GraceAlone,
    #[error("ready must be kernel or udev, such as ready=kernel")]
    Ready,
    #[error("on-removal must be keep, stop, kill or signal:NAME, such as on-removal=signal:HUP")]
    OnRemoval,
    /// The signal is unknown.
    #[error(
        "on-removal=signal: takes the name of a Linux signal, such as HUP or SIGTERM, and not \"{name}\""
    )]
    Signal {
        /// The name, shortened.
        name: String,
    },
}

/// The option for a word that other programs use for the same purpose, where the spelling is too
/// different for a suggestion.
fn meant(word: &str) -> Option<&'static str> {
    match word {
        "user" | "owner" => Some("uid"),
        "group" => Some("gid"),
        "name" | "symlink" => Some("link"),
        "permissions" | "perm" => Some("access"),
        _ => None,
    }
}

fn known() -> String {
    names().join(", ")
}

/// The names of all options.
pub(crate) fn names() -> Vec<&'static str> {
    OPTIONS.iter().map(|(name, _)| *name).collect()
}

impl Options {
    /// Parses options, still escaped, in any order.
    pub(super) fn parse<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Self, OptionError> {
        Ok(Self::parse_given(texts)?.0)
    }

    /// The same, with the names of the options that are present.
    pub(super) fn parse_given<'t>(
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<(Self, Vec<&'static str>), OptionError> {
        let mut options = Self::default();
        let mut given: Vec<&'static str> = Vec::new();
        for text in texts {
            let (name, value) = split(text)?;
            if given.contains(&name) && !matches!(name, "link" | "only" | "or") {
                return Err(OptionError::Twice { name });
            }
            given.push(name);
            options.set(name, value)?;
        }
        let directory = options.path.as_ref().and_then(NodePath::directory);
        match directory.filter(|_| !options.links.is_empty()) {
            Some(directory) => Err(OptionError::LinkAndDirectory {
                directory: shown(&directory.display().to_string(), SHOWN_WORD),
            }),
            None => Ok((options, given)),
        }
    }

    /// Sets one option by its value, still escaped.
    fn set(&mut self, name: &'static str, value: &str) -> Result<(), OptionError> {
        if name == "only" && self.only.len() == MAX_ONLY {
            return Err(OptionError::TooManyOnly);
        }
        if name == "only" {
            self.only.push(value.parse().map_err(OptionError::Only)?);
            return Ok(());
        }
        if name == "or" {
            if self.or.len() == MAX_ALTERNATIVES {
                return Err(OptionError::TooManyAlternatives);
            }
            self.or.push(value.parse().map_err(OptionError::Or)?);
            if cost::of_options(self) > cost::MAX_LIST {
                return Err(OptionError::TooCostly);
            }
            return Ok(());
        }
        let value = unescape(value).ok_or(OptionError::Dangling)?;
        match name {
            "access" => self.access = value.parse::<Access>().map_err(|_| OptionError::Access)?,
            "mode" => self.mode = Some(parse_mode(&value)?),
            "uid" => self.uid = Some(parse_id(&value, "uid")?),
            "gid" => self.gid = Some(parse_id(&value, "gid")?),
            "path" => self.path = Some(parse_node_path(&value)?),
            "link" if self.links.len() == MAX_LINKS => return Err(OptionError::TooManyLinks),
            "link" => self.links.push(path("link", link_path(&value))?),
            "ready" => self.ready = Some(parse_ready(&value)?),
            "on-removal" => self.on_removal = value.parse()?,
            "grace" => self.grace = parse_grace(&value)?,
            "exclusive" => self.exclusive = true,
            _ => self.required = true,
        }
        Ok(())
    }
}

/// The option's name from the list, and its value; empty for an option without value.
fn split(text: &str) -> Result<(&'static str, &str), OptionError> {
    let (word, value) = match text.split_once('=') {
        Some((word, value)) => (word, Some(value)),
        None => (text, None),
    };
    if text.is_empty() {
        return Err(OptionError::Empty);
    }
    let Some((name, example)) = OPTIONS.iter().copied().find(|(name, _)| *name == word) else {
        let names = names();
        return Err(OptionError::Unknown {
            name: shown(word, SHOWN_WORD),
            near: meant(word).or_else(|| nearest(word, &names)),
        });
    };
    match value {
        Some(_) if name == example => Err(OptionError::TakesNoValue { name }),
        None | Some("") if name != example => Err(OptionError::NeedsValue { name, example }),
        value => Ok((name, value.unwrap_or_default())),
    }
}

/// Permission bits. set-user-ID, set-group-ID and the sticky bit have no meaning for a device node
/// and are refused.
fn parse_mode(text: &str) -> Result<u32, OptionError> {
    let is_octal = text.len() <= 5 && text.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| is_octal && (1..=0o777).contains(mode))
        .ok_or(OptionError::Mode)
}

fn parse_id(text: &str, name: &'static str) -> Result<u32, OptionError> {
    let is_decimal = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|id| is_decimal && *id != u32::MAX)
        .ok_or(OptionError::Id { name })
}

fn parse_node_path(text: &str) -> Result<NodePath, OptionError> {
    if text.ends_with('/') {
        return path("path", node_directory(text)).map(NodePath::Directory);
    }
    path("path", node_path(text)).map(NodePath::Node)
}

fn path(name: &'static str, path: Result<PathBuf, PathFault>) -> Result<PathBuf, OptionError> {
    path.map_err(|fault| OptionError::Path { name, fault })
}

fn parse_ready(text: &str) -> Result<Ready, OptionError> {
    match text {
        "kernel" => Ok(Ready::Kernel),
        "udev" => Ok(Ready::Udev),
        _ => Err(OptionError::Ready),
    }
}

fn parse_grace(text: &str) -> Result<Duration, OptionError> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis as fn(u64) -> Duration),
        None => (
            text.strip_suffix('s').ok_or(OptionError::Grace)?,
            Duration::from_secs as fn(u64) -> Duration,
        ),
    };
    let is_decimal = (1..=7).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_decimal);
    number
        .map(unit)
        .filter(|grace| *grace <= MAX_GRACE)
        .ok_or(OptionError::Grace)
}

impl FromStr for OnRemoval {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text {
            "keep" => Ok(Self::Keep),
            "stop" => Ok(Self::Stop),
            "kill" => Ok(Self::Kill),
            _ => {
                let name = text.strip_prefix("signal:").ok_or(OptionError::OnRemoval)?;
                let canonical = signals::canonical(name).ok_or_else(|| OptionError::Signal {
                    name: shown(name, SHOWN_WORD),
                })?;
                Ok(Self::Signal(canonical.to_owned()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for OnRemoval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
