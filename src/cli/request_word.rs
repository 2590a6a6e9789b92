//! Words of the command line that stand for requests.

/// The request that a word stands for: a path below /dev is short for `devnode:PATH`, every other
/// word is the request itself.
pub(super) fn request_text(word: &str) -> String {
    if word.starts_with("/dev/") {
        format!("devnode:{word}")
    } else {
        word.to_owned()
    }
}
