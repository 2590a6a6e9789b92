//! Foreign text forges no output.

use super::fake_watcher::watcher;
use super::scene::{Configured, err, out, record};

/// Foreign text that forges a line of a log and of a table, moves the cursor, and turns the
/// direction of writing.
pub const HOSTILE: &str =
    "x\n2026-11-21T14:13:38.939211Z oci-hotplug-watcher[1]  INFO forged\u{1b}[2J\r\u{9b}\u{202e}\u{200b}";

/// Answers every question of the tool as the watcher of a container whose files have hostile names.
pub fn hostile_watcher(dir: &std::path::Path) {
    watcher(dir, HOSTILE);
}

/// Case security 5.
#[test]
fn foreign_text_forges_no_line_and_moves_no_cursor_in_any_verb() {
    let configured = Configured::new("");
    let dir = record(&configured.state_dir(), "alpha", 1);
    let path = dir.join("record.json");
    let text = std::fs::read_to_string(&path).expect("the record");
    let hostile = serde_json::to_string(HOSTILE).expect("JSON");
    std::fs::write(&path, text.replace("\"/b\"", &hostile)).expect("write the record");
    hostile_watcher(&dir);
    let event = format!(
        "2026-11-21T14:13:38.939211Z oci-hotplug-watcher[77]  WARN {} container=\"alpha\" event=\"denied\" device=\"\" node={HOSTILE:?}\n",
        HOSTILE.replace('\n', " ")
    );
    std::fs::write(configured.state_dir().join("oci-hotplug.log"), event).expect("write the log");
    let cdi = configured.scratch.path().join("cdi");
    std::fs::create_dir(&cdi).expect("a directory for CDI specs");
    let spec = format!(
        r#"{{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{{"name":"d","containerEdits":{{"env":[{}]}}}}]}}"#,
        serde_json::to_string(&format!("A={HOSTILE}")).expect("JSON")
    );
    std::fs::write(cdi.join("v.json"), spec).expect("write a CDI spec");
    let cdi = cdi.to_str().expect("scratch paths are text").to_owned();
    let hostile_word = format!("devnode:/dev/{HOSTILE}");
    for (words, exact) in [
        (vec!["list"], true),
        (vec!["inspect", "alpha"], true),
        (vec!["explain", "alpha", "/dev/null"], true),
        (vec!["tree", "--all"], true),
        (vec!["events"], true),
        (vec!["metrics"], false),
        (vec!["reload"], false),
        (vec!["recover"], false),
        (vec!["detach", "alpha", "usb:0403"], false),
        (vec!["match", &hostile_word], false),
        (vec!["attach", "alpha", &hostile_word], false),
        (vec!["inspect", HOSTILE], false),
        (vec!["cdi", "resolve", "v.com/c=d", "--cdi-dir", &cdi], false),
        (vec!["cdi", "list", "--cdi-dir", &cdi], false),
        (vec!["cdi", "validate", "--cdi-dir", &cdi], false),
        (vec!["allow", &hostile_word, "--dry-run"], false),
        (vec!["class", "add", HOSTILE, "usb:0403"], false),
    ] {
        let output = configured.tool(&words);
        let said = format!("{}{}", out(&output), err(&output));
        assert!(!said.is_empty(), "{words:?}");
        let moves =
            |letter: char| letter != '\n' && (letter.is_control() || "\u{202e}\u{200b}".contains(letter));
        assert!(!said.contains(moves), "{words:?}: {said:?}");
        assert!(
            !said.lines().any(|line| line.starts_with("2026-11-21T14:13:38.9")),
            "{words:?}: {said}"
        );
        if exact {
            let json: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
            let exact = out(&configured.tool(&json));
            let values = serde_json::Deserializer::from_str(&exact).into_iter::<serde_json::Value>();
            let texts: String = values.map(|value| all_texts(&value.expect("JSON"))).collect();
            let whole = texts.contains(HOSTILE) || texts.contains(&HOSTILE.replace('\n', " "));
            assert!(whole, "{words:?}: {exact}");
        }
    }
}

/// All texts in a JSON value.
fn all_texts(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => format!("{text} "),
        serde_json::Value::Array(values) => values.iter().map(all_texts).collect(),
        serde_json::Value::Object(fields) => fields.values().map(all_texts).collect(),
        _ => String::new(),
    }
}
