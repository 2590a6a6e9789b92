//! What the requests of a container may cost the host, which evaluates their selectors for every
//! device.
//!
//! The unit is one byte of a compiled expression: time and memory both grow with it. Must not know
//! where a request was written.

use super::{ListItem, Options, Request};
use crate::model::request::selector::Selector;

/// The highest cost of the requests in one list, trusted or not.
pub(super) const MAX_LIST: usize = 1024 * 1024;

/// The cost of a selector without a pattern.
const TERM: usize = 64;

/// The cost of a pattern besides its size: its verdicts are cached.
const PATTERN: usize = 128;

pub(super) fn of_list_item(item: &ListItem) -> usize {
    match item {
        ListItem::Request(request) => of_request(request),
        ListItem::Class(class) => of_options(&class.options),
    }
}

pub(super) fn of_request(request: &Request) -> usize {
    let terms = request.selectors().flat_map(|selector| selector.terms());
    let terms = terms.map(|term| &term.selector);
    terms.chain(&request.options.only).map(of_selector).sum()
}

pub(super) fn of_options(options: &Options) -> usize {
    let alternatives = options.or.iter().flat_map(|selector| selector.terms());
    let alternatives = alternatives.map(|term| &term.selector);
    alternatives.chain(&options.only).map(of_selector).sum()
}

pub(super) fn of_selector(selector: &Selector) -> usize {
    TERM + match selector {
        Selector::Regex(expression) => PATTERN + expression.size(),
        Selector::Glob(pattern) | Selector::Property { pattern, .. } | Selector::Attr { pattern, .. } => {
            PATTERN + pattern.size()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::parse_request_list;

    #[test]
    fn every_pattern_counts_by_its_size_wherever_it_is_used() {
        let cost = |text: &str| of_request(&text.parse().unwrap());
        let plain = cost("usb:0403");
        for pattern in ["glob:/dev/tty*", "property:A=tty*", "attr:serial=tty*"] {
            let longer = format!("{pattern}{}", "?".repeat(10));
            assert_eq!(cost(&longer) - cost(pattern), 80, "{pattern}");
            assert!(cost(pattern) > plain + PATTERN);
            assert_eq!(cost(&format!("usb:0403;only={pattern}")), plain + cost(pattern));
            assert_eq!(cost(&format!("usb:0403;or={pattern}")), plain + cost(pattern));
        }
        // The use of a class costs what its options do.
        let items = parse_request_list("class:lab;only=glob:tty*,usb:0403").unwrap();
        let costs: Vec<usize> = items.iter().map(of_list_item).collect();
        assert_eq!(costs, [cost("glob:tty*"), plain]);
    }
}
