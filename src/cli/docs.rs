//! `oci-hotplug generate-docs`: man pages, from the definition that the arguments are read with,
//! and the shells' completions.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use super::args::Command;
use super::complete;

/// Writes `man/*.1` and `completions/*` below a directory.
pub(super) fn run(dir: &Path) -> Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create the directory {}", dir.display()))?;
    }
    let command = Command::command();
    clap_mangen::generate_to(command.clone(), &man)
        .with_context(|| format!("cannot write man pages into {}", man.display()))?;
    for (name, script) in complete::SCRIPTS {
        let path = completions.join(name);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pages, each with the command that it is of.
    fn commands(command: &clap::Command, name: &str, into: &mut Vec<(String, clap::Command)>) {
        into.push((name.to_owned(), command.clone()));
        for sub in command
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        {
            commands(sub, &format!("{name}-{}", sub.get_name()), into);
        }
    }

    #[test]
    fn every_option_is_in_its_man_page() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path()).unwrap();
        let mut command = Command::command();
        command.build();
        let mut all = Vec::new();
        commands(&command, "oci-hotplug", &mut all);
        assert!(all.len() > 7, "{}", all.len());
        for (name, command) in all {
            let page = fs::read_to_string(dir.path().join(format!("man/{name}.1")))
                .unwrap()
                .replace('\\', "");
            let shown = command.get_arguments().filter(|option| !option.is_hide_set());
            for option in shown.filter_map(clap::Arg::get_long) {
                assert!(page.contains(&format!("--{option}")), "{name}.1 lacks --{option}");
            }
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                assert!(page.contains(sub.get_name()), "{name}.1 lacks {}", sub.get_name());
            }
        }
    }

    /// The hooks' and the watcher's pages are written by hand: their help says what must be in
    /// them.
    #[test]
    fn the_pages_by_hand_name_every_option_and_every_key() {
        let page = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("packaging/man")
                .join(name);
            fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .replace('\\', "")
        };
        let prestart = page("oci-hotplug-prestart.8");
        let poststop = page("oci-hotplug-poststop.8");
        for (text, page) in [
            (crate::hook::command::PRESTART_PROGRAM.help, &prestart),
            (crate::hook::command::POSTSTOP_PROGRAM.help, &poststop),
            (
                crate::watcher::command::PROGRAM.help,
                &page("oci-hotplug-watcher.8"),
            ),
            (crate::usbip::command::PROGRAM.help, &page("oci-hotplug-usbip.8")),
        ] {
            let options = text
                .split([' ', '\n', '[', ']', ','])
                .filter(|word| word.starts_with("--"));
            for option in options {
                assert!(page.contains(option), "a page lacks {option}");
            }
        }
        let config = page("oci-hotplug.toml.5");
        for line in include_str!("../../packaging/config.toml").lines() {
            if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
                if !key.contains(' ') {
                    assert!(config.contains(key), "oci-hotplug.toml.5 lacks {key}");
                }
            }
        }
        let requests = page("oci-hotplug-requests.7");
        for word in crate::model::request::selector::kinds()
            .iter()
            .chain(&crate::model::request::option_names())
        {
            assert!(requests.contains(word), "oci-hotplug-requests.7 lacks {word}");
        }
    }
}
