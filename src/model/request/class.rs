//! Classes: requests in the configuration that containers use by name.
//!
//! Must not know where a request comes from or how the configuration is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::model::quoting::nearest;
use crate::model::request::entry::{Origin, RequestEntry, Requests};
use crate::model::request::selector::did_you_mean_owned;
use crate::model::request::symlink::{SymlinkError, SymlinkRule, parse_symlinks};
use crate::model::request::{
    ClassFault, ClassName, ClassUse, ListItem, MAX_REQUESTS, Request, RequestError, parse_requests,
};

/// A class in the configuration: `[class.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// Requests; each element may be a list, as in the annotation.
    pub devices: Vec<String>,
    /// Rules for further links; each element may be a list.
    #[serde(default)]
    pub symlinks: Vec<String>,
}

/// The content of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub requests: Vec<Request>,
    pub symlinks: Vec<SymlinkRule>,
    /// Whether the user of rootless containers has defined it, and not root: then annotations that
    /// use it are judged as if they had its requests.
    pub is_of_user: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    by_name: BTreeMap<String, Class>,
    defined_in: PathBuf,
    /// Invalid files: their text, as far as it is readable, and the error.
    set_aside: Vec<(Option<String>, String)>,
}

/// An invalid class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("class \"{name}\": {fault}")]
pub struct ClassError {
    pub name: String,
    pub fault: Box<DefinitionFault>,
}

/// Why the definition of a class is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionFault {
    #[error(transparent)]
    Name(#[from] ClassFault),
    #[error("{source} (devices, element {position})")]
    Request {
        /// Counted from 1.
        position: usize,
        source: RequestError,
    },
    #[error("{source} (symlinks, element {position})")]
    Symlink {
        /// Counted from 1.
        position: usize,
        source: SymlinkError,
    },
    /// The class has no requests.
    #[error("no devices: write for example devices = [\"usb:0403:6001\"]")]
    Empty,
}

/// The use of a class that cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassUseError {
    #[error("device request \"class:{name}\": no such class is defined in {defined_in}{hint}; {known}",
        defined_in = defined_in.display(), hint = did_you_mean_owned(.near), known = tell_known(.known, .name))]
    Unknown {
        name: String,
        /// The defined names.
        known: Vec<String>,
        /// The defined name that is most similar.
        near: Option<String>,
        defined_in: PathBuf,
    },
    /// A file that may define the class is invalid.
    #[error(
        "device request \"class:{name}\": {fault}: fix or remove that file (`oci-hotplug check` tests it)"
    )]
    Unreadable {
        name: String,
        /// The error, with file and line.
        fault: String,
    },
    /// An annotation requests more than the class allows.
    #[error(
        "device request \"class:{name}\": {option}= requests more than the class allows: remove it, or request less than the class"
    )]
    Wider {
        name: String,
        /// `access` or `only`.
        option: &'static str,
    },
    /// The list with all classes expanded is too long.
    #[error(
        "device requests: {count}, with those of all classes, are too many: at most {MAX_REQUESTS} are read"
    )]
    TooMany { count: usize },
}

fn tell_known(names: &[String], name: &str) -> String {
    if names.is_empty() {
        return format!("it defines none (`oci-hotplug class add {name} usb:0403:6001` defines one)");
    }
    format!("known are {}", names.join(", "))
}

impl Classes {
    /// Parses the definitions of the configuration `defined_in`, whose name appears in messages.
    ///
    /// # Errors
    /// The first invalid class in the order of names.
    pub fn parse(defined_in: &Path, definitions: &BTreeMap<String, Definition>) -> Result<Self, ClassError> {
        let mut classes = Self {
            by_name: BTreeMap::new(),
            defined_in: defined_in.to_owned(),
            set_aside: Vec::new(),
        };
        for (name, definition) in definitions {
            let class = Class::parse(name, definition).map_err(|fault| ClassError {
                name: name.escape_debug().to_string(),
                fault: Box::new(fault),
            })?;
            classes.by_name.insert(name.clone(), class);
        }
        Ok(classes)
    }

    /// No classes; `defined_in` is the file in which to define one.
    pub fn none(defined_in: &Path) -> Self {
        Self {
            by_name: BTreeMap::new(),
            defined_in: defined_in.to_owned(),
            set_aside: Vec::new(),
        }
    }

    /// Adds the classes of a later file, which override those with the same name.
    pub fn extend(&mut self, later: Self) {
        self.by_name.extend(later.by_name);
    }

    /// Adds the classes that a user of rootless containers has defined. A class of root with the
    /// same name stays.
    pub fn add_of_user(&mut self, users: Self) {
        for (name, class) in users.by_name {
            self.by_name.entry(name).or_insert(Class {
                is_of_user: true,
                ..class
            });
        }
    }

    /// Records that the user's file is invalid: it may define any class that root does not define.
    pub fn set_aside_of_user(&mut self, fault: String) {
        // Its text is left out, because it changes no class of root.
        self.set_aside(Some(String::new()), fault);
    }

    /// Records an invalid file: classes that it may define or change cannot be used. `text` is the
    /// file's text, as far as it is readable.
    pub fn set_aside(&mut self, text: Option<String>, fault: String) {
        self.set_aside.push((text, fault));
    }

    /// The error of an invalid file that may define this class.
    fn fault_of(&self, name: &str) -> Option<&str> {
        let may_define = |text: &Option<String>| text.as_ref().is_none_or(|text| text.contains(name));
        let mut files = self.set_aside.iter();
        let (_, fault) = files.find(|(text, _)| !self.by_name.contains_key(name) || may_define(text))?;
        Some(fault)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Class)> {
        self.by_name.iter().map(|(name, class)| (name.as_str(), class))
    }

    /// The configuration file in which classes are defined.
    pub fn defined_in(&self) -> &Path {
        &self.defined_in
    }

    /// The requests, with each class replaced by its requests. Options at the use override those of
    /// the class, but an untrusted use cannot widen the class: its access is limited to the
    /// class's, and `only=` cannot be replaced.
    ///
    /// # Errors
    /// If a class is unknown, or there are more than [`MAX_REQUESTS`] requests in total.
    pub fn expand(&self, origin: Origin, items: Vec<ListItem>) -> Result<Requests, ClassUseError> {
        let mut expanded = Requests::default();
        for item in items {
            match item {
                ListItem::Request(request) => {
                    push_new(&mut expanded.entries, RequestEntry::new(origin, request))
                }
                ListItem::Class(used) => self.expand_one(origin, &used, &mut expanded)?,
            }
            let count = expanded.entries.len();
            if count > MAX_REQUESTS {
                return Err(ClassUseError::TooMany { count });
            }
        }
        Ok(expanded)
    }

    fn expand_one(&self, origin: Origin, used: &ClassUse, into: &mut Requests) -> Result<(), ClassUseError> {
        let name = used.name.as_str();
        if let Some(fault) = self.fault_of(name) {
            return Err(ClassUseError::Unreadable {
                name: name.to_owned(),
                fault: fault.to_owned(),
            });
        }
        let class = self.by_name.get(name).ok_or_else(|| self.unknown(name))?;
        for request in &class.requests {
            let request = match origin {
                Origin::Root => used.applied_to(request),
                Origin::Annotation => used.narrowing(request).map_err(|option| ClassUseError::Wider {
                    name: name.to_owned(),
                    option,
                })?,
            };
            let entry = RequestEntry::new(origin, request);
            let is_trusted = origin == Origin::Root || !class.is_of_user;
            let entry = if is_trusted { entry.of_class(name) } else { entry };
            push_new(&mut into.entries, entry);
        }
        for rule in &class.symlinks {
            if !into.symlinks.contains(rule) {
                into.symlinks.push(rule.clone());
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> ClassUseError {
        let known: Vec<String> = self.by_name.keys().cloned().collect();
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        ClassUseError::Unknown {
            name: name.to_owned(),
            near: nearest(name, &names).map(str::to_owned),
            known,
            defined_in: self.defined_in.clone(),
        }
    }
}

fn push_new(all: &mut Vec<RequestEntry>, entry: RequestEntry) {
    if !all.contains(&entry) {
        all.push(entry);
    }
}

impl Class {
    fn parse(name: &str, definition: &Definition) -> Result<Self, DefinitionFault> {
        ClassName::new(name)?;
        let requests = parse_each(&definition.devices, parse_requests)
            .map_err(|(position, source)| DefinitionFault::Request { position, source })?;
        let symlinks = parse_each(&definition.symlinks, parse_symlinks)
            .map_err(|(position, source)| DefinitionFault::Symlink { position, source })?;
        if requests.is_empty() {
            return Err(DefinitionFault::Empty);
        }
        Ok(Self {
            requests,
            symlinks,
            is_of_user: false,
        })
    }
}

/// Everything that the texts list, or the first error with the number of its text, counted from 1.
fn parse_each<T, E>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<Vec<T>, E>,
) -> Result<Vec<T>, (usize, E)> {
    let mut all = Vec::new();
    for (text, position) in texts.iter().zip(1..) {
        all.extend(parse(text).map_err(|error| (position, error))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
