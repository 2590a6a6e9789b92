//! Properties that hold for all selectors and texts.

use std::path::PathBuf;

use crate::model::any_text::any_text;

use proptest::prelude::*;

use super::*;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded;
use crate::model::device::{Device, UdevState};

/// A word with characters that have a meaning in the grammar, and some that do not.
fn word() -> impl Strategy<Value = String> {
    r#"[a-zA-Z0-9 _.:=,;&!\\é"-]{0,12}[a-zA-Z0-9 ,;&!\\]"#
}

fn path_below(root: &'static str) -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(word(), 1..4).prop_filter_map("dots", move |parts| {
        let path = format!("{root}/{}", parts.join("/"));
        path::node_path(&path.replacen(root, "/dev", 1)).ok()?;
        Some(PathBuf::from(path))
    })
}

fn glob() -> impl Strategy<Value = Glob> {
    r"[a-z,;&!\\= /]{0,6}(\*|\?|\[a-z,\])?[a-z,; ]{0,3}".prop_map(|text| Glob::new(&text).unwrap())
}

fn path_glob() -> impl Strategy<Value = Glob> {
    r"(/dev/)?[a-z,;&!\\= ]{1,6}(\*|\?|\[a-z,\])?[a-z,; ]{0,3}".prop_map(|text| Glob::new(&text).unwrap())
}

fn usb() -> impl Strategy<Value = Selector> {
    let serial = word().prop_filter("white space alone", |serial| !serial.trim().is_empty());
    let rest = prop::option::of(("[0-9a-f]{4}", prop::option::of(serial)));
    ("[0-9a-f]{4}", rest).prop_map(|(vendor, rest)| {
        let (product, serial) = rest.map_or((None, None), |(product, serial)| (Some(product), serial));
        Selector::Usb {
            vendor,
            product,
            serial,
        }
    })
}

/// Any selector of the grammar.
pub(in crate::model) fn any_selector() -> impl Strategy<Value = Selector> {
    let key = || word().prop_filter("no =", |key| !key.contains('='));
    let attribute = "[a-z_]{1,8}(/[a-z ,]{1,5})?";
    let regex = r"(\\[dw]|[a-z,;& ]|\\\\|[a-z]\{1,2\}){1,6}";
    prop_oneof![
        usb(),
        path_below("/dev").prop_map(Selector::DevNode),
        path_below("/sys").prop_map(Selector::SysPath),
        path_below("/dev").prop_map(Selector::Node),
        path_glob().prop_map(Selector::Glob),
        regex.prop_map(|text| Selector::Regex(PathRegex::new(&text).unwrap())),
        word().prop_map(Selector::Subsystem),
        word().prop_map(Selector::Driver),
        word().prop_map(Selector::Tag),
        (key(), glob()).prop_map(|(key, pattern)| Selector::Property { key, pattern }),
        (attribute, glob()).prop_map(|(name, pattern)| Selector::Attr { name, pattern }),
        r"([0-9]{1,2}-[0-9]{1,2}(\.[0-9]{1,2}){0,3}|usb[0-9]{1,2})".prop_map(Selector::Port),
        "[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]".prop_map(Selector::Pci),
    ]
}

/// Any device selector of the grammar.
pub(in crate::model) fn any_device_selector() -> impl Strategy<Value = DeviceSelector> {
    let more = prop::collection::vec((any::<bool>(), any_selector()), 0..4);
    (0..=MAX_PARENTS, any_selector(), more).prop_map(|(parents, first, more)| {
        let terms = std::iter::once((false, first)).chain(more);
        let terms = terms
            .map(|(negated, selector)| Term { negated, selector })
            .collect();
        DeviceSelector { parents, terms }
    })
}

proptest! {
    #[test]
    fn a_selector_survives_formatting_and_parsing(selector in any_device_selector()) {
        let text = selector.to_string();
        let again = text.parse::<DeviceSelector>();
        prop_assert_eq!(again.as_ref(), Ok(&selector), "{}", text);
        prop_assert_eq!(again.unwrap().to_string(), text);
    }

    #[test]
    fn no_text_causes_a_panic_in_the_parser(text in any_text()) {
        let _ = text.parse::<DeviceSelector>();
    }

    #[test]
    fn no_text_similar_to_a_selector_causes_a_panic_in_the_parser(
        text in r"(parent-of:|!|&|usb:|glob:|regex:|attr:|pci:|port:|devnode:/dev/|[a-f0-9*\[\]():.=\\é/]){0,24}"
    ) {
        if let Ok(selector) = text.parse::<DeviceSelector>() {
            prop_assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
            let inventory = Inventory::new(recorded::composite_device());
            for device in inventory.iter() {
                let _ = selector.names(device, || inventory.chain(device));
            }
        }
    }

    #[test]
    fn a_node_is_given_exactly_if_all_terms_match_it_or_its_parents(
        texts in prop::collection::vec((any::<bool>(), prop::sample::select(&TERMS[..])), 1..4),
        unheard in prop::collection::btree_set(0..20usize, 0..4),
    ) {
        let mut text = texts[0].1.to_owned();
        for (negated, term) in &texts[1..] {
            text += if *negated { "&!" } else { "&" };
            text += term;
        }
        let mut devices = recorded::hub_with_two_adapters();
        devices.extend(recorded::composite_device().split_off(5));
        for index in unheard {
            if let Some(device) = devices.get_mut(index) {
                *device = recorded::before_udev(device.clone());
            }
        }
        let inventory = Inventory::new(devices.clone());
        let selector = selector(&text);
        for device in inventory.iter() {
            let own = inventory.chain(device);
            let is_root = |device: &Device| selector.names(device, || inventory.chain(inventory.get(&device.syspath).unwrap())) == Match::Yes;
            let below_a_root = own.all().iter().any(|device| is_root(device));
            let left = selector.leaves(|| inventory.chain(device));
            let given = below_a_root && left == Match::Yes;
            prop_assert_eq!(given, selector.matches(&own) == Match::Yes, "{} {}", text, device.syspath);
            // A result is unknown only because of a device of the chain that udevd has not
            // processed.
            if let Match::Unknown(whose) = selector.matches(&own) {
                let whose = own.all().iter().find(|device| device.syspath == whose);
                prop_assert!(whose.is_some_and(|device| device.udev_state == UdevState::Pending));
            }
            prop_assert_eq!(selector.why_not(&own).is_none(), selector.matches(&own) == Match::Yes);
        }
    }
}

const TERMS: [&str; 14] = [
    "usb:0403",
    "usb:0403:6001:B",
    "usb:2341",
    "subsystem:tty",
    "subsystem:usb",
    "subsystem:input",
    "driver:ftdi_sio",
    "driver:cdc_acm",
    "port:1-1.1",
    "tag:systemd",
    "property:ID_BUS=usb",
    "glob:ttyUSB*",
    "glob:serial/by-id/*",
    "attr:bInterfaceNumber=02",
];
