//! The completion for bash, from the definition of the arguments. The generator of clap_complete
//! completes neither names of containers nor words behind a sub-verb of a program whose name has a
//! hyphen, and offers hidden verbs.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

/// The words that complete this value.
fn values(argument: &Arg, path: &[&str]) -> &'static str {
    let names = argument.get_value_names().unwrap_or_default();
    match names.first().map(|name| name.as_str()) {
        Some("FILE" | "DIR" | "DEVICE" | "SELECTOR") => "files",
        Some("ID") => "containers",
        Some("NAME") if path == ["class", "remove"] => "classes",
        Some("NAME") if path.first() == Some(&"cdi") && path.last() != Some(&"generate") => "cdi",
        Some("REQUEST") => "requests",
        _ => "none",
    }
}

/// The script for this program.
pub(super) fn script(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let name = command.get_name().to_owned();
    let mut verbs = String::new();
    let mut words = String::new();
    cases(&command, &[], &mut verbs, &mut words);
    HEAD.replace("@VERBS@", verbs.trim_end_matches('\n'))
        .replace("@WORDS@", words.trim_end_matches('\n'))
        .replace("@NAME@", &name)
}

fn cases(command: &Command, path: &[&str], verbs: &mut String, words: &mut String) {
    let here = path.join(" ");
    let subs: Vec<&Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
        .collect();
    let names: Vec<&str> = subs.iter().map(|sub| sub.get_name()).collect();
    let shown = || command.get_arguments().filter(|argument| !argument.is_hide_set());
    let mut options: Vec<String> = shown()
        .filter_map(Arg::get_long)
        .map(|long| format!("--{long}"))
        .collect();
    options.sort();
    // The kind of value that follows each option.
    let mut wanted = String::new();
    for argument in
        shown().filter(|argument| matches!(argument.get_action(), ArgAction::Set | ArgAction::Append))
    {
        if let Some(long) = argument.get_long() {
            let _ = write!(wanted, "--{long}={} ", values(argument, path));
        }
    }
    let positional: Vec<&str> = command
        .get_positionals()
        .flat_map(|argument| match (argument.get_id().as_str(), path) {
            // ID, and then requests.
            ("words", ["attach"]) => vec!["containers", "requests"],
            _ => vec![values(argument, path)],
        })
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(
        words,
        "        '{here}') verbs='{}' options='{}' wanted='{}' places='{}' ;;",
        names.join(" "),
        options.join(" "),
        wanted.trim_end(),
        positional.join(" ")
    );
    for sub in subs {
        let deeper: Vec<&str> = path.iter().copied().chain([sub.get_name()]).collect();
        let _ = writeln!(
            verbs,
            "            '{here}:{}') verb='{}' place=0 ;;",
            sub.get_name(),
            deeper.join(" ")
        );
        cases(sub, &deeper, verbs, words);
    }
}

/// `place` counts the words behind the verb that are not options. `:` and `=` separate words of
/// bash (COMP_WORDBREAKS).
const HEAD: &str = r#"# bash completion for @NAME@; generated.

_oci_hotplug_verb() {
    case "$1" in
@WORDS@
    esac
}

_oci_hotplug_names() {
    # compgen -W expands its words, so a name such as "$(reboot)" would be run. Anyone who starts containers can choose their
    # names.
    case "$1" in
        containers) oci-hotplug list 2>/dev/null | awk 'NR > 1 { print $1; if ($2 != "-") print $2 }' ;;
        classes) oci-hotplug class list 2>/dev/null | awk 'NR > 1 { print $1 }' ;;
        cdi) oci-hotplug cdi list 2>/dev/null | awk 'NR > 1 && $1 ~ /=/ { print $1 }' ;;
        requests) oci-hotplug class list 2>/dev/null | awk 'NR > 1 { print "class:" $1 }' ;;
    esac | LC_ALL=C grep -xE '[A-Za-z0-9_.:/=+@-]+'
}

_oci_hotplug() {
    local IFS=$' \t\n' verb='' place=0 verbs='' options='' wanted='' places='' kind='' word entry skip='' i
    local -a all=()
    # Words that bash has cut at ":" and "=" are joined again.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#all[@]} > 0)) && [[ $word == [:=]* || ${all[-1]} == *[:=] ]] && [[ ${all[-1]} != --* ]]; then
            all[-1]+=$word
        else
            all+=("$word")
        fi
    done
    local current=${all[-1]-}
    unset 'all[-1]'
    _oci_hotplug_verb "$verb"
    for word in "${all[@]}"; do
        if [[ $skip ]]; then
            skip=''
            continue
        fi
        for entry in $wanted; do
            [[ $word == "${entry%%=*}" ]] && skip=${entry#*=}
        done
        [[ $skip || $word == -* ]] && continue
        case "$verb:$word" in
@VERBS@
            *) place=$((place + 1)) ;;
        esac
        _oci_hotplug_verb "$verb"
    done
    COMPREPLY=()
    if [[ $skip ]]; then
        kind=$skip
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
        return
    elif [[ $verbs ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$current")
        return
    else
        set -- $places
        ((place >= $#)) && place=$(($# - 1))
        ((place >= 0)) && shift "$place"
        kind=${1-none}
    fi
    case "$kind" in
        files) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        none) ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$(_oci_hotplug_names "$kind")" -- "$current") ;;
    esac
    # Only what is behind the last separator is bash's current word.
    local cut=${current%"${current##*[:=]}"}
    if [[ $cut ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
}

complete -o filenames -o bashdefault -F _oci_hotplug oci-hotplug
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// What bash offers behind these words, of which the last is begun. A stand-in answers for the
    /// program.
    fn offered(words: &[&str]) -> Vec<String> {
        offered_with(words, "abc123 robot\\ndef456 -")
    }

    /// The same with these containers, each an id and a name, in single quotes of the shell.
    fn offered_with(words: &[&str], containers: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("completion");
        std::fs::write(&path, script(&crate::cli::args::Command::command())).unwrap();
        let words: Vec<String> = words
            .iter()
            .map(|word| crate::model::quoting::shell_quoted(word))
            .collect();
        let line = format!(
            "set -u; source {}\noci-hotplug() {{ case \"$*\" in list) printf 'CONTAINER NAME\\n{containers}\\n';; \
             'class list') printf 'CLASS REQUESTS\\nlab usb:1\\n';; 'cdi list') printf 'DEVICE FILE\\nv.com/c=gpu /x\\n';; esac; }}\n\
             COMP_WORDS=({}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _oci_hotplug; printf '%s\\n' \"${{COMPREPLY[@]-}}\"",
            path.display(),
            words.join(" ")
        );
        let output = std::process::Command::new("bash")
            .args(["--norc", "-c", &line])
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Case newcomer: bash completion works for the first word only.
    #[test]
    fn bash_completes_verbs_options_and_names_at_every_position() {
        let program = "/usr/bin/oci-hotplug";
        for (words, expected) in [
            (&["ins"][..], &["inspect", "install"][..]),
            (&["gen"], &[]),
            (&["--json", "li"], &["list"]),
            (&["--config", "x", "li"], &["list"]),
            (
                &["cdi", ""],
                &["generate", "list", "validate", "remove", "resolve"],
            ),
            (&["cdi", "generate", "--dev"], &["--device"]),
            (&["cdi", "resolve", ""], &["v.com/c=gpu"]),
            (&["cdi", "resolve", "v.com/c", "=", "g"], &["gpu"]),
            (&["cdi", "remove", "v"], &["v.com/c=gpu"]),
            (&["inspect", ""], &["abc123", "robot", "def456"]),
            (&["--json", "inspect", "ro"], &["robot"]),
            (&["explain", "ro"], &["robot"]),
            (&["attach", "a"], &["abc123"]),
            (&["attach", "robot", "class", ":", ""], &["lab"]),
            (&["attach", "robot", "usb:1", "cl"], &["class:lab"]),
            (&["detach", "robot", "--al"], &["--all"]),
            (&["class", "remove", ""], &["lab"]),
            (&["events", "--container", "ro"], &["robot"]),
            (&["events", "--fol"], &["--follow"]),
            (&["check", "--ro"], &[]),
            (&["usbip", "att"], &["attach"]),
            (&["recover", "--re"], &["--restart-watchers"]),
        ] {
            let all: Vec<&str> = std::iter::once(program).chain(words.iter().copied()).collect();
            assert_eq!(offered(&all), expected, "{words:?}");
        }
    }

    /// A container's name can come from an annotation (`model::oci::engine`).
    #[test]
    fn a_name_of_a_container_is_never_run_as_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        let names = format!(
            "abc $(touch${{IFS}}{0})\\ndef `touch${{IFS}}{0}`\\nghi lab/board-0/flash",
            made.display()
        );
        assert_eq!(
            offered_with(&["oci-hotplug", "inspect", ""], &names),
            ["abc", "def", "ghi", "lab/board-0/flash"]
        );
        assert!(!made.exists());
    }
}
