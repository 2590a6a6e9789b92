use super::*;
use proptest::prelude::*;

#[test]
fn a_long_text_is_not_quoted_in_full() {
    let mile = "\u{1e}".repeat(100_000);
    for text in [
        mile.clone(),
        format!("{mile}/b"),
        format!("a/b={mile}"),
        format!("a/{}-", "b".repeat(100_000)),
    ] {
        for error in [text.parse::<Kind>().err(), text.parse::<QualifiedName>().err()] {
            let message = error.expect("no name").to_string();
            assert!(message.chars().count() < 700, "{message}");
        }
    }
}

#[test]
fn names_are_checked_as_in_the_go_library() {
    for name in [
        "nvidia.com/gpu=0",
        "a/b=c",
        "a-1/b_2=x:y.z",
        "V.X/c.d=0000:02:00.0",
    ] {
        assert_eq!(name.parse::<QualifiedName>().unwrap().to_string(), name);
    }
    for name in [
        "",
        "/dev/null",
        "/a/b=c",
        "a/b",
        "a/b=",
        "=c",
        "a=c",
        "a/b=c=d",
        "a/b/c=d",
        "1a/b=c",
        "a/_b=c",
        "a-/b=c",
        "a/b=-c",
        "a/b=c:",
        "a/b=c d",
        "a/bü=c",
    ] {
        assert!(name.parse::<QualifiedName>().is_err(), "{name}");
    }
}

#[test]
fn an_error_has_a_hint() {
    for (name, hint) in [
        ("my board", "must not have ' '"),
        ("my board", "as in \"my-board\""),
        ("_x", "must begin with a letter or digit, as in \"x\""),
        ("x.", "must end with a letter or digit, as in \"x\""),
        ("", "such as board"),
    ] {
        let text = check_device(name).unwrap_err().to_string();
        assert!(text.contains(hint), "{text}");
    }
    let text = "1st.dev/x".parse::<Kind>().unwrap_err().to_string();
    assert!(
        text.contains("the vendor \"1st.dev\" must begin with a letter, as in \"st.dev\""),
        "{text}"
    );
}

proptest! {
    #[test]
    fn the_name_in_the_hint_is_valid(name in "[a-zA-Z0-9_.:/= -]{1,20}") {
        if check_device(&name).is_err() {
            let hint = DEVICE.hint(&name);
            if let Some(quoted) = hint.strip_prefix(", as in \"") {
                prop_assert_eq!(check_device(quoted.trim_end_matches('"')), Ok(()));
            }
        }
    }

    #[test]
    fn a_name_survives_parsing_and_formatting(name in "[a-z0-9_./=:-]{0,24}") {
        if let Ok(read) = name.parse::<QualifiedName>() {
            prop_assert_eq!(read.to_string(), name);
        }
    }
}
