//! What the requests of a container may cost the host, which evaluates their selectors for every
//! device.
//!
//! Costs are counted in bytes of a compiled expression: time and memory grow alike with them. Must
//! not know where a request was written.

use super::{ListItem, Options, Request};
use crate::model::request::selector::Selector;

/// What the requests of one list may cost, whoever wrote it.
pub(super) const MAX_LIST: usize = 1024 * 1024;

/// What a selector costs that is no pattern.
const TERM: usize = 64;

/// What a pattern costs besides its size: its verdicts are kept.
const PATTERN: usize = 128;

/// What one element of a list costs.
pub(super) fn of_list_item(item: &ListItem) -> usize {
    match item {
        ListItem::Request(request) => of_request(request),
        ListItem::Class(class) => of_options(&class.options),
    }
}

/// What one request costs.
pub(super) fn of_request(request: &Request) -> usize {
    let terms = request.selectors().flat_map(|selector| selector.terms());
    let terms = terms.map(|term| &term.selector);
    terms.chain(&request.options.only).map(of_selector).sum()
}

/// What the selectors of these options cost.
pub(super) fn of_options(options: &Options) -> usize {
    let alternatives = options.or.iter().flat_map(|selector| selector.terms());
    let alternatives = alternatives.map(|term| &term.selector);
    alternatives.chain(&options.only).map(of_selector).sum()
}

/// What a selector costs.
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
    fn every_pattern_counts_by_its_size_wherever_it_stands() {
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
