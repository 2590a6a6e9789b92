//! What is said of a text that is no selector.
//!
//! Must not know how that was found out (`grammar`, `pattern`, `path`).

use super::PathFault;
use crate::model::remote::address::AddressError;

/// The most `parent-of:` a request may have. No device of the kernel's is nested deeper.
pub const MAX_PARENTS: usize = 16;

/// The most terms of one selector.
pub const MAX_TERMS: usize = 32;

/// The kinds of selectors, as the list in a message has them.
pub(super) const KINDS: [&str; 14] = [
    "usb",
    "devnode",
    "syspath",
    "glob",
    "regex",
    "subsystem",
    "driver",
    "tag",
    "property",
    "attr",
    "port",
    "pci",
    "node",
    "usbip",
];

/// What is wrong with a selector, and the hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing where a selector belongs.
    #[error("no device is named: write KIND:VALUE, such as usb:0403:6001")]
    Empty,
    /// `a&`, `a&&b`, `&a`, or `!` alone.
    #[error("a selector is missing beside \"&\" or \"!\": write KIND:VALUE there, such as driver:ftdi_sio")]
    EmptyTerm,
    /// A text without a colon.
    #[error("\"{word}\" has no kind: write KIND:VALUE, such as usb:0403:6001")]
    NoKind {
        /// The text, shortened.
        word: String,
    },
    /// A path by itself, as other tools take it.
    #[error(
        "a path needs its kind: devnode:/dev/... for a device node, syspath:/sys/... for a place in sysfs"
    )]
    BarePath,
    /// `0403:6001`, as lsusb(8) shows it.
    #[error("USB ids need their kind: write usb:{ids}")]
    BareUsbIds {
        /// The text, shortened.
        ids: String,
    },
    /// A kind that does not exist.
    #[error("unknown selector \"{kind}\"{hint}; known are {known}", hint = did_you_mean(.near), known = KINDS.join(", "))]
    UnknownKind {
        /// The kind, shortened.
        kind: String,
        /// The known one that looks like it.
        near: Option<&'static str>,
    },
    /// `class:` where it can't stand.
    #[error("class: must stand alone as a request, without parent-of:, \"&\", only= and or=")]
    Class,
    /// `usbip:` where it can't stand.
    #[error("usbip: must stand alone, without parent-of:, \"&\", only= and or=")]
    Usbip,
    /// Not a remote device.
    #[error("usbip: {0}")]
    Remote(#[from] AddressError),
    /// `parent-of:` behind an `&`.
    #[error("parent-of: must be at the beginning of the request: it applies to all that follows")]
    LateParent,
    /// More of them than a device can have.
    #[error("parent-of: is repeated more than {MAX_PARENTS} times: no device has so many parents")]
    TooManyParents,
    /// Too many `&`.
    #[error("more than {MAX_TERMS} selectors are joined by \"&\": the first few should name the device")]
    TooManyTerms,
    /// `!` at the beginning.
    #[error("the first selector must not have a \"!\": first select devices, then exclude some with \"&!\"")]
    NegatedFirst,
    /// A character with a meaning of its own where it has none.
    #[error("\"{found}\" is not allowed here: write \"\\{found}\" where it is part of the value")]
    Separator {
        /// The character.
        found: char,
    },
    /// What no name of a device has, and no log is to hold.
    #[error("a value must not have control characters")]
    Control,
    /// `\` at the end.
    #[error("nothing follows the last \"\\\": write \"\\\\\" for a backslash")]
    Dangling,
    /// `\` before a character that has a meaning in a pattern.
    #[error(
        "\"\\{letter}\" in a regex is read as \"{letter}\": write \"\\\\{letter}\" for the regex's own backslash"
    )]
    RegexEscape {
        /// The character behind the backslash, made visible.
        letter: String,
    },
    /// The same in a glob, which knows no backslash.
    #[error(
        "\"\\{letter}\" in a glob is read as \"{letter}\": write \"[{letter}]\" for the character itself"
    )]
    GlobEscape {
        /// The character behind the backslash, made visible.
        letter: String,
    },
    /// udev's own escapes in names of links.
    #[error("\"\\x\" in a path is read as \"x\": write \"\\\\x\" for the backslash in a link's name")]
    LinkEscape,
    /// Not an id.
    #[error("{which} id must be 4 hex digits, such as {example}")]
    UsbId {
        /// `vendor` or `product`.
        which: &'static str,
        /// One that is right.
        example: &'static str,
    },
    /// Nothing behind a colon.
    #[error("{what} is empty: write one, such as {example}, or leave the colon out")]
    EmptySerial {
        /// `serial number`.
        what: &'static str,
        /// A request that is right.
        example: &'static str,
    },
    /// A kind without a value.
    #[error("{kind}: is empty: write a value, such as {example}")]
    EmptyValue {
        /// The kind.
        kind: &'static str,
        /// A selector that is right.
        example: &'static str,
    },
    /// Not a path that may be named.
    #[error("{kind} path {fault}")]
    Path {
        /// The kind.
        kind: &'static str,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// No `=`.
    #[error("{kind}: must be {form}, such as {example}")]
    NoPattern {
        /// The kind.
        kind: &'static str,
        /// `KEY=GLOB` or `NAME=GLOB`.
        form: &'static str,
        /// A selector that is right.
        example: &'static str,
    },
    /// A property's key with a `=` in it.
    #[error("a property's key must not have a \"=\"")]
    KeyWithEquals,
    /// An attribute elsewhere than in the device's own directory.
    #[error(
        "an attribute must be a file in the device's own directory, such as idVendor or power/control, without \
         \".\" and \"..\""
    )]
    AttributeName,
    /// Not a USB port.
    #[error("port must be BUS-PORT[.PORT...], such as 1-1.4, or a root hub, such as usb1")]
    Port,
    /// Not a PCI address.
    #[error("pci address must be [DOMAIN:]BUS:DEVICE.FUNCTION in hex, such as 0000:02:00.0")]
    Pci,
    /// A pattern that is too long.
    #[error("{kind} has {length} characters: at most {limit} are allowed")]
    PatternTooLong {
        /// `glob` or `regex`.
        kind: &'static str,
        /// Its length in characters.
        length: usize,
        /// The limit in characters.
        limit: usize,
    },
    /// Not a glob.
    #[error("glob cannot be read at character {position}: {reason}")]
    Glob {
        /// Counted from 1.
        position: usize,
        /// The reason of the glob engine.
        reason: &'static str,
    },
    /// A glob that no node's path can match.
    #[error(
        "glob is matched against device nodes, which are below /dev: begin it with /dev/ or without a \"/\""
    )]
    GlobOutsideDev,
    /// Not a regular expression.
    #[error("regex cannot be compiled: {reason}")]
    Regex {
        /// The reason of the regex engine.
        reason: String,
    },
    /// A selector that the lowRISC annotations do not have.
    #[error(
        "unknown device \"{kind}\": this annotation has usb:, syspath: and devnode:, each with parent-of:; \
         use io.oci-hotplug.devices for all others"
    )]
    LowriscKind {
        /// What stands there, shortened.
        kind: String,
    },
    /// A serial number that the lowRISC annotations cannot name.
    #[error(
        "serial number must be letters and digits in this annotation; any other can be named in \
         io.oci-hotplug.devices"
    )]
    LowriscSerial,
}

/// As [`did_you_mean`], where the names are not ours.
pub(in crate::model) fn did_you_mean_owned(near: &Option<String>) -> String {
    near.as_ref()
        .map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

/// The `(did you mean …?)` of a message.
pub(in crate::model) fn did_you_mean(near: &Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}
