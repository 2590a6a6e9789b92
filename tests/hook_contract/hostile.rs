//! Requests, ids, bundles and states of an attacker: a refusal is short, quick and needs little
//! memory.

use std::fs;

use super::{PRESTART, Scene, words};

/// A refusal is short, without control characters, and takes no more than 64 MiB and two seconds of
/// a CPU, whatever is refused. (How long it takes by the clock is a matter of what else the machine
/// does.)
#[track_caller]
fn is_refused_in_bounds(scene: &Scene, state: &str, code: i32, part: &str) {
    let output = scene.run_after("ulimit -d 65536; ulimit -t 2", PRESTART, state);
    let words = words(&output);
    let start: String = words.chars().take(2000).collect();
    assert_eq!(output.status.code(), Some(code), "{start:?}");
    assert!(words.contains(part), "{start:?}");
    assert!(words.len() < 600, "{} bytes: {start:?}", words.len());
    assert!(!words.trim_end().contains(char::is_control), "{start:?}");
    assert!(scene.has_no_trace());
}

/// Texts with which somebody might want to get further than a request goes.
fn malicious() -> [String; 7] {
    [
        "../../../../etc/passwd".to_owned(),
        "a\u{1b}[2J\u{7}\nERROR all is lost".to_owned(),
        "\u{9b}31m\u{2028}\u{202e}".to_owned(),
        "a\0b".to_owned(),
        "x".repeat(1 << 20),
        "/".repeat(1 << 20),
        "a,".repeat(10_000),
    ]
}

/// Case security 3.
#[test]
fn costly_patterns_are_refused_quickly_and_in_little_memory() {
    // Each is another one: the same request counts once.
    let many = |request: &str, count: usize| {
        let requests: Vec<String> = (0..count).map(|index| format!("{request}{index}")).collect();
        requests.join(",")
    };
    let groups = format!("regex:({}){{0\\,8}}#", "()".repeat(110));
    for value in [
        many(r"regex:([^/]?){0\,900}#", 40),
        many(&groups, 40),
        format!("usb:0403{}", r";only=regex:a{0\,900}".repeat(2500)),
        format!("usb:0403{}", r"&regex:a{0\,900}".repeat(2500)),
        many(&format!("usb:0403{}", r";only=regex:a{0\,4000}".repeat(16)), 150),
        format!(
            "usb:0403{}",
            format!(";or=usb:0403{}", r"&regex:a{0\,4000}".repeat(31)).repeat(16)
        ),
        many("subsystem:tty&!tag:a&!tag:b&!tag:c&!tag:d", 256),
        many(&format!("glob:{}", "*0".repeat(120)), 100),
    ] {
        let annotations = serde_json::json!({ "io.oci-hotplug.devices": value }).to_string();
        let scene = Scene::new(&annotations);
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "(annotation io.oci-hotplug.devices)");
    }
}

#[test]
fn malicious_annotations_are_refused_quickly_with_short_messages_in_little_memory() {
    let mut values = vec![
        vec!["usb:0403:6001"; 10_000].join(","),
        vec!["usb:0403:6001;link=/dev/x"; 10_000].join(","),
        format!("regex:{}", "(a{200}){200}".repeat(200)),
        format!("glob:{}", "*".repeat(4000)),
        format!("{}usb:0403", "parent-of:".repeat(6000)),
    ];
    for text in malicious() {
        values.extend([
            text.clone(),
            format!("devnode:/dev/{text}/"),
            format!("usb:0403;path=/dev/{text}/"),
            format!("usb:0403;link=/{text}/"),
            format!("class:{text}"),
        ]);
    }
    for value in &values {
        let annotations = serde_json::json!({ "io.oci-hotplug.devices": value }).to_string();
        let scene = Scene::new(&annotations);
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "(annotation io.oci-hotplug.devices)");
    }
    for text in malicious() {
        let annotations =
            serde_json::json!({ "io.oci-hotplug.symlinks": format!("usb:0403:6001:0=/{text}/") }).to_string();
        let scene = Scene::new(&annotations);
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "(annotation io.oci-hotplug.symlinks)");
    }
}

#[test]
fn a_path_cannot_forge_a_line_of_the_log() {
    for value in [
        // A line break without the backslash begins the next request.
        "usb:0403;path=/dev/a\\\nERROR all is lost",
        "usb:0403;link=/run/a\u{1b}[2J",
        "devnode:/dev/a\rb",
        "driver:a\u{9b}31mb",
    ] {
        let scene = Scene::new(&serde_json::json!({ "io.oci-hotplug.devices": value }).to_string());
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "control characters");
    }
}

#[test]
fn malicious_ids_bundles_and_states_are_refused_quickly_with_short_messages_in_little_memory() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    let state =
        |id: &str, bundle: &str| serde_json::json!({ "id": id, "pid": 1, "bundle": bundle }).to_string();
    let bundle = scene.bundle().display().to_string();
    for text in malicious() {
        is_refused_in_bounds(&scene, &state(&text, &bundle), 1, "container id");
        is_refused_in_bounds(&scene, &state("c1", &format!("/nowhere/{text}")), 1, "c1");
        let config = serde_json::json!({ "root": { "path": format!("/nowhere/{text}") }, "annotations": { "io.oci-hotplug.devices": "usb:0403" } });
        fs::write(scene.bundle().join("config.json"), config.to_string()).expect("write a config.json");
        is_refused_in_bounds(
            &scene,
            &state("c1", &bundle).replace("\"pid\":1", "\"pid\":2147483646"),
            1,
            "c1",
        );
        let config = serde_json::json!({ "root": { "path": "rootfs" }, "annotations": text });
        fs::write(scene.bundle().join("config.json"), config.to_string()).expect("write a config.json");
        is_refused_in_bounds(&scene, &state("c1", &bundle), 1, "config.json");
        is_refused_in_bounds(&scene, &serde_json::json!(text).to_string(), 1, "standard input");
    }
    // Much in little: nesting, and as many small members as fit.
    let members = (0..300_000)
        .map(|number| format!("\"{number}\":0,"))
        .collect::<String>();
    is_refused_in_bounds(&scene, &"[".repeat(1 << 20), 1, "standard input");
    is_refused_in_bounds(&scene, &"{\"a\":".repeat(1 << 18), 1, "standard input");
    is_refused_in_bounds(
        &scene,
        &format!("{{{members}\"pid\":1}}"),
        1,
        "`id` is not a string",
    );
    is_refused_in_bounds(&scene, &" ".repeat(5 << 20), 1, "longer than");
}
