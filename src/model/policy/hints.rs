//! How to allow a denied request: the commands that messages suggest.

use super::subject::Subject;
use crate::model::device::Access;
use crate::model::quoting::{shell_quoted, slug};
use crate::model::remote::address::Server;
use crate::model::request::Request;
use crate::model::request::selector::Selector;

/// The longest name that a message suggests for a class, in bytes.
const MAX_SUGGESTED_NAME: usize = 40;

/// Suggests commands with these options of `oci-hotplug`: words of a shell, each followed by a
/// space.
pub(super) struct Hints<'a> {
    pub tool_options: &'a str,
}

impl Hints<'_> {
    /// How to allow what this request selects.
    pub(super) fn allow(&self, request: &Request) -> String {
        // A rule cannot have `parent-of:`. It applies to devices below the one that it names, not
        // above.
        if request.selector.parents() > 0 || !request.options.or.is_empty() {
            return self.class(request);
        }
        self.allow_selector(&request.selector.to_string(), request)
    }

    /// How to allow a present device. Allow rules do not match the path of a static node, only the
    /// device that sysfs has under its number.
    pub(super) fn allow_device(&self, request: &Request, subject: &Subject<'_>) -> String {
        if subject.in_sysfs().is_none() {
            return self.class(request);
        }
        let is_by_number = subject.own().len() > 1;
        match subject.device().node.as_ref().filter(|_| is_by_number) {
            Some(node) => self.allow_selector(&Selector::DevNode(node.path.clone()).to_string(), request),
            None => self.allow(request),
        }
    }

    /// How to allow all devices of another host.
    pub(super) fn allow_server(&self, server: &Server) -> String {
        format!(
            "to allow all devices of that host, run `{}`",
            self.allow_command(&format!("usbip:{server}"), Access::ALL)
        )
    }

    /// How to allow the request by a class.
    pub(super) fn class(&self, request: &Request) -> String {
        let name = class_name(request);
        format!(
            "to allow it anyway, run `oci-hotplug {}class add {name} {}` and request class:{name}",
            self.tool_options,
            shell_quoted(&request.to_string())
        )
    }

    fn allow_selector(&self, selector: &str, request: &Request) -> String {
        let command = self.allow_command(selector, request.options.access);
        format!("to allow it, run `{command}`")
    }

    /// The command that adds a rule for this selector.
    fn allow_command(&self, selector: &str, access: Access) -> String {
        let access = match access {
            Access::ALL => String::new(),
            access => format!(" --access {access}"),
        };
        format!(
            "oci-hotplug {}allow {}{access}",
            self.tool_options,
            shell_quoted(selector)
        )
    }
}

/// A name for a class with this request, made from the letters of the selector.
fn class_name(request: &Request) -> String {
    let name = slug(&request.selector.to_string(), MAX_SUGGESTED_NAME);
    if name.is_empty() {
        "devices".to_owned()
    } else {
        name
    }
}
