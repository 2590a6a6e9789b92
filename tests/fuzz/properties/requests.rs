//! Requests, in all grammars: ours with options and classes, and container-hotplug's.

use std::path::PathBuf;

use oci_hotplug::model::device::inventory::Inventory;
use oci_hotplug::model::request::annotations::read_list;
use oci_hotplug::model::request::class::Classes;
use oci_hotplug::model::request::entry::Origin;
use oci_hotplug::model::request::facts_needed::FactsNeeded;
use oci_hotplug::model::request::selector::Match;
use oci_hotplug::model::request::{
    ListItem, MAX_GRACE, MAX_REQUESTS, MAX_TEXT, Request, parse_lowrisc_devices, parse_request_list,
    parse_requests,
};

use super::{devices, is_fit_for_a_log, is_no_larger_than};

/// A request that can be read is the same when it is written and read again, is judged without an
/// error, and takes bounded memory. For all others the error is short.
pub fn hold(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<Request>() {
        Ok(request) => is_sound(&request, text.len()),
        Err(error) => is_fit_for_a_log(&error),
    }
    match parse_lowrisc_devices(text) {
        Ok(requests) => are_sound(&requests, text),
        Err(error) => is_fit_for_a_log(&error),
    }
    match (parse_requests(text), parse_request_list(text)) {
        (Ok(requests), items) => {
            are_sound(&requests, text);
            let same: Vec<ListItem> = requests.into_iter().map(ListItem::Request).collect();
            assert_eq!(items, Ok(same), "the two parsers differ");
        }
        (Err(error), Ok(items)) => {
            is_fit_for_a_log(&error);
            assert!(
                items.iter().any(|item| matches!(item, ListItem::Class(_))),
                "{error}: yet {items:?}"
            );
        }
        (Err(one), Err(other)) => [one, other].iter().for_each(is_fit_for_a_log),
    }
    let no_classes = Classes::none("/etc/oci-hotplug/config.toml".as_ref());
    if let Err(error) = read_list(Origin::Annotation, text, &no_classes) {
        is_fit_for_a_log(&error);
    }
}

fn are_sound(requests: &[Request], text: &str) {
    assert!(text.len() <= MAX_TEXT && requests.len() <= MAX_REQUESTS && !requests.is_empty());
    requests.iter().for_each(|request| is_sound(request, text.len()));
    let list = requests
        .iter()
        .map(Request::to_string)
        .collect::<Vec<_>>()
        .join(",");
    if list.len() <= MAX_TEXT {
        assert_eq!(parse_requests(&list).as_deref(), Ok(requests), "{list:?}");
    }
    let block: String = requests.iter().map(|request| format!("{request}\n")).collect();
    if block.len() <= MAX_TEXT {
        assert_eq!(parse_requests(&block).as_deref(), Ok(requests), "{block:?}");
    }
}

fn is_sound(request: &Request, length: usize) {
    let written = request.to_string();
    is_no_larger_than(written.len(), length);
    if written.len() <= MAX_TEXT {
        assert_eq!(written.parse::<Request>().as_ref(), Ok(request), "{written:?}");
    }
    let options = &request.options;
    let path = options.path.as_ref();
    let path = path.and_then(|path| path.node().or(path.directory()));
    for path in path.into_iter().chain(options.links.iter().map(PathBuf::as_path)) {
        devices::is_plain(path);
    }
    assert!(path.is_none_or(|path| path.starts_with("/dev")));
    assert!(options.mode.is_none_or(|mode| (1..=0o777).contains(&mode)));
    assert!(!options.access.is_none());
    FactsNeeded::of([request], &[]);
    let inventory = Inventory::new(devices::samples());
    for device in inventory.iter() {
        for selector in request.selectors() {
            let named = selector.names(device, || inventory.chain(device));
            let matches = selector.matches(&inventory.chain(device));
            assert!(named != Match::Yes || matches == Match::Yes, "{matches:?}");
            let reason = selector.why_not(&inventory.chain(device));
            assert_eq!(reason.is_none(), matches == Match::Yes);
        }
        request.gives(&device.syspath, device, &inventory);
        request.awaits_udev(device);
    }
    assert!(options.grace <= MAX_GRACE);
    for selector in request.selectors() {
        selector.why_nothing(&inventory);
    }
}
