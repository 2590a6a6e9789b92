//! Why a selected device is not attached: one type, and one text for log, status, `match` and
//! `explain`.

use std::fmt;
use std::path::PathBuf;

use crate::model::device::SysPath;
use crate::model::policy::Denial;
use crate::model::request::Request;
use crate::model::request::id::RequestId;

/// A device that a request selects and that is not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAttached {
    pub request: RequestId,
    pub device: SysPath,
    /// The path that its node or link would have.
    pub path: PathBuf,
    pub reason: Reason,
}

/// Why a selected device is not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    Denied(Denial),
    /// A remote device is reserved for another container; the text says for which.
    Reserved(String),
    /// Another container holds the lease; the text says how.
    Waiting(String),
    /// Another device has the path.
    Conflict(SysPath),
}

impl fmt::Display for NotAttached {
    /// Why, in words that follow the path or the request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Denied(denial) => denial.fmt(f),
            Reason::Reserved(reason) => f.write_str(reason),
            Reason::Waiting(reason) => {
                write!(f, "{reason}: waiting until the other container releases it")
            }
            Reason::Conflict(holder) => {
                write!(
                    f,
                    "{holder} already has this path, so {} does not get it (select one device per request, or give each another path= or link=)",
                    self.device
                )
            }
        }
    }
}

impl NotAttached {
    /// Why, with the text of the request if changing the request helps; `request` is the one with
    /// this id.
    pub fn describe(&self, request: &Request) -> String {
        match &self.reason {
            Reason::Denied(_) | Reason::Reserved(_) => {
                format!("device request {:?}: {self}", request.to_string())
            }
            Reason::Waiting(_) | Reason::Conflict(_) => self.to_string(),
        }
    }

    /// The same with `holders`, the containers that hold the lease, after the reason; unchanged
    /// unless waiting.
    pub fn with_holders(&self, holders: &str) -> Self {
        let mut named = self.clone();
        if let Reason::Waiting(reason) = &mut named.reason {
            reason.push_str(holders);
        }
        named
    }

    pub fn is_denied(&self) -> bool {
        matches!(self.reason, Reason::Denied(_))
    }

    pub fn is_waiting(&self) -> bool {
        matches!(self.reason, Reason::Waiting(_))
    }
}

/// Sorts by the order of kinds in which they are shown. (A stable sort needs more code in the
/// watcher.)
pub(super) fn by_kind(all: Vec<NotAttached>) -> Vec<NotAttached> {
    let mut kinds = [const { Vec::new() }; 4];
    for not_attached in all {
        let kind = match not_attached.reason {
            Reason::Denied(_) => 0,
            Reason::Reserved(_) => 1,
            Reason::Waiting(_) => 2,
            Reason::Conflict(_) => 3,
        };
        kinds[kind].push(not_attached);
    }
    kinds.into_iter().flatten().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn denial() -> Denial {
        Denial {
            rule: "a rule".into(),
            reason: "a reason".into(),
            hint: "a hint".into(),
            line: None,
        }
    }

    /// A device that the first request does not attach.
    pub(in crate::model::plan) fn not_attached(reason: Reason) -> NotAttached {
        NotAttached {
            request: RequestId::FIRST,
            device: SysPath::new("/sys/devices/b"),
            path: "/dev/b".into(),
            reason,
        }
    }

    #[test]
    fn the_reason_names_the_request_if_changing_it_helps_and_the_holders_of_the_lease() {
        let request: Request = "subsystem:tty".parse().unwrap();
        let describe = |reason| {
            not_attached(reason)
                .with_holders(" (container c2)")
                .describe(&request)
        };
        for (reason, expected) in [
            (
                Reason::Denied(denial()),
                "device request \"subsystem:tty\": denied by the policy (a rule): a reason (a hint)",
            ),
            (
                Reason::Reserved("it is reserved".into()),
                "device request \"subsystem:tty\": it is reserved",
            ),
            (
                Reason::Waiting("another container has it".into()),
                "another container has it (container c2): waiting until the other container releases it",
            ),
            (
                Reason::Conflict(SysPath::new("/sys/devices/a")),
                "/sys/devices/a already has this path, so /sys/devices/b does not get it (select one device per request, or give each another path= or link=)",
            ),
        ] {
            assert_eq!(describe(reason), expected);
        }
    }

    #[test]
    fn only_a_denial_is_a_denial_and_only_a_lease_is_waited_for() {
        for (reason, expected) in [
            (Reason::Denied(denial()), (true, false)),
            (Reason::Waiting("it is leased".into()), (false, true)),
            (Reason::Reserved("it is reserved".into()), (false, false)),
            (Reason::Conflict(SysPath::new("/sys/devices/a")), (false, false)),
        ] {
            let not_attached = not_attached(reason);
            let is = (not_attached.is_denied(), not_attached.is_waiting());
            assert_eq!(is, expected, "{not_attached:?}");
        }
    }

    #[test]
    fn reasons_are_grouped_by_kind_and_keep_their_order() {
        let conflict = |holder: &str| Reason::Conflict(SysPath::new(holder));
        let waiting = |reason: &str| Reason::Waiting(reason.into());
        let reserved = Reason::Reserved("it is reserved".into());
        let reasons = [
            conflict("/sys/devices/a"),
            waiting("b"),
            reserved.clone(),
            conflict("/sys/devices/c"),
            waiting("d"),
        ];
        let all = reasons.map(not_attached);
        let sorted: Vec<Reason> = by_kind(all.to_vec())
            .into_iter()
            .map(|not_attached| not_attached.reason)
            .collect();
        let expected = [
            reserved,
            waiting("b"),
            waiting("d"),
            conflict("/sys/devices/a"),
            conflict("/sys/devices/c"),
        ];
        assert_eq!(sorted, expected);
    }
}
