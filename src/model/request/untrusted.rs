//! What untrusted requests may cost the host.
//!
//! Must not know where a request was written.

use super::error::{RequestError, RequestFault};
use super::{Request, cost};
use crate::model::quoting::shown;
use crate::model::request::selector::{Selector, SelectorError};

/// The highest total cost of the untrusted requests of a container.
///
/// With this limit, matching 1000 names takes at most a tenth of a second, and is done only once.
const MAX_UNTRUSTED: usize = 64 * 1024;

/// The longest pattern in an untrusted request, in characters.
const MAX_UNTRUSTED_PATTERN: usize = 256;

/// How many characters of a request a message shows.
const SHOWN_REQUEST: usize = 72;

/// Checks requests that may be untrusted. For requests from a class (`true`), only the options
/// count.
///
/// # Errors
/// If a pattern is too long, or all of them together cost too much.
pub fn check_untrusted<'a>(
    requests: impl IntoIterator<Item = (&'a Request, bool)>,
) -> Result<(), RequestError> {
    let mut sum = 0;
    for (request, is_class) in requests {
        let terms = request.selectors().flat_map(|selector| selector.terms());
        let selectors = terms.map(|term| &term.selector);
        for selector in selectors.filter(|_| !is_class).chain(&request.options.only) {
            check_length(request, selector)?;
            sum += cost::of_selector(selector);
        }
    }
    RequestError::check_cost(sum, MAX_UNTRUSTED)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::cost::MAX_LIST;
    use crate::model::request::{OptionError, parse_requests};

    fn check(text: &str) -> Result<(), RequestError> {
        let requests = parse_requests(text)?;
        check_untrusted(requests.iter().map(|request| (request, false)))
    }

    fn many(request: &str, count: usize) -> String {
        vec![request; count].join(",")
    }

    /// Case security 3.
    #[test]
    fn patterns_that_cost_too_much_time_or_memory_are_refused() {
        let groups = format!("regex:({}){{0\\,8}}#", "()".repeat(110));
        for (request, count) in [(r"regex:([^/]?){0\,900}#", 40), (groups.as_str(), 40)] {
            let error = check(&many(request, count)).unwrap_err();
            assert!(matches!(error, RequestError::TooCostly { .. }), "{error}");
            assert!(error.to_string().contains("write fewer or shorter"), "{error}");
        }
        // Parsing stops before the end of the list.
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
        // Parsing stops before the end of the request.
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
    fn globs_in_untrusted_requests_must_be_short() {
        let fault = |length: usize| check(&format!("glob:{}", "x".repeat(length)));
        assert_eq!(fault(MAX_UNTRUSTED_PATTERN), Ok(()));
        let error = fault(MAX_UNTRUSTED_PATTERN + 1).unwrap_err().to_string();
        assert!(error.contains("glob has 257 characters: at most 256"), "{error}");
    }

    #[test]
    fn typical_requests_are_far_below_the_limits() {
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
    fn for_the_use_of_a_class_only_its_options_count() {
        let costly: Request = r"regex:([^/]?){0\,900}#".parse().unwrap();
        assert_eq!(check_untrusted([(&costly, true)]), Ok(()));
        let narrowed: Request = r"usb:0403;only=regex:([^/]?){0\,900}#".parse().unwrap();
        assert!(check_untrusted([(&narrowed, true)]).is_err());
    }
}
