//! A watcher's notes, as a journal (attached.jsonl).

use oci_hotplug::host::state::journal::{Journaled, line_of, parse};
use oci_hotplug::host::state::notes::Notes;

use super::is_no_larger_than;

/// A journal that is read means the same as the complete state that it leads to, each of its
/// beginnings is a state or an error, and a change between two of these leads from one to the
/// other.
pub fn hold(input: &[u8]) {
    let Ok(state) = parse::<Notes>(input) else {
        return;
    };
    let line = line_of(&state).expect("it came from JSON");
    is_no_larger_than(line.len(), input.len());
    let again = parse::<Notes>(&line).expect("what we write we can read");
    assert_eq!(state, again);
    let line_ends = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut before: Option<Notes> = None;
    for (end, _) in line_ends {
        let now = parse::<Notes>(&input[..=end]).expect("a beginning of what can be read");
        let torn = parse::<Notes>(&input[..end]).expect("a line without its end");
        if let Some(mut before) = before.replace(now.clone()) {
            assert_eq!(torn, before, "an incomplete line counts");
            if now.root_file_system.is_some() {
                if let Some(change) = now.change_since(&before) {
                    before.apply(change);
                }
                assert_eq!(before, now);
            }
        }
    }
}
