//! Lists of requests: oci-hotplug's and those of container-hotplug's annotations.
//!
//! Must not know which annotation contains a list; the caller adds its name to the error.

use std::str::FromStr;

use super::error::{MAX_REQUESTS, MAX_TEXT, RequestError, RequestFault};
use super::{ClassFault, ClassUse, ListItem, OnRemoval, OptionError, Options, Request, cost};
use crate::model::quoting::{list_elements, plain_list_elements, shown, split_unescaped, trim_unescaped};
use crate::model::remote::address::AddressError;
use crate::model::request::selector::{DeviceSelector, Selector, SelectorError, lowrisc_selector};

/// How many characters of a request a message shows.
const SHOWN_REQUEST: usize = 72;

/// The mode of container-hotplug's nodes.
const LOWRISC_MODE: u32 = 0o644;

/// Parses `item *( ( "," / line break ) item )`, where an item is a request or the use of a class.
/// White space around items and blank lines are ignored; `\` escapes the next character.
///
/// # Errors
/// [`RequestError`]: the list is empty or too long, or the first invalid request.
pub fn parse_request_list(text: &str) -> Result<Vec<ListItem>, RequestError> {
    parse_list(text, parse_list_item, cost::of_list_item)
}

/// Parses `request *( ( "," / line break ) request )`, like [`parse_request_list`] but without
/// classes.
///
/// # Errors
/// As for [`parse_request_list`], and if a class is used.
pub fn parse_requests(text: &str) -> Result<Vec<Request>, RequestError> {
    let parse = |text: &str| match parse_list_item(text)? {
        ListItem::Request(request) => Ok(request),
        ListItem::Class(_) => Err(ClassFault::InClass.into()),
    };
    parse_list(text, parse, cost::of_request)
}

fn parse_list<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, RequestFault>,
    cost: impl Fn(&T) -> usize,
) -> Result<Vec<T>, RequestError> {
    check_length(text)?;
    if trim_unescaped(text).is_empty() {
        return Err(RequestError::Empty);
    }
    parse_each(&list_elements(text), parse, cost)
}

/// Parses the value of `org.lowrisc.hotplug.devices`: `usb:`, `syspath:` and `devnode:`, split at
/// each `,` and line break, without trimming and escapes. The nodes get the same mode as with
/// container-hotplug, 0644.
///
/// # Errors
/// As for [`parse_requests`].
pub fn parse_lowrisc_devices(text: &str) -> Result<Vec<Request>, RequestError> {
    check_length(text)?;
    if text.is_empty() {
        return Err(RequestError::Empty);
    }
    let parse = |text: &str| {
        let options = Options {
            mode: Some(LOWRISC_MODE),
            ..Options::default()
        };
        Ok(Request {
            selector: lowrisc_selector(text)?,
            options,
        })
    };
    parse_each(&plain_list_elements(text), parse, cost::of_request)
}

impl FromStr for Request {
    type Err = RequestError;

    /// Parses one request; white space around it is ignored.
    fn from_str(text: &str) -> Result<Self, RequestError> {
        check_length(text)?;
        let text = trim_unescaped(text);
        if text.is_empty() {
            return Err(RequestError::Empty);
        }
        let count = list_elements(text).len();
        if count > 1 {
            return Err(malformed(text, RequestFault::List { count }));
        }
        parse_request(text).map_err(|fault| malformed(text, fault))
    }
}

fn check_length(text: &str) -> Result<(), RequestError> {
    if text.len() > MAX_TEXT {
        return Err(RequestError::TooLong { length: text.len() });
    }
    Ok(())
}

fn parse_each<T>(
    texts: &[&str],
    parse: impl Fn(&str) -> Result<T, RequestFault>,
    cost: impl Fn(&T) -> usize,
) -> Result<Vec<T>, RequestError> {
    let count = texts.len();
    if count > MAX_REQUESTS {
        return Err(RequestError::TooMany { count });
    }
    let mut sum = 0;
    let numbered = texts.iter().zip(1..);
    numbered
        .map(|(text, position)| {
            if text.is_empty() {
                return Err(RequestError::EmptyElement { position, count });
            }
            let one = parse(text).map_err(|fault| malformed(text, fault))?;
            // Check the cost before parsing the next one: compiled expressions take more memory
            // than their text.
            sum += cost(&one);
            RequestError::check_cost(sum, cost::MAX_LIST)?;
            Ok(one)
        })
        .collect()
}

fn malformed(text: &str, fault: RequestFault) -> RequestError {
    RequestError::Malformed {
        text: shown(text, SHOWN_REQUEST),
        fault,
    }
}

/// Parses one request or use of a class, trimmed and without separators of a list.
fn parse_list_item(text: &str) -> Result<ListItem, RequestFault> {
    let mut parts = split_unescaped(text, ';').into_iter().map(trim_unescaped);
    let Some(name) = ClassUse::name_in(parts.next().unwrap_or_default()) else {
        return Ok(ListItem::Request(parse_request(text)?));
    };
    let name = name?;
    let (options, given) = Options::parse_given(parts)?;
    if given.contains(&"or") {
        return Err(ClassFault::Or.into());
    }
    Ok(ListItem::Class(ClassUse { name, options, given }))
}

/// Parses one request, trimmed and without separators of a list.
fn parse_request(text: &str) -> Result<Request, RequestFault> {
    let mut parts = split_unescaped(text, ';').into_iter().map(trim_unescaped);
    let selector: DeviceSelector = parts.next().unwrap_or_default().parse()?;
    // A rule may select all devices of a remote host, a container may not.
    if let Some(Selector::Usbip { device: None, .. }) = selector.terms().first().map(|term| &term.selector) {
        return Err(SelectorError::Remote(AddressError::NoDevice).into());
    }
    let options = Options::parse(parts)?;
    let is_remote = |selector: &Selector| matches!(selector, Selector::Usbip { .. });
    let has_remote =
        |selector: &DeviceSelector| selector.terms().iter().any(|term| is_remote(&term.selector));
    if options.only.iter().any(is_remote)
        || options.or.iter().any(has_remote)
        || (has_remote(&selector) && !options.or.is_empty())
    {
        return Err(SelectorError::Usbip.into());
    }
    if !options.grace.is_zero() && options.on_removal == OnRemoval::Keep {
        return Err(OptionError::GraceAlone.into());
    }
    Ok(Request { selector, options })
}
