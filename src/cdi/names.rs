//! CDI names: `vendor/class=device`, checked as in the Go library (pkg/parser/parser.go:81-199).
//!
//! Must not know which devices there are.

use std::fmt;
use std::str::FromStr;

/// `vendor/class`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The vendor: usually a domain.
    pub vendor: String,
    pub class: String,
}

/// `vendor/class=device`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    pub kind: Kind,
    pub device: String,
}

/// Why a name is invalid, with a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the {what} is empty: write one, such as {example}")]
    Empty {
        /// `vendor`, `class` or `device name`.
        what: &'static str,
        /// A valid name.
        example: &'static str,
    },
    /// The first character is not allowed there.
    #[error("the {what} {name:?} must begin with a {letter}{hint}")]
    Begin {
        /// As in [`NameError::Empty`].
        what: &'static str,
        name: String,
        /// `letter`, or `letter or digit`.
        letter: &'static str,
        /// A valid name that is similar.
        hint: String,
    },
    /// The last character is not allowed there.
    #[error("the {what} {name:?} must end with a letter or digit{hint}")]
    End {
        /// As in [`NameError::Empty`].
        what: &'static str,
        name: String,
        /// A valid name that is similar.
        hint: String,
    },
    /// A character is not allowed.
    #[error("the {what} {name:?} must not have {found:?}: letters, digits and {allowed} are allowed{hint}")]
    Character {
        /// As in [`NameError::Empty`].
        what: &'static str,
        name: String,
        found: char,
        /// The characters that are allowed besides letters and digits.
        allowed: &'static str,
        /// A valid name that is similar.
        hint: String,
    },
    /// A single letter: the Go library takes the slice `[1:0]` of it and panics
    /// (pkg/parser/parser.go, validateVendorOrClassName; observed with 0.6.2, 0.8.0 and 1.1.0).
    #[error(
        "the {what} {name:?} has only one letter, at which the CDI library of podman, Docker and containerd crashes: use at least two"
    )]
    OneLetter {
        /// As in [`NameError::Empty`].
        what: &'static str,
        name: String,
    },
    /// The text is not `vendor/class`.
    #[error("{text:?} is not a kind: write VENDOR/CLASS, such as oci-hotplug.dev/device")]
    Kind { text: String },
    /// The text is not `vendor/class=device`.
    #[error(
        "{text:?} is not a qualified name: write VENDOR/CLASS=NAME, such as oci-hotplug.dev/device=annotated"
    )]
    Qualified { text: String },
}

/// The most characters of a name that messages quote.
const SHOWN: usize = 80;

/// The part of a text that messages quote.
fn beginning(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

struct Part {
    what: &'static str,
    example: &'static str,
    begins_with_digit: bool,
    between: &'static str,
    allowed: &'static str,
}

const VENDOR: Part = Part {
    what: "vendor",
    example: "oci-hotplug.dev",
    begins_with_digit: false,
    between: "-_.",
    allowed: "\"-\", \"_\", \".\"",
};
const CLASS: Part = Part {
    what: "class",
    example: "device",
    ..VENDOR
};
const DEVICE: Part = Part {
    what: "device name",
    example: "board",
    begins_with_digit: true,
    between: "-_.:",
    allowed: "\"-\", \"_\", \".\", \":\"",
};

impl Part {
    fn check(&self, name: &str) -> Result<(), NameError> {
        let what = self.what;
        let Some(first) = name.chars().next() else {
            return Err(NameError::Empty {
                what,
                example: self.example,
            });
        };
        let fits = |letter: char| letter.is_ascii_alphanumeric() || self.between.contains(letter);
        let found = name.chars().find(|letter| !fits(*letter));
        let ends = name.ends_with(|letter: char| letter.is_ascii_alphanumeric());
        let (name, hint) = (beginning(name), self.hint(name));
        if let Some(found) = found {
            let allowed = self.allowed;
            return Err(NameError::Character {
                what,
                name,
                found,
                allowed,
                hint,
            });
        }
        if !(first.is_ascii_alphabetic() || self.begins_with_digit && first.is_ascii_digit()) {
            let letter = if self.begins_with_digit {
                "letter or digit"
            } else {
                "letter"
            };
            return Err(NameError::Begin {
                what,
                name,
                letter,
                hint,
            });
        }
        if !ends {
            return Err(NameError::End { what, name, hint });
        }
        Ok(())
    }

    /// A valid name that is similar.
    fn hint(&self, name: &str) -> String {
        let fitting: String = name
            .chars()
            .map(|letter| {
                let fits = letter.is_ascii_alphanumeric() || self.between.contains(letter);
                if fits { letter } else { '-' }
            })
            .collect();
        let begins =
            |letter: char| letter.is_ascii_alphabetic() || self.begins_with_digit && letter.is_ascii_digit();
        let hint = fitting
            .trim_start_matches(|letter| !begins(letter))
            .trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
        if hint.is_empty() || name.chars().count() > SHOWN {
            String::new()
        } else {
            format!(", as in {hint:?}")
        }
    }
}

/// Checks a device's name.
///
/// # Errors
/// Why it is invalid, with a hint.
pub fn check_device(name: &str) -> Result<(), NameError> {
    DEVICE.check(name)
}

impl Kind {
    /// Checks a kind that engines are meant to read.
    ///
    /// # Errors
    /// If their library would panic.
    pub fn check_engines(&self) -> Result<(), NameError> {
        for (what, name) in [(VENDOR.what, &self.vendor), (CLASS.what, &self.class)] {
            if name.len() == 1 {
                let name = name.clone();
                return Err(NameError::OneLetter { what, name });
            }
        }
        Ok(())
    }
}

impl FromStr for Kind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let kind = text.split_once('/').filter(|(_, class)| !class.contains('/'));
        let (vendor, class) = kind.ok_or_else(|| NameError::Kind {
            text: beginning(text),
        })?;
        VENDOR.check(vendor)?;
        CLASS.check(class)?;
        Ok(Self {
            vendor: vendor.to_owned(),
            class: class.to_owned(),
        })
    }
}

impl FromStr for QualifiedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts = text.split_once('=').filter(|(kind, device)| {
            !kind.is_empty() && !kind.starts_with('/') && kind.contains('/') && !device.contains('=')
        });
        let (kind, device) = parts.ok_or_else(|| NameError::Qualified {
            text: beginning(text),
        })?;
        let kind = kind.parse()?;
        check_device(device)?;
        Ok(Self {
            kind,
            device: device.to_owned(),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vendor, self.class)
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.device)
    }
}

#[cfg(test)]
mod tests;
