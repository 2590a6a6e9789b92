//! What holds for whatever text or bytes somebody hands us, one file for each reader. The fuzz
//! targets look for an input for which it does not hold; tests/corpus.rs asks the same of the
//! inputs that they found interesting. A property fails by panicking. Must not know where the input
//! comes from.

mod bundle_config;
mod cdi;
#[cfg(feature = "kubernetes")]
mod cluster_responses;
mod configuration;
mod devices;
mod engine_files;
mod filter_program;
mod hook_state;
mod journal;
#[cfg(feature = "kubernetes")]
mod plugin_configuration;
mod records;
mod requests;
mod symlinks;
mod udev_database;
mod uevents;
mod usb_descriptors;
mod usbip_replies;

/// What must hold for an input of one reader; it panics where it does not.
pub type Property = fn(&[u8]);

/// The readers by the name of their fuzz target and of their directory in tests/corpus.
pub const ALL: &[(&str, Property)] = &[
    ("bundle_config", bundle_config::hold),
    ("cdi", cdi::hold),
    #[cfg(feature = "kubernetes")]
    ("cluster_responses", cluster_responses::hold),
    ("configuration", configuration::hold),
    ("engine_files", engine_files::hold),
    ("filter_program", filter_program::hold),
    ("hook_state", hook_state::hold),
    ("journal", journal::hold),
    #[cfg(feature = "kubernetes")]
    ("plugin_configuration", plugin_configuration::hold),
    ("records", records::hold),
    ("requests", requests::hold),
    ("symlinks", symlinks::hold),
    ("udev_database", udev_database::hold),
    ("uevents", uevents::hold),
    ("usb_descriptors", usb_descriptors::hold),
    ("usbip_replies", usbip_replies::hold),
];

/// What holds for an input of the reader of this name.
#[allow(dead_code, reason = "tests/corpus.rs goes through all of them")]
pub fn hold(name: &str, input: &[u8]) {
    let found = ALL.iter().find(|(known, _)| *known == name);
    found.expect("a reader that there is").1(input);
}

/// The most characters of a message about a text that an untrusted user wrote.
const MAX_MESSAGE: usize = 1000;

/// A message about untrusted text is short, and has nothing in it that could forge a line of a log
/// or move a cursor.
#[track_caller]
fn is_fit_for_a_log(error: &impl std::fmt::Display) {
    let message = error.to_string();
    let length = message.chars().count();
    assert!(
        length > 0 && length <= MAX_MESSAGE,
        "{length} characters: {message:?}"
    );
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

/// What is kept of an input takes no more room than a few times the input.
#[track_caller]
fn is_no_larger_than(kept: usize, input: usize) {
    assert!(kept <= 8 * input + 1024, "{kept} bytes are kept of {input}");
}
