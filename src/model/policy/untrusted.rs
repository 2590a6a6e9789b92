//! The verdict on a device for an untrusted request, after the deny rules: classes-only, protected
//! lines, allow rules, the default.

use super::denial::Denial;
use super::fallback::Fallback;
use super::rule::Place;
use super::subject::Subject;
use super::{AllowedBy, ContainerTraits, Policy, Verdict, protected};
use crate::model::device::{Access, SysPath};
use crate::model::request::Request;
use crate::model::request::selector::Match;

/// What the allow rules say about one device.
struct AllowedByRules<'p> {
    /// The access that all matching rules together allow.
    access: Access,
    /// The first rule that matches.
    first: Option<&'p Place>,
    /// The device with the facts on which more rules depend, if udevd will deliver them soon.
    unknown: Option<SysPath>,
}

impl Policy {
    /// The verdict after the deny rules, none of which matches for certain.
    pub(super) fn judge_untrusted(
        &self,
        request: &Request,
        subject: &Subject<'_>,
        of: &ContainerTraits,
    ) -> Verdict<'_> {
        if self.classes_only {
            return Verdict::Denied(self.denied_by_classes_only(request));
        }
        let protection = protected::find(subject);
        if let Some((line, Match::Yes)) = &protection {
            if line.always {
                return Verdict::Denied(self.denied_by_line_of(line, request, subject));
            }
        }
        let wanted = request.options.access;
        let by_rules = self.allowed_by_rules(request, subject, of);
        let by_fallback = match self.fallback {
            Fallback::Anything => true,
            Fallback::Removable => subject.is_removable(),
            Fallback::Nothing => false,
        };
        match (by_rules.first, protection, by_rules.unknown) {
            // Lines that no rule lifts depend on the kernel's facts only, so they are never
            // unknown.
            (Some(place), _, _) if by_rules.access.covers(wanted) => Verdict::Allowed(AllowedBy::Rule(place)),
            (_, None, _) if by_fallback => Verdict::Allowed(AllowedBy::Fallback(self.fallback)),
            (_, Some((_, Match::Unknown(whose))), _) if by_fallback => Verdict::Undecided(whose),
            (_, _, Some(whose)) => Verdict::Undecided(whose),
            (_, Some((line, Match::Yes)), _) => {
                Verdict::Denied(self.denied_by_line_of(line, request, subject))
            }
            (Some(place), _, _) => Verdict::Denied(Denial::for_access(place, wanted, by_rules.access)),
            (None, _, _) => {
                let hint = self.hints().allow_device(request, subject);
                let denial = Denial::by_fallback(self.fallback, hint);
                Verdict::Denied(match subject.in_sysfs() {
                    Some(_) => denial,
                    None => denial.of_unknown_number(),
                })
            }
        }
    }

    fn allowed_by_rules(
        &self,
        request: &Request,
        subject: &Subject<'_>,
        of: &ContainerTraits,
    ) -> AllowedByRules<'_> {
        let remote = request.selector.remote();
        let mut allowed = AllowedByRules {
            access: Access::NONE,
            first: None,
            unknown: None,
        };
        for rule in self.allow.iter().filter(|rule| rule.applies(of)) {
            let found = match &remote {
                Some(remote) if rule.covers(remote) => Match::Yes,
                _ => rule.finds_in_sysfs(subject),
            };
            match found {
                Match::Yes => {
                    allowed.access |= rule.access;
                    allowed.first = allowed.first.or(Some(&rule.place));
                }
                // Facts that udevd will not deliver soon count as not allowed.
                Match::Unknown(_) => {
                    allowed.unknown = allowed.unknown.or_else(|| subject.next_awaited());
                }
                Match::No => {}
            }
        }
        allowed
    }
}
