use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;

fn json(text: &str, dialect: Dialect) -> Result<Json, Error> {
    parse(text)?.decode(dialect)
}

fn core(text: &str) -> Json {
    json(text, Dialect::Core).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn lists_mappings_and_scalars_are_parsed() {
    let text = "a: [1, -2, 0x10, 1.5, true, null, ~, 'x', \"y\\n\"]\nb:\n- c: |\n    two\n    lines\n-\n";
    let expected = json!({
        "a": [1, -2, 16, 1.5, true, null, null, "x", "y\n"],
        "b": [{ "c": "two\nlines\n" }, null],
    });
    assert_eq!(core(text), expected);
    assert_eq!(core(""), Json::Null);
    assert_eq!(core("# a comment\n"), Json::Null);
    assert_eq!(
        core("{\"json\": [\"is\", {\"yaml\": true}]}"),
        json!({"json": ["is", {"yaml": true}]})
    );
}

/// The core schema of YAML 1.2.2, and go-yaml v3 and v2 as observed by running them.
#[test]
fn an_unquoted_text_has_the_value_of_its_dialect() {
    for (text, core, v3, v2) in [
        ("0403", json!("0403"), json!(259), json!(259)),
        ("0825", json!("0825"), json!(825.0), json!(825.0)),
        ("1_000", json!("1_000"), json!(1000), json!(1000)),
        ("0X1f", json!("0X1f"), json!(31), json!(31)),
        ("0o17", json!(15), json!(15), json!(15)),
        ("+12", json!(12), json!(12), json!(12)),
        ("-0", json!(0), json!(0), json!(0)),
        ("yes", json!("yes"), json!("yes"), json!(true)),
        ("Off", json!("Off"), json!("Off"), json!(false)),
        ("1:30", json!("1:30"), json!("1:30"), json!("1:30")),
        ("1e400", json!("1e400"), json!("1e400"), json!("1e400")),
        (
            "18446744073709551615",
            json!(u64::MAX),
            json!(u64::MAX),
            json!(u64::MAX),
        ),
        (
            "-9223372036854775808",
            json!(i64::MIN),
            json!(i64::MIN),
            json!(i64::MIN),
        ),
        (
            "18446744073709551616",
            json!(18446744073709551616.0),
            json!(18446744073709551616.0),
            json!(18446744073709551616.0),
        ),
        ("1.2.3", json!("1.2.3"), json!("1.2.3"), json!("1.2.3")),
        ("-", json!([null]), json!([null]), json!([null])),
    ] {
        let read = |dialect| self::json(text, dialect).unwrap();
        assert_eq!(read(Dialect::Core), core, "{text}");
        assert_eq!(read(Dialect::GoV3), v3, "{text}");
        assert_eq!(read(Dialect::GoV2), v2, "{text}");
        if text != "-" {
            assert_eq!(
                self::json(&format!("'{text}'"), Dialect::GoV2).unwrap(),
                json!(text)
            );
        }
    }
}

#[test]
fn numbers_that_json_does_not_have_and_those_of_other_bases_are_read() {
    let float = |text: &str| parse(text)?.decode::<f64>(Dialect::Core);
    for text in [".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"] {
        assert_eq!(float(text), Ok(f64::INFINITY), "{text}");
    }
    for text in ["-.inf", "-.Inf", "-.INF"] {
        assert_eq!(float(text), Ok(f64::NEG_INFINITY), "{text}");
    }
    for text in [".nan", ".NaN", ".NAN"] {
        assert!(float(text).unwrap().is_nan(), "{text}");
    }
    assert!(float("inf").is_err() && float("nan").is_err());
    for (text, core, go) in [
        ("0b101", json!(5), json!(5)),
        ("0b1_0", json!("0b1_0"), json!(2)),
        ("0o1_7", json!("0o1_7"), json!(15)),
    ] {
        let read = |dialect| self::json(text, dialect).unwrap();
        assert_eq!(
            (read(Dialect::Core), read(Dialect::GoV3)),
            (core, go.clone()),
            "{text}"
        );
        assert_eq!(read(Dialect::GoV2), go, "{text}");
    }
}

#[test]
fn a_tag_of_yaml_decides_the_type_of_a_scalar_and_other_tags_are_errors() {
    assert_eq!(
        core("[!!str 7, !!int '7', !!float 7, !!null '', !!bool true]"),
        json!(["7", 7, 7.0, null, true])
    );
    assert!(json("!!int x", Dialect::Core).is_err());
    for text in ["!local x", "a: !secret {}", "!<tag:example.com,2020:x> []"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn an_alias_expands_to_its_anchor() {
    assert_eq!(
        core("a: &x {b: [1]}\nc: *x\n"),
        json!({"a": {"b": [1]}, "c": {"b": [1]}})
    );
    assert!(parse("&x [*x]").is_err());
    assert!(parse("*nothing").is_err());
}

#[test]
fn unbounded_growth_is_an_error() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        laughs += &format!("a{level}: &a{level} [{below}]\n");
    }
    assert!(parse(&laughs).unwrap_err().message.contains("aliases"));
    for text in ["[".repeat(100_000), "{a: ".repeat(200), "- ".repeat(200)] {
        assert!(parse(&text).is_err());
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..200 {
        chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(parse(&chain).is_err());
}

#[test]
fn aliases_may_expand_to_the_limits_and_no_further() {
    let items = vec!["x"; 511].join(", ");
    let aliases = |count: usize| format!("a: &a [{items}]\nb: [{}]\n", vec!["*a"; count].join(", "));
    assert!(parse(&aliases(MAX_ALIASED / 512)).is_ok());
    assert!(parse(&aliases(MAX_ALIASED / 512 + 1)).is_err());
    let nested = |text: &str, depth: usize| format!("{}{text}{}", "[".repeat(depth), "]".repeat(depth));
    let half = MAX_DEPTH / 2;
    let deep = |depth: usize| format!("- &a {}\n- {}\n", nested("", half), nested("*a", depth));
    assert!(parse(&deep(half - 1)).is_ok());
    assert!(parse(&deep(half)).is_err());
}

#[test]
fn an_error_of_syntax_has_the_line_and_the_column_counted_from_one() {
    let position = |text: &str| parse(text).unwrap_err().position.unwrap();
    let place = |text: &str| (position(text).line, position(text).column);
    assert_eq!(place("a: 1\n}"), (2, 1));
    assert_eq!(place("a: 1\nb: }"), (2, 4));
}

#[test]
fn more_than_one_document_is_an_error() {
    assert_eq!(core("---\na: 1\n...\n"), json!({"a": 1}));
    assert!(parse("a: 1\n---\nb: 2\n").is_err());
}

#[test]
fn merge_keys_add_missing_entries() {
    let merged = |text: &str| {
        parse(text)
            .and_then(Node::merged)
            .and_then(|node| node.decode::<Json>(Dialect::Core))
    };
    let text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nm: {<<: [*b, *o], x: 5}\n";
    assert_eq!(merged(text).unwrap()["m"], json!({"x": 5, "y": 2, "z": 4}));
    assert!(merged("m: {<<: 7}").is_err());
    assert!(merged("{a: 1, a: 2}").is_err());
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Board {
    name: String,
    #[serde(default)]
    ports: Vec<u16>,
    kind: Option<Kind>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Serial,
}

#[test]
fn an_absent_value_is_empty_and_a_list_is_not_a_mapping() {
    let board: Board = from_str("name: x\nports:\n", Dialect::Core).unwrap();
    assert!(board.ports.is_empty());
    for text in [
        "[x]",
        "- x\n- []\n",
        "{name: x, ports: ''}",
        "{name: x, ports: ~}",
        "[x, [], serial]",
    ] {
        assert!(from_str::<Board>(text, Dialect::Core).is_err(), "{text}");
    }
    let board: Board = from_str("{name: x, kind: null}", Dialect::Core).unwrap();
    assert_eq!(board.kind, None);
    let empty: BTreeMap<String, u8> = from_str("", Dialect::Core).unwrap();
    assert!(empty.is_empty());
    let strictly = |text: &str| parse(text).and_then(|node| node.decode_strictly::<Board>(Dialect::Core));
    let keys = parse("{7: 1}").and_then(|node| node.decode_strictly(Dialect::Core));
    assert_eq!(keys, Ok(BTreeMap::from([("7".to_owned(), 1)])), "keys are text");
    assert!(strictly("{name: 7}").is_err() && strictly("{name: '7', ports: [1]}").is_ok());
}

#[test]
fn an_error_names_the_value_and_its_position() {
    let read = |text: &str| parse(text).and_then(|node| node.decode::<Vec<Board>>(Dialect::Core));
    let board = read("- {name: 7, ports: [1], kind: serial}\n").unwrap();
    assert_eq!(board[0].name, "7");
    assert_eq!(board[0].kind, Some(Kind::Serial));
    for (text, expected) in [
        (
            "- name: x\n  nam: y\n",
            "[0]: unknown field `nam`, expected one of `name`, `ports`, `kind` at line 2 column 3",
        ),
        (
            "- name: x\n- name: y\n  ports: [1, x]\n",
            "[1].ports[1]: invalid type: string \"x\", expected u16 at line 3 column 14",
        ),
        ("- ports: []\n", "[0]: missing field `name` at line 1 column 3"),
        (
            "- {name: x, kind: usb}",
            "[0].kind: unknown variant `usb`, expected `serial` at line 1 column 19",
        ),
        (
            "- name: x\n  name: y\n",
            "[0]: duplicate field `name` at line 1 column 3",
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected);
    }
}

proptest! {
    #[test]
    fn no_text_causes_a_panic_in_the_parser(text in "[\\PC\n\t]{0,80}") {
        if let Ok(node) = parse(&text) {
            let _ = node.clone().merged();
            let _ = node.decode::<Json>(Dialect::GoV2);
        }
    }

    #[test]
    fn json_is_parsed_as_json(text in "[ -~\u{e0}-\u{ff}]{0,30}", number in any::<i64>(), flag in any::<bool>()) {
        let written = json!({"text": text, "list": [number, flag, null, {"x": []}]});
        prop_assert_eq!(core(&written.to_string()), written.clone());
        prop_assert_eq!(core(&serde_json::to_string_pretty(&written).unwrap()), written);
    }
}
