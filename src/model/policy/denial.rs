//! Why something is denied, and what would allow it.
//!
//! Must not know how a verdict is reached.

use std::fmt;
use std::path::Path;

use super::fallback::Fallback;
use super::protected::{Because, Line, USB_HUB};
use super::rule::{Place, Rule};
use crate::model::device::inventory::Inventory;
use crate::model::device::{Access, Device, SysPath, UdevState};
use crate::model::remote::address::Server;

/// Why something is denied, and what would allow it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// The rule that denies it.
    pub rule: String,
    pub reason: String,
    pub hint: String,
    /// The name of the protected line, if one denies it.
    pub line: Option<&'static str>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "denied by the policy ({}): {} ({})",
            self.rule, self.reason, self.hint
        )
    }
}

impl Denial {
    /// Whether to refuse the start of a container if this denial is all that its request leads to.
    /// The denial of a hub's node is not a reason to refuse: the request is for the devices on the
    /// hub.
    pub fn refuses_start(&self) -> bool {
        self.line != Some(USB_HUB)
    }

    /// By a deny rule that matches the device.
    pub(super) fn by_rule(rule: &Rule, wanted: Access) -> Self {
        let left = wanted.without(rule.access);
        Self {
            rule: rule.place.to_string(),
            reason: rule.reason.clone().unwrap_or_else(|| "the rule denies it".into()),
            hint: if left.is_none() {
                "to allow it, change the rule".into()
            } else {
                format!("request ;access={left}, or change the rule")
            },
            line: None,
        }
    }

    /// The same, because the device exposes the data of one that the rule matches.
    pub(super) fn of_exposed(mut self, exposed: &Device) -> Self {
        let node = exposed
            .node
            .as_ref()
            .map_or(exposed.syspath.as_path(), |node| &node.path);
        let node = node.display();
        self.reason += &format!(" (the rule matches {node}, whose data this device exposes)");
        self
    }

    /// By a deny rule that depends on facts that udevd will not deliver soon.
    pub(super) fn by_undecided_rule(rule: &Rule, whose: &SysPath, inventory: &Inventory) -> Self {
        let has_udevd = inventory
            .get(whose)
            .is_none_or(|device| device.udev_state != UdevState::NoUdevd);
        let (reason, hint) = match has_udevd {
            true => (
                format!("udevd has not processed {whose}, and this deny rule depends on it"),
                "check `systemctl status systemd-udevd`",
            ),
            false => (
                "no udevd runs on this host, and this deny rule depends on facts that only udevd knows"
                    .to_owned(),
                "start systemd-udevd",
            ),
        };
        Self {
            rule: rule.place.to_string(),
            reason,
            hint: format!("{hint}, or write the rule without property:, tag: and links"),
            line: None,
        }
    }

    /// Because a file with rules is invalid.
    pub(super) fn by_unknown_rules(fault: &str) -> Self {
        Self {
            rule: "unknown rules".into(),
            reason: fault.to_owned(),
            hint: "fix or remove that file (`oci-hotplug check` tests it)".into(),
            line: None,
        }
    }

    /// Because allow rules allow less access than the request needs.
    pub(super) fn for_access(place: &Place, wanted: Access, allowed: Access) -> Self {
        Self {
            rule: place.to_string(),
            reason: format!("it allows access={allowed}, and the request needs access={wanted}"),
            hint: format!("request ;access={allowed}"),
            line: None,
        }
    }

    /// Because untrusted requests may only use classes.
    pub(super) fn by_classes_only(written_in: &Path, hint: String) -> Self {
        Self {
            rule: format!("classes-only, in {}", written_in.display()),
            reason: "an untrusted request must use a class".into(),
            hint,
            line: None,
        }
    }

    /// Because a line protects the device.
    pub(super) fn by_line(line: &'static Line, hint: String) -> Self {
        Self {
            rule: format!("protected: {}", line.name),
            reason: format!("{} are protected, because {}", line.devices, line.reason),
            hint,
            line: Some(line.name),
        }
    }

    /// The same, with the reason why the line protects this device.
    pub(super) fn because(mut self, because: Because) -> Self {
        self.reason += &format!(" ({})", because.reason);
        if let Some(hint) = because.hint {
            self.hint = format!("{hint}, or, {}", self.hint);
        }
        self
    }

    /// By the default: no rule matches.
    pub(super) fn by_fallback(fallback: Fallback, hint: String) -> Self {
        Self {
            rule: format!("default = \"{}\"", fallback.as_str()),
            reason: match fallback {
                Fallback::Removable => "not a USB device, and no rule allows it".into(),
                _ => "no rule allows it".into(),
            },
            hint,
            line: None,
        }
    }

    /// The same for a number that sysfs does not have.
    pub(super) fn of_unknown_number(mut self) -> Self {
        self.reason = "sysfs has no device of this number, so that no rule can match it".into();
        self
    }

    /// Because no allow rule names the server of a remote device.
    pub(super) fn as_remote(server: &Server, hint: String) -> Self {
        Self {
            rule: "usbip".into(),
            reason: format!("a device of another host, {server}, and no rule allows it"),
            hint,
            line: None,
        }
    }
}
