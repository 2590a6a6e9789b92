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
        "device request \"class:{name}\": {option} requests more than the class allows: an annotation may only request less"
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
            let entry = RequestEntry::new(origin, request).of_class(name);
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
        Ok(Self { requests, symlinks })
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
mod tests {
    use super::*;
    use crate::model::request::parse_request_list;
    use proptest::prelude::*;

    fn classes(all: &[(&str, &[&str], &[&str])]) -> Result<Classes, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        let definitions = all
            .iter()
            .map(|(name, devices, symlinks)| {
                let definition = Definition {
                    devices: owned(devices),
                    symlinks: owned(symlinks),
                };
                (name.to_string(), definition)
            })
            .collect();
        Classes::parse(Path::new("/etc/c.toml"), &definitions).map_err(|error| error.to_string())
    }

    fn expand(classes: &Classes, text: &str) -> Result<Requests, ClassUseError> {
        classes.expand(Origin::Annotation, parse_request_list(text).unwrap())
    }

    fn expand_trusted(classes: &Classes, text: &str) -> Requests {
        classes
            .expand(Origin::Root, parse_request_list(text).unwrap())
            .unwrap()
    }

    fn told(expanded: &Requests) -> Vec<String> {
        let one = |entry: &RequestEntry| match &entry.class {
            Some(class) => format!("{} of {class}", entry.request),
            None => entry.request.to_string(),
        };
        expanded.entries.iter().map(one).collect()
    }

    fn lab() -> Classes {
        classes(&[
            (
                "lab-board",
                &["usb:0403:6001,usb:0403:6010;access=r", "usb:1366"],
                &["usb:0403:6001:0=/dev/ttyBOARD"],
            ),
            ("camera", &["subsystem:video4linux"], &[]),
        ])
        .unwrap()
    }

    #[test]
    fn a_class_expands_to_all_its_requests_and_rules() {
        let expanded = expand(&lab(), "usb:2341,class:lab-board").unwrap();
        assert_eq!(
            told(&expanded),
            [
                "usb:2341",
                "usb:0403:6001 of lab-board",
                "usb:0403:6010;access=r of lab-board",
                "usb:1366 of lab-board"
            ]
        );
        assert_eq!(expanded.symlinks.len(), 1);
        assert!(
            expanded
                .entries
                .iter()
                .all(|entry| entry.origin == Origin::Annotation)
        );
    }

    #[test]
    fn options_at_the_use_apply_to_all_requests_of_the_class() {
        let expanded = expand_trusted(&lab(), "class:lab-board;access=rw;required");
        let requests: Vec<String> = expanded
            .entries
            .iter()
            .map(|entry| entry.request.to_string())
            .collect();
        assert_eq!(
            requests,
            [
                "usb:0403:6001;access=rw;required",
                "usb:0403:6010;access=rw;required",
                "usb:1366;access=rw;required"
            ]
        );
    }

    #[test]
    fn an_annotation_gets_no_more_than_the_class_allows() {
        let requests = |text: &str| -> Vec<String> {
            let expanded = expand(&lab(), text).unwrap();
            expanded
                .entries
                .iter()
                .map(|entry| entry.request.to_string())
                .collect()
        };
        assert_eq!(
            requests("class:lab-board;access=rw"),
            [
                "usb:0403:6001;access=rw",
                "usb:0403:6010;access=r",
                "usb:1366;access=rw"
            ]
        );
        assert_eq!(
            requests("class:camera;only=driver:x"),
            ["subsystem:video4linux;only=driver:x"]
        );
        let error = expand(&lab(), "class:lab-board;access=w").unwrap_err();
        assert!(
            matches!(&error, ClassUseError::Wider { option: "access", .. }),
            "{error}"
        );
        let narrow = classes(&[("n", &["port:1-1;only=subsystem:tty;only=driver:x"], &[])]).unwrap();
        assert!(expand(&narrow, "class:n;only=driver:x").is_ok());
        let error = expand(&narrow, "class:n;only=subsystem:block").unwrap_err();
        assert_eq!(
            error.to_string(),
            "device request \"class:n\": only requests more than the class allows: an annotation may only request less"
        );
    }

    #[test]
    fn a_class_named_twice_is_expanded_once() {
        let expanded = expand(&lab(), "class:lab-board,class:lab-board").unwrap();
        assert_eq!((expanded.entries.len(), expanded.symlinks.len()), (3, 1));
    }

    #[test]
    fn an_unknown_class_is_reported_with_the_known_ones_and_the_file() {
        let error = expand(&lab(), "class:lab-bord").unwrap_err().to_string();
        assert_eq!(
            error,
            "device request \"class:lab-bord\": no such class is defined in /etc/c.toml (did you mean \
             \"lab-board\"?); known are camera, lab-board"
        );
        let error = expand(&classes(&[]).unwrap(), "class:x").unwrap_err().to_string();
        assert!(
            error.ends_with("it defines none (`oci-hotplug class add x usb:0403:6001` defines one)"),
            "{error}"
        );
    }

    #[test]
    fn an_invalid_definition_is_reported_with_class_request_and_fault() {
        let error = classes(&[("lab", &["usb:0403", "usb:12345"], &[])]).unwrap_err();
        assert_eq!(
            error,
            "class \"lab\": device request \"usb:12345\": vendor id must be 4 hex digits, such as 0403 (devices, \
             element 2)"
        );
        for (name, devices, symlinks, part) in [
            (
                "lab",
                &["class:other"] as &[&str],
                &[] as &[&str],
                "cannot use a class",
            ),
            ("lab", &[], &[], "no devices: write"),
            ("la b", &["usb:0403"], &[], "not a class name"),
            ("lab", &["usb:0403"], &["usb:0403"], "(symlinks, element 1)"),
        ] {
            let error = classes(&[(name, devices, symlinks)]).unwrap_err();
            assert!(error.contains(part) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn without_classes_the_error_names_the_configuration_to_define_one_in() {
        let none = Classes::none(Path::new("/etc/c.toml"));
        assert_eq!(none.iter().count(), 0);
        assert_eq!(none.defined_in(), Path::new("/etc/c.toml"));
    }

    #[test]
    fn a_later_definition_of_a_class_overrides_an_earlier_one() {
        let mut all = lab();
        all.extend(classes(&[("camera", &["usb:046d"], &[]), ("mic", &["usb:0d8c"], &[])]).unwrap());
        let names: Vec<&str> = all.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["camera", "lab-board", "mic"]);
        let expanded = expand(&all, "class:camera,class:mic").unwrap();
        assert_eq!(told(&expanded), ["usb:046d of camera", "usb:0d8c of mic"]);
    }

    #[test]
    fn a_class_that_an_invalid_file_may_define_cannot_be_used() {
        let fault = "/etc/d/50.toml: line 3: expected a value";
        let is_unreadable = |all: &Classes, name: &str| {
            let error = match expand(all, &format!("class:{name}")) {
                Ok(_) => return false,
                Err(error) => error,
            };
            let is_unreadable =
                matches!(&error, ClassUseError::Unreadable { fault: told, .. } if told == fault);
            assert!(is_unreadable || matches!(error, ClassUseError::Unknown { .. }));
            is_unreadable
        };
        let mut all = lab();
        assert!(!is_unreadable(&all, "camera") && !is_unreadable(&all, "other"));
        all.set_aside(Some("[class.camera]\ndevices =".to_owned()), fault.to_owned());
        assert!(is_unreadable(&all, "camera"), "the file may change it");
        assert!(!is_unreadable(&all, "lab-board"), "the file does not name it");
        assert!(is_unreadable(&all, "other"), "the file may include another");
        // An unreadable file may define any class.
        let mut all = lab();
        all.set_aside(None, fault.to_owned());
        assert!(is_unreadable(&all, "lab-board"));
    }

    #[test]
    fn the_maximal_number_of_requests_is_accepted() {
        let many: Vec<String> = (0..MAX_REQUESTS)
            .map(|number| format!("usb:{number:04x}"))
            .collect();
        let requests: Vec<&str> = many.iter().map(String::as_str).collect();
        let classes = classes(&[("a", &requests, &[]), ("b", &["usb:ffff"], &[])]).unwrap();
        assert_eq!(expand(&classes, "class:a").unwrap().entries.len(), MAX_REQUESTS);
        let count = MAX_REQUESTS + 1;
        assert_eq!(
            expand(&classes, "class:a,class:b").unwrap_err(),
            ClassUseError::TooMany { count }
        );
    }

    #[test]
    fn classes_cannot_exceed_the_limit_of_requests() {
        let many: Vec<String> = (0..200).map(|number| format!("usb:{number:04x}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let classes = classes(&[("a", &many, &[])]).unwrap();
        assert!(expand(&classes, "class:a").is_ok());
        let error = expand(&classes, "class:a,class:a;access=r").unwrap_err();
        assert_eq!(error, ClassUseError::TooMany { count: 400 });
    }

    proptest! {
        #[test]
        fn a_list_without_classes_is_unchanged(vendors in proptest::collection::btree_set(0u16.., 1..20)) {
            let texts: Vec<String> = vendors.iter().map(|vendor| format!("usb:{vendor:04x}")).collect();
            let expanded = expand(&lab(), &texts.join(",")).unwrap();
            prop_assert_eq!(told(&expanded), texts);
        }
    }
}
