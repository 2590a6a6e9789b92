use clap::CommandFactory;

use super::names::Name;
use super::*;

struct Known;

fn names(all: &[(&str, &str)]) -> Vec<Name> {
    let name = |(word, about): &(&str, &str)| (word.to_string(), about.to_string());
    all.iter().map(name).collect()
}

impl Names for Known {
    fn containers(&self) -> Vec<Name> {
        names(&[
            ("abc123", "robot"),
            ("robot", "abc123"),
            ("def456", ""),
            ("lab/board-0/flash", ""),
            ("$(reboot)", ""),
            ("two words", ""),
            ("`reboot`", ""),
        ])
    }

    fn classes(&self) -> Vec<Name> {
        names(&[("lab", "usb:0403")])
    }

    fn cdi_devices(&self) -> Vec<Name> {
        names(&[("v.com/c=gpu", "")])
    }
}

/// What is offered behind these words, of which the last is begun.
fn offered(words: &[&str]) -> Option<Vec<String>> {
    let mut command = crate::cli::args::Command::command();
    command.build();
    let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let candidates = candidates(&command, &words, &Known)?;
    Some(candidates.into_iter().map(|candidate| candidate.word).collect())
}

/// Case newcomer: completion works for the first word only, and offers hidden verbs.
#[test]
fn verbs_options_and_names_are_offered_at_every_position() {
    let containers = &["abc123", "robot", "def456", "lab/board-0/flash"];
    for (words, expected) in [
        (&["ins"][..], &["inspect", "install"][..]),
        (&["gen"], &[]),
        (&["com"], &[]),
        (&["--json", "li"], &["list"]),
        (&["--config", "x", "li"], &["list"]),
        (&["--config=x", "li"], &["list"]),
        (
            &["cdi", ""],
            &["generate", "list", "validate", "remove", "resolve"],
        ),
        (&["cdi", "generate", "--dev"], &["--device"]),
        (&["cdi", "resolve", ""], &["v.com/c=gpu"]),
        (&["cdi", "resolve", "v.com/c=g"], &["v.com/c=gpu"]),
        (&["cdi", "remove", "v"], &["v.com/c=gpu"]),
        (&["inspect", ""], containers),
        (&["inspect", "robot", ""], &[]),
        (&["--json", "inspect", "ro"], &["robot"]),
        (&["explain", "ro"], &["robot"]),
        (&["attach", "a"], &["abc123"]),
        (&["attach", "robot", "class:"], &["class:lab"]),
        (&["attach", "robot", "usb:1", "cl"], &["class:lab"]),
        (&["detach", "robot", "cl"], &["class:lab"]),
        (&["detach", "robot", "--al"], &["--all"]),
        (&["class", "remove", ""], &["lab"]),
        (&["class", "add", ""], &[]),
        (&["class", "add", "x", "cl"], &["class:lab"]),
        (&["events", "--container", "ro"], &["robot"]),
        (&["events", "--container=ro"], &["--container=robot"]),
        (&["events", "--fol"], &["--follow"]),
        (&["events", "-f", "--fol"], &["--follow"]),
        (&["check", "--ro"], &[]),
        (&["usbip", "att"], &["attach"]),
        (&["recover", "--re"], &["--restart-watchers"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|word| word.to_string()).collect();
        assert_eq!(offered(words), Some(expected), "{words:?}");
    }
}

#[test]
fn paths_are_left_to_the_shell() {
    for words in [
        &["--config", ""][..],
        &["--config=/e"],
        &["explain", "robot", ""],
        &["attach", "robot", "/dev/tty"],
        &["cdi", "validate", "x"],
    ] {
        assert_eq!(offered(words), None, "{words:?}");
    }
}
