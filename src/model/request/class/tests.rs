//! Classes, their expansion, and every message about them.

use super::*;
use crate::model::request::parse_request_list;
use proptest::prelude::*;

fn classes(all: &[(&str, &[&str], &[&str])]) -> Result<Classes, String> {
    let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    let definitions = all
        .iter()
        .map(|(name, devices, symlinks)| {
            let definition = Definition {
                devices: owned(devices),
                symlinks: owned(symlinks),
            };
            (name.to_string(), definition)
        })
        .collect();
    Classes::parse(Path::new("/etc/c.toml"), &definitions).map_err(|error| error.to_string())
}

fn expand(classes: &Classes, text: &str) -> Result<Requests, ClassUseError> {
    classes.expand(Origin::Annotation, parse_request_list(text).unwrap())
}

fn expand_trusted(classes: &Classes, text: &str) -> Requests {
    classes
        .expand(Origin::Root, parse_request_list(text).unwrap())
        .unwrap()
}

fn told(expanded: &Requests) -> Vec<String> {
    let one = |entry: &RequestEntry| match &entry.class {
        Some(class) => format!("{} of {class}", entry.request),
        None => entry.request.to_string(),
    };
    expanded.entries.iter().map(one).collect()
}

fn lab() -> Classes {
    classes(&[
        (
            "lab-board",
            &["usb:0403:6001,usb:0403:6010;access=r", "usb:1366"],
            &["usb:0403:6001:0=/dev/ttyBOARD"],
        ),
        ("camera", &["subsystem:video4linux"], &[]),
    ])
    .unwrap()
}

#[test]
fn a_class_expands_to_all_its_requests_and_rules() {
    let expanded = expand(&lab(), "usb:2341,class:lab-board").unwrap();
    assert_eq!(
        told(&expanded),
        [
            "usb:2341",
            "usb:0403:6001 of lab-board",
            "usb:0403:6010;access=r of lab-board",
            "usb:1366 of lab-board"
        ]
    );
    assert_eq!(expanded.symlinks.len(), 1);
    assert!(
        expanded
            .entries
            .iter()
            .all(|entry| entry.origin == Origin::Annotation)
    );
}

#[test]
fn options_at_the_use_apply_to_all_requests_of_the_class() {
    let expanded = expand_trusted(&lab(), "class:lab-board;access=rw;required");
    let requests: Vec<String> = expanded
        .entries
        .iter()
        .map(|entry| entry.request.to_string())
        .collect();
    assert_eq!(
        requests,
        [
            "usb:0403:6001;access=rw;required",
            "usb:0403:6010;access=rw;required",
            "usb:1366;access=rw;required"
        ]
    );
}

#[test]
fn an_annotation_gets_no_more_than_the_class_allows() {
    let requests = |text: &str| -> Vec<String> {
        let expanded = expand(&lab(), text).unwrap();
        expanded
            .entries
            .iter()
            .map(|entry| entry.request.to_string())
            .collect()
    };
    assert_eq!(
        requests("class:lab-board;access=rw"),
        [
            "usb:0403:6001;access=rw",
            "usb:0403:6010;access=r",
            "usb:1366;access=rw"
        ]
    );
    assert_eq!(
        requests("class:camera;only=driver:x"),
        ["subsystem:video4linux;only=driver:x"]
    );
    let error = expand(&lab(), "class:lab-board;access=w").unwrap_err();
    assert!(
        matches!(&error, ClassUseError::Wider { option: "access", .. }),
        "{error}"
    );
    let narrow = classes(&[("n", &["port:1-1;only=subsystem:tty;only=driver:x"], &[])]).unwrap();
    assert!(expand(&narrow, "class:n;only=driver:x").is_ok());
    let error = expand(&narrow, "class:n;only=subsystem:block").unwrap_err();
    assert_eq!(
        error.to_string(),
        "device request \"class:n\": only= requests more than the class allows: remove it, or request less than the class"
    );
}

#[test]
fn a_class_named_twice_is_expanded_once() {
    let expanded = expand(&lab(), "class:lab-board,class:lab-board").unwrap();
    assert_eq!((expanded.entries.len(), expanded.symlinks.len()), (3, 1));
}

#[test]
fn an_unknown_class_is_reported_with_the_known_ones_and_the_file() {
    let error = expand(&lab(), "class:lab-bord").unwrap_err().to_string();
    assert_eq!(
        error,
        "device request \"class:lab-bord\": no such class is defined in /etc/c.toml (did you mean \
         \"lab-board\"?); known are camera, lab-board"
    );
    let error = expand(&classes(&[]).unwrap(), "class:x").unwrap_err().to_string();
    assert!(
        error.ends_with("it defines none (`oci-hotplug class add x usb:0403:6001` defines one)"),
        "{error}"
    );
}

#[test]
fn an_invalid_definition_is_reported_with_class_request_and_fault() {
    let error = classes(&[("lab", &["usb:0403", "usb:12345"], &[])]).unwrap_err();
    assert_eq!(
        error,
        "class \"lab\": device request \"usb:12345\": vendor id must be 4 hex digits, such as 0403 (devices, \
         element 2)"
    );
    for (name, devices, symlinks, part) in [
        (
            "lab",
            &["class:other"] as &[&str],
            &[] as &[&str],
            "cannot use a class",
        ),
        ("lab", &[], &[], "no devices: write"),
        ("la b", &["usb:0403"], &[], "not a class name"),
        ("lab", &["usb:0403"], &["usb:0403"], "(symlinks, element 1)"),
    ] {
        let error = classes(&[(name, devices, symlinks)]).unwrap_err();
        assert!(error.contains(part) && error.contains(name), "{error}");
    }
}

#[test]
fn without_classes_the_error_names_the_configuration_to_define_one_in() {
    let none = Classes::none(Path::new("/etc/c.toml"));
    assert_eq!(none.iter().count(), 0);
    assert_eq!(none.defined_in(), Path::new("/etc/c.toml"));
}

#[test]
fn a_later_definition_of_a_class_overrides_an_earlier_one() {
    let mut all = lab();
    all.extend(classes(&[("camera", &["usb:046d"], &[]), ("mic", &["usb:0d8c"], &[])]).unwrap());
    let names: Vec<&str> = all.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["camera", "lab-board", "mic"]);
    let expanded = expand(&all, "class:camera,class:mic").unwrap();
    assert_eq!(told(&expanded), ["usb:046d of camera", "usb:0d8c of mic"]);
}

#[test]
fn a_class_that_an_invalid_file_may_define_cannot_be_used() {
    let fault = "/etc/d/50.toml: line 3: expected a value";
    let is_unreadable = |all: &Classes, name: &str| {
        let error = match expand(all, &format!("class:{name}")) {
            Ok(_) => return false,
            Err(error) => error,
        };
        let is_unreadable = matches!(&error, ClassUseError::Unreadable { fault: told, .. } if told == fault);
        assert!(is_unreadable || matches!(error, ClassUseError::Unknown { .. }));
        is_unreadable
    };
    let mut all = lab();
    assert!(!is_unreadable(&all, "camera") && !is_unreadable(&all, "other"));
    all.set_aside(Some("[class.camera]\ndevices =".to_owned()), fault.to_owned());
    assert!(is_unreadable(&all, "camera"), "the file may change it");
    assert!(!is_unreadable(&all, "lab-board"), "the file does not name it");
    assert!(is_unreadable(&all, "other"), "the file may include another");
    // An unreadable file may define any class.
    let mut all = lab();
    all.set_aside(None, fault.to_owned());
    assert!(is_unreadable(&all, "lab-board"));
}

#[test]
fn a_class_of_a_user_is_no_more_than_its_requests_and_replaces_none_of_root() {
    let mut all = lab();
    let of_user = classes(&[
        ("camera", &["usb:046d"], &[]),
        ("own", &["usb:1050;access=r"], &[]),
    ]);
    all.add_of_user(of_user.unwrap());
    let expanded = expand(&all, "class:own,class:camera").unwrap();
    assert_eq!(
        told(&expanded),
        ["usb:1050;access=r", "subsystem:video4linux of camera"]
    );
    assert!(!expanded.entries[0].is_trusted() && expanded.entries[1].is_trusted());
    // With the user's own tool, as every request of root.
    let attached = expand_trusted(&all, "class:own;access=rw");
    assert_eq!(told(&attached), ["usb:1050;access=rw of own"]);
}

#[test]
fn an_invalid_file_of_a_user_concerns_no_class_of_root() {
    let mut all = lab();
    all.set_aside_of_user("line 1: unknown field `camera`".to_owned());
    assert!(expand(&all, "class:camera").is_ok());
    let error = expand(&all, "class:own").unwrap_err();
    assert!(matches!(error, ClassUseError::Unreadable { .. }), "{error}");
}

#[test]
fn the_maximal_number_of_requests_is_accepted() {
    let many: Vec<String> = (0..MAX_REQUESTS)
        .map(|number| format!("usb:{number:04x}"))
        .collect();
    let requests: Vec<&str> = many.iter().map(String::as_str).collect();
    let classes = classes(&[("a", &requests, &[]), ("b", &["usb:ffff"], &[])]).unwrap();
    assert_eq!(expand(&classes, "class:a").unwrap().entries.len(), MAX_REQUESTS);
    let count = MAX_REQUESTS + 1;
    assert_eq!(
        expand(&classes, "class:a,class:b").unwrap_err(),
        ClassUseError::TooMany { count }
    );
}

#[test]
fn classes_cannot_exceed_the_limit_of_requests() {
    let many: Vec<String> = (0..200).map(|number| format!("usb:{number:04x}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let classes = classes(&[("a", &many, &[])]).unwrap();
    assert!(expand(&classes, "class:a").is_ok());
    let error = expand(&classes, "class:a,class:a;access=r").unwrap_err();
    assert_eq!(error, ClassUseError::TooMany { count: 400 });
}

proptest! {
    #[test]
    fn a_list_without_classes_is_unchanged(vendors in proptest::collection::btree_set(0u16.., 1..20)) {
        let texts: Vec<String> = vendors.iter().map(|vendor| format!("usb:{vendor:04x}")).collect();
        let expanded = expand(&lab(), &texts.join(",")).unwrap();
        prop_assert_eq!(told(&expanded), texts);
    }
}
