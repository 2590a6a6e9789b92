//! Properties of the grammar that hold for all requests and texts.

use crate::model::any_text::any_text;

use proptest::prelude::*;

use super::*;
use crate::model::request::selector::tests::properties::{any_device_selector, any_selector};

fn any_path() -> impl Strategy<Value = PathBuf> {
    r"/dev(/[a-z ,;&\\=é]{1,6}){0,2}/[a-z,;&\\ ]{0,4}[a-z ]".prop_map(PathBuf::from)
}

fn any_node_path() -> impl Strategy<Value = NodePath> {
    prop_oneof![
        any_path().prop_map(NodePath::Node),
        any_path().prop_map(NodePath::Directory),
        Just(NodePath::Directory("/dev".into())),
    ]
}

fn any_options() -> impl Strategy<Value = Options> {
    let id = || prop::option::of(0..u32::MAX);
    let ready = prop_oneof![Just(None), Just(Some(Ready::Kernel)), Just(Some(Ready::Udev))];
    let on_removal = prop_oneof![
        Just(OnRemoval::Keep),
        Just(OnRemoval::Stop),
        Just(OnRemoval::Kill),
        Just(OnRemoval::Signal("SIGUSR1".to_owned())),
    ];
    let node = (
        1..8u32,
        prop::option::of(1..=0o777u32),
        id(),
        id(),
        prop::option::of(any_node_path()),
    );
    let rest = (
        prop::collection::vec(any_path(), 0..3),
        prop::collection::vec(any_selector(), 0..3),
        any::<bool>(),
        any::<bool>(),
        ready,
        on_removal,
        0..=3_600_000u64,
        prop::collection::vec(any_device_selector(), 0..3),
    );
    (node, rest).prop_map(
        |(
            (access, mode, uid, gid, path),
            (links, only, required, exclusive, ready, on_removal, grace, or),
        )| Options {
            grace: match on_removal {
                OnRemoval::Keep => Duration::ZERO,
                _ => Duration::from_millis(grace),
            },
            or,
            access: Access::from_bits_truncate(access),
            mode,
            uid,
            gid,
            // A directory and links exclude each other.
            links: match &path {
                Some(NodePath::Directory(_)) => Vec::new(),
                _ => links,
            },
            path,
            only,
            required,
            exclusive,
            ready,
            on_removal,
        },
    )
}

fn any_request() -> impl Strategy<Value = Request> {
    (any_device_selector(), any_options()).prop_map(|(selector, options)| Request { selector, options })
}

proptest! {
    #[test]
    fn a_request_survives_formatting_and_parsing(request in any_request()) {
        let text = request.to_string();
        prop_assert_eq!(text.parse(), Ok(request), "{}", text);
    }

    #[test]
    fn a_list_of_requests_survives_formatting_and_parsing(requests in prop::collection::vec(any_request(), 1..4)) {
        let texts: Vec<String> = requests.iter().map(Request::to_string).collect();
        for between in [" ,\n", ",", "\n", "\r\n\n \n"] {
            let again = parse_requests(&texts.join(between));
            prop_assert_eq!(again.as_ref(), Ok(&requests), "{:?}", between);
        }
        let block = format!("\n{}\n\n", texts.join("\n"));
        prop_assert_eq!(parse_requests(&block), Ok(requests));
    }

    #[test]
    fn no_text_causes_a_panic_and_no_message_is_long_or_has_control_characters(
        text in prop_oneof![any_text(), r"(usb:0403|[;,&!=\\ \n\x1b]|only=|link=/|on-removal=signal:|mode=|.){0,32}"]
    ) {
        for parsed in [parse_requests(&text), parse_lowrisc_devices(&text), text.parse().map(|one| vec![one])] {
            if let Err(error) = parsed {
                let message = error.to_string();
                prop_assert!(message.chars().count() < 330, "{}", message);
                prop_assert!(!message.chars().any(char::is_control), "{:?}", message);
            }
        }
    }

    #[test]
    fn requests_that_container_hotplug_accepts_mean_the_same_in_the_grammar_of_oci_hotplug(
        texts in prop::collection::vec(
            r"(parent-of:){0,3}(usb:[0-9a-fA-F]{4}(:[0-9a-fA-F]{4}(:[0-9a-zA-Z]{1,9})?)?|syspath:/sys(/[a-z0-9:.]{1,5}){1,3}|devnode:/dev(/[a-z]{1,5}){1,3})",
            1..4,
        )
    ) {
        let list = texts.join(",");
        let theirs = parse_lowrisc_devices(&list).unwrap();
        let ours = parse_requests(&list).unwrap();
        prop_assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            prop_assert_eq!(&theirs.selector, &ours.selector);
            prop_assert_eq!(theirs.options.mode, Some(0o644));
            prop_assert_eq!(theirs.to_string().parse(), Ok(theirs.clone()));
        }
    }
}
