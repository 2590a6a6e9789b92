//! `class:NAME` in place of a selector: requests that the configuration defines.
//!
//! Must not know what the class requests (`model::request::class`).

use std::fmt;

use super::{Options, Request};
use crate::model::device::Access;
use crate::model::quoting::shown;

/// The longest name of a class, in characters: with the prefix `oci-hotplug.dev-`, it is still a
/// valid file name.
pub const MAX_CLASS_NAME: usize = 63;

/// How many characters of a name a message shows.
const SHOWN_NAME: usize = 24;

/// One element of a list of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListItem {
    Request(Request),
    /// The name of a class in the configuration.
    Class(ClassUse),
}

/// `class:NAME`, with options for all requests of the class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassUse {
    pub name: ClassName,
    /// The options at the use.
    pub options: Options,
    /// The names of these options; for all others, those of the class apply.
    pub given: Vec<&'static str>,
}

/// The name of a class: letters, digits, and `-`, `_`, `.` in between. It is also a valid device
/// name in CDI.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassName(String);

/// Why a text is not the name of a class, or is used where no class is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassFault {
    #[error("class: is empty: write the name of a class, such as class:lab-board")]
    Empty,
    #[error("class names have at most {MAX_CLASS_NAME} characters, and this one has {length}")]
    TooLong {
        /// In characters.
        length: usize,
    },
    /// It has other characters.
    #[error(
        "\"{name}\" is not a class name: class names have letters, digits and, in between, \"-\", \"_\" and \".\", as in lab-board"
    )]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// It is joined with another term by `&`.
    #[error(
        "class: must stand alone, without \"&\": write the condition into the class, in the configuration, or as ;only=SELECTOR"
    )]
    NotAlone,
    /// It has an alternative.
    #[error("class: does not support or=: write the alternative into the class, in the configuration")]
    Or,
    /// It is used in a class.
    #[error("a class cannot use a class: write out its requests")]
    InClass,
}

impl ClassName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`ClassFault`], if it is empty, too long, or has other characters.
    pub fn new(name: &str) -> Result<Self, ClassFault> {
        if name.is_empty() {
            return Err(ClassFault::Empty);
        }
        let length = name.chars().count();
        if length > MAX_CLASS_NAME {
            return Err(ClassFault::TooLong { length });
        }
        let plain = |letter: char| letter.is_ascii_alphanumeric();
        let fits = name.chars().all(|letter| plain(letter) || "-_.".contains(letter))
            && name.starts_with(plain)
            && name.ends_with(plain);
        if !fits {
            return Err(ClassFault::Name {
                name: shown(name, SHOWN_NAME),
            });
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClassUse {
    /// Parses `class:NAME` in place of a selector; `None` if it is something else.
    pub(super) fn name_in(selector: &str) -> Option<Result<ClassName, ClassFault>> {
        let name = selector.strip_prefix("class:")?;
        Some(if name.contains('&') {
            Err(ClassFault::NotAlone)
        } else {
            ClassName::new(name)
        })
    }

    /// A request of the class, with the options at the use overriding its own.
    pub fn applied_to(&self, request: &Request) -> Request {
        let mut request = request.clone();
        for name in &self.given {
            request.options.take(name, &self.options);
        }
        request
    }

    /// The same for untrusted uses, which must not exceed the class: the access is the common part
    /// of both.
    ///
    /// # Errors
    /// The name of the option that exceeds the class: no access is left, or `only=` differs from
    /// the class's.
    pub fn narrowing(&self, request: &Request) -> Result<Request, &'static str> {
        let mut narrowed = self.applied_to(request);
        let class = &request.options;
        let options = &mut narrowed.options;
        options.access = Access::from_bits_truncate(options.access.bits() & class.access.bits());
        if options.access.is_none() {
            return Err("access");
        }
        let is_the_classs = |only| class.only.is_empty() || class.only.contains(only);
        if !options.only.iter().all(is_the_classs) {
            return Err("only");
        }
        Ok(narrowed)
    }
}

impl Options {
    /// Copies one option from other options. A directory as `path=` and `link=` exclude each other:
    /// the copied one replaces the other.
    fn take(&mut self, name: &str, from: &Self) {
        match name {
            "access" => self.access = from.access,
            "mode" => self.mode = from.mode,
            "uid" => self.uid = from.uid,
            "gid" => self.gid = from.gid,
            "path" => {
                self.path.clone_from(&from.path);
                if self.has_directory() {
                    self.links.clear();
                }
            }
            "link" => {
                self.links.clone_from(&from.links);
                if self.has_directory() {
                    self.path = None;
                }
            }
            "only" => self.only.clone_from(&from.only),
            "required" => self.required = from.required,
            "exclusive" => self.exclusive = from.exclusive,
            "ready" => self.ready = from.ready,
            "on-removal" => self.on_removal = from.on_removal.clone(),
            "grace" => self.grace = from.grace,
            // `Options::parse` accepts no other names: a test compares the two lists.
            _ => {}
        }
    }

    fn has_directory(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.directory().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::{parse_request_list, parse_requests};
    use proptest::prelude::*;

    fn the_use(text: &str) -> ClassUse {
        match parse_request_list(text).unwrap().remove(0) {
            ListItem::Class(used) => used,
            ListItem::Request(request) => panic!("{request} does not use a class"),
        }
    }

    fn fault(text: &str) -> String {
        parse_request_list(text).unwrap_err().to_string()
    }

    #[test]
    fn a_class_may_be_an_element_of_a_list() {
        let items = parse_request_list("usb:0403, class:lab-board;access=r ,class:b.2").unwrap();
        assert!(matches!(&items[0], ListItem::Request(_)));
        assert!(
            matches!(&items[1], ListItem::Class(used) if used.name.as_str() == "lab-board" && used.given == ["access"])
        );
        assert!(
            matches!(&items[2], ListItem::Class(used) if used.name.as_str() == "b.2" && used.given.is_empty())
        );
    }

    #[test]
    fn the_name_of_a_class_is_displayed_unchanged() {
        assert_eq!(ClassName::new("lab-board.2").unwrap().to_string(), "lab-board.2");
    }

    #[test]
    fn an_error_names_the_request_and_the_hint() {
        for (text, part) in [
            ("class:", "is empty"),
            ("class:-a", "not a class name"),
            ("class:a/b", "not a class name"),
            ("class:lab&usb:0403", "must stand alone"),
            ("parent-of:class:lab", "must stand alone"),
            ("usb:0403&class:lab", "must stand alone"),
            ("usb:0403;only=class:lab", "must stand alone"),
            ("class:lab;acess=r", "did you mean \"access\""),
            ("class:lab;or=usb:0403", "class: does not support or="),
            ("usb:0403;or=class:lab", "must stand alone"),
        ] {
            let message = fault(text);
            assert!(
                message.contains(part) && message.contains("device request"),
                "{text}: {message}"
            );
        }
        assert!(fault(&format!("class:{}", "a".repeat(64))).contains("at most 63"));
    }

    #[test]
    fn where_no_class_is_allowed_the_error_says_so() {
        assert!(
            parse_requests("class:lab")
                .unwrap_err()
                .to_string()
                .contains("cannot use a class")
        );
        assert!("class:lab".parse::<Request>().is_err());
    }

    #[test]
    fn an_option_at_the_use_overrides_that_of_the_class_and_keeps_the_rest() {
        let request: Request = "usb:0403;access=r;mode=0600;link=/dev/a;on-removal=kill"
            .parse()
            .unwrap();
        let used = the_use("class:x;access=rwm;link=/dev/b;on-removal=keep;required");
        assert_eq!(
            used.applied_to(&request).to_string(),
            "usb:0403;mode=0600;link=/dev/b;required"
        );
        assert_eq!(the_use("class:x").applied_to(&request), request);
    }

    #[test]
    fn a_directory_at_the_use_replaces_links_of_the_class_and_a_link_replaces_its_directory() {
        for (request, used, expected) in [
            ("usb:0403;link=/dev/a", "path=/dev/d/", "usb:0403;path=/dev/d/"),
            ("usb:0403;path=/dev/d/", "link=/dev/a", "usb:0403;link=/dev/a"),
            (
                "usb:0403;path=/dev/p",
                "link=/dev/a",
                "usb:0403;path=/dev/p;link=/dev/a",
            ),
            (
                "usb:0403;path=/dev/d/",
                "path=/dev/p;link=/dev/a",
                "usb:0403;path=/dev/p;link=/dev/a",
            ),
            (
                "usb:0403;path=/dev/d/",
                "link=/dev/a;path=/dev/p",
                "usb:0403;path=/dev/p;link=/dev/a",
            ),
        ] {
            let request: Request = request.parse().unwrap();
            let applied = the_use(&format!("class:x;{used}")).applied_to(&request);
            assert_eq!(applied.to_string(), expected);
            assert_eq!(expected.parse(), Ok(applied));
        }
    }

    #[test]
    fn every_option_is_allowed_at_the_use() {
        let bare: Request = "usb:0403".parse().unwrap();
        for option in [
            "access=rw",
            "mode=0640",
            "uid=1",
            "gid=2",
            "path=/dev/p",
            "link=/dev/l",
            "only=driver:d",
            "required",
            "exclusive",
            "ready=udev",
            "on-removal=stop",
            "on-removal=stop;grace=3s",
        ] {
            let used = the_use(&format!("class:x;{option}"));
            assert_eq!(used.applied_to(&bare).to_string(), format!("usb:0403;{option}"));
        }
        let known = parse_request_list("class:x;nope").unwrap_err().to_string();
        assert!(known.ends_with(
            "known are access, mode, uid, gid, path, link, only, or, required, exclusive, ready, on-removal, grace"
        ));
    }

    proptest! {
        #[test]
        fn a_name_is_accepted_unchanged_or_refused(name in "[a-zA-Z0-9._:&/ -]{0,70}") {
            if let Ok(class) = ClassName::new(&name) {
                prop_assert_eq!(class.as_str(), &name);
                prop_assert_eq!(the_use(&format!("class:{name}")).name, class);
            }
        }
    }
}
