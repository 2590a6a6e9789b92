//! The bundle in a runtime's command line.

use std::path::PathBuf;

use super::container_id::ContainerId;

/// The bundle in the command line of a runtime (`/proc/PID/cmdline`, proc_pid_cmdline(5)): the
/// value of `--bundle` or `-b`, if it is absolute. `None` if the container's id is not among the
/// arguments: the command is then about another container.
pub fn bundle_argument(cmdline: &[u8], id: &ContainerId) -> Option<PathBuf> {
    let words: Vec<&str> = cmdline
        .split(|byte| *byte == 0)
        .filter_map(|word| std::str::from_utf8(word).ok())
        .collect();
    if !words.contains(&id.as_str()) {
        return None;
    }
    let after = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    let joined = || words.iter().find_map(|word| word.strip_prefix("--bundle="));
    let bundle = after("--bundle").or_else(joined).or_else(|| after("-b"))?;
    bundle.starts_with('/').then(|| PathBuf::from(bundle))
}
