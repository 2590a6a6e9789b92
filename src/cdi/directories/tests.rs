use super::*;

fn file(path: &str, priority: usize, names: &[&str]) -> SpecFile {
    let devices: Vec<String> = names
        .iter()
        .map(|name| format!("{{name: '{name}', containerEdits: {{env: ['{path}=1']}}}}"))
        .collect();
    let text = format!(
        "cdiVersion: 0.5.0\nkind: a/b\ndevices: [{}]\ncontainerEdits: {{env: [S=1]}}\n",
        devices.join(", ")
    );
    SpecFile {
        path: path.into(),
        priority,
        spec: check(&text),
    }
}

fn specs(files: Vec<SpecFile>) -> Specs {
    Specs {
        directories: vec!["low".into(), "high".into()],
        files,
        unreadable: Vec::new(),
    }
}

#[test]
fn a_later_directory_has_precedence() {
    let specs = specs(vec![file("l", 0, &["x", "y"]), file("h", 1, &["x"])]);
    let devices = specs.devices();
    assert!(matches!(&devices["a/b=x"], Definition::By { file, shadowed, .. }
        if file.path == Path::new("h") && shadowed == &[Path::new("l")]));
    assert!(matches!(&devices["a/b=y"], Definition::By { file, .. } if file.path == Path::new("l")));
}

#[test]
fn a_device_in_two_files_of_one_directory_is_ignored_even_in_a_later_directory() {
    let specs = specs(vec![
        file("a", 0, &["x"]),
        file("b", 0, &["x", "y"]),
        file("h", 1, &["x"]),
    ]);
    assert!(matches!(&specs.devices()["a/b=x"], Definition::Conflict(paths) if paths.len() == 3));
    assert!(specs.resolve(&["a/b=y".into()]).is_ok());
}

#[test]
fn the_edits_of_a_spec_come_once_and_first() {
    let specs = specs(vec![file("l", 0, &["x", "y"])]);
    let edits = specs.resolve(&["a/b=x".into(), "a/b=y".into()]).unwrap();
    assert_eq!(edits.env, ["S=1", "l=1", "l=1"]);
}

#[test]
fn an_error_lists_all_names_that_cannot_be_resolved() {
    let mut files = vec![file("l", 0, &["x"]), file("m", 0, &["x"])];
    files.push(SpecFile {
        path: "broken".into(),
        priority: 0,
        spec: check("{"),
    });
    let names = ["a/b=x", "a/b=z", "nonsense"].map(String::from);
    let messages: Vec<String> = specs(files)
        .resolve(&names)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        messages[0].starts_with("a/b=x: l and m define it in one directory"),
        "{messages:?}"
    );
    assert!(
        messages[1].contains("no spec in low and high defines it (it may be in broken"),
        "{messages:?}"
    );
    assert!(messages[2].contains("write VENDOR/CLASS=NAME"), "{messages:?}");
}
