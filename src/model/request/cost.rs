//! What the requests of a container may cost the host, which evaluates their selectors for every device.
//!
//! Costs are counted in bytes of a compiled expression: time and memory grow alike with them. Must not know where a
//! request was written.

use super::{Ask, Options, Request, RequestError, RequestFault};
use crate::model::quoting::shown;
use crate::model::request::selector::{Selector, SelectorError};

/// What the requests of one list may cost, whoever wrote it.
pub(super) const MAX_LIST: usize = 1024 * 1024;

/// What all requests of a container may cost together that whoever may start containers has written.
///
/// With it, one look at 1000 names takes a tenth of a second at most, and is taken once.
const MAX_UNTRUSTED: usize = 64 * 1024;

/// The longest pattern in such a request, in characters.
const MAX_UNTRUSTED_PATTERN: usize = 256;

/// What a selector costs that is no pattern.
const TERM: usize = 64;

/// What a pattern costs besides its size: its verdicts are kept.
const PATTERN: usize = 128;

/// How many characters of a request are echoed.
const SHOWN_REQUEST: usize = 72;

/// What one element of a list costs.
pub(super) fn of_ask(ask: &Ask) -> usize {
    match ask {
        Ask::Request(request) => of_request(request),
        Ask::Class(class) => of_options(&class.options),
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

/// Checks requests that anybody may have written. Of those that stand for a class (`true`) only the options count.
///
/// # Errors
/// When a pattern is too long, or all of them together cost too much.
pub fn check_untrusted<'a>(
    requests: impl IntoIterator<Item = (&'a Request, bool)>,
) -> Result<(), RequestError> {
    let mut sum = 0;
    for (request, is_class) in requests {
        let terms = request.selectors().flat_map(|selector| selector.terms());
        let selectors = terms.map(|term| &term.selector);
        for selector in selectors.filter(|_| !is_class).chain(&request.options.only) {
            check_length(request, selector)?;
            sum += of_selector(selector);
        }
    }
    within(sum, MAX_UNTRUSTED)
}

/// Whether a cost is within a limit.
///
/// # Errors
/// When it is not.
pub(super) fn within(cost: usize, limit: usize) -> Result<(), RequestError> {
    if cost > limit {
        return Err(RequestError::TooCostly { cost, limit });
    }
    Ok(())
}

fn check_length(request: &Request, selector: &Selector) -> Result<(), RequestError> {
    let (kind, length) = match selector {
        Selector::Regex(expression) => ("regex", expression.length()),
        Selector::Glob(pattern) | Selector::Property { pattern, .. } | Selector::Attr { pattern, .. } => {
            ("glob", pattern.length())
        }
        _ => return Ok(()),
    };
    if length <= MAX_UNTRUSTED_PATTERN {
        return Ok(());
    }
    Err(RequestError::Malformed {
        text: shown(&request.to_string(), SHOWN_REQUEST),
        fault: RequestFault::Selector(SelectorError::PatternTooLong {
            kind,
            length,
            limit: MAX_UNTRUSTED_PATTERN,
        }),
    })
}

fn of_selector(selector: &Selector) -> usize {
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
    use crate::model::request::{OptionError, parse_asks, parse_requests};

    fn check(text: &str) -> Result<(), RequestError> {
        let requests = parse_requests(text)?;
        check_untrusted(requests.iter().map(|request| (request, false)))
    }

    fn many(request: &str, count: usize) -> String {
        vec![request; count].join(",")
    }

    /// Case security 3.
    #[test]
    fn patterns_that_cost_the_host_its_time_or_memory_are_refused() {
        let groups = format!("regex:({}){{0\\,8}}#", "()".repeat(110));
        for (request, count) in [(r"regex:([^/]?){0\,900}#", 40), (groups.as_str(), 40)] {
            let error = check(&many(request, count)).unwrap_err();
            assert!(matches!(error, RequestError::TooCostly { .. }), "{error}");
            assert!(error.to_string().contains("write fewer or shorter"), "{error}");
        }
        // A list is not read to its end.
        assert!(matches!(
            check(&many(r"usb:0403;only=regex:([^/]?){0\,900}#", 256)),
            Err(RequestError::TooCostly { limit: MAX_LIST, .. })
        ));
        assert!(matches!(
            check(&many("subsystem:tty&!tag:a&!tag:b&!tag:c&!tag:d", 256)),
            Err(RequestError::TooCostly {
                limit: MAX_UNTRUSTED,
                ..
            })
        ));
        let alternatives = |count| format!("usb:0403{}", r";or=regex:([^/]?){0\,900}#".repeat(count));
        assert!(matches!(
            check(&many(&alternatives(2), 16)),
            Err(RequestError::TooCostly { .. })
        ));
        // Nor is a request.
        assert!(matches!(
            check(&alternatives(16)),
            Err(RequestError::Malformed {
                fault: RequestFault::Option(OptionError::TooCostly),
                ..
            })
        ));
        assert!(check(&alternatives(1)).is_err());
        let long = format!("regex:{}", "x".repeat(257));
        let error = check(&long).unwrap_err().to_string();
        assert!(error.contains("regex has 257 characters: at most 256"), "{error}");
        let long = format!("attr:serial={}", "*x".repeat(129));
        assert!(
            check(&long)
                .unwrap_err()
                .to_string()
                .contains("glob has 258 characters")
        );
    }

    #[test]
    fn a_cost_as_high_as_its_limit_is_within_it() {
        assert_eq!(within(7, 7), Ok(()));
        assert_eq!(within(8, 7), Err(RequestError::TooCostly { cost: 8, limit: 7 }));
    }

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
        let asks = parse_asks("class:lab;only=glob:tty*,usb:0403").unwrap();
        let costs: Vec<usize> = asks.iter().map(of_ask).collect();
        assert_eq!(costs, [cost("glob:tty*"), plain]);
    }

    #[test]
    fn globs_of_strangers_are_short() {
        let fault = |length: usize| check(&format!("glob:{}", "x".repeat(length)));
        assert_eq!(fault(MAX_UNTRUSTED_PATTERN), Ok(()));
        let error = fault(MAX_UNTRUSTED_PATTERN + 1).unwrap_err().to_string();
        assert!(error.contains("glob has 257 characters: at most 256"), "{error}");
    }

    #[test]
    fn what_people_write_is_far_below_the_limits() {
        for (request, count) in [
            ("regex:^ttyUSB[0-9]+$", 40),
            ("glob:/dev/serial/by-id/usb-FTDI_*", 64),
            ("usb:0403:6001:FT001&!driver:ftdi_sio;only=subsystem:tty", 256),
            ("subsystem:tty&property:ID_VENDOR=FTDI*;only=glob:ttyUSB*", 40),
            (
                r"regex:^(snd/(pcm|control)C[0-9]+|input/event[0-9]+|video[0-9]{1\,3})",
                20,
            ),
        ] {
            assert_eq!(check(&many(request, count)), Ok(()), "{count} times {request}");
        }
    }

    #[test]
    fn of_a_class_only_what_its_user_writes_counts() {
        let costly: Request = r"regex:([^/]?){0\,900}#".parse().unwrap();
        assert_eq!(check_untrusted([(&costly, true)]), Ok(()));
        let narrowed: Request = r"usb:0403;only=regex:([^/]?){0\,900}#".parse().unwrap();
        assert!(check_untrusted([(&narrowed, true)]).is_err());
    }
}
