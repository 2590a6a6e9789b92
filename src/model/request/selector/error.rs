//! Errors in selectors, with hints.
//!
//! Must not know how an error was found (`grammar`, `pattern`, `path`).

use super::PathFault;
use crate::model::remote::address::AddressError;

/// The most `parent-of:` in a request. No device of the kernel is nested deeper.
pub const MAX_PARENTS: usize = 16;

/// The most terms of one selector.
pub const MAX_TERMS: usize = 32;

/// The kinds of selectors, in the order of the message.
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

/// The error in a selector, with its hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("no device is named: write KIND:VALUE, such as usb:0403:6001")]
    Empty,
    /// `a&`, `a&&b`, `&a`, or `!` alone.
    #[error("a selector is missing beside \"&\" or \"!\": write KIND:VALUE there, such as driver:ftdi_sio")]
    EmptyTerm,
    #[error("\"{word}\" has no kind: write KIND:VALUE, such as usb:0403:6001")]
    NoKind {
        /// The text, shortened.
        word: String,
    },
    /// A path without a kind, as other tools accept it.
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
    #[error("unknown selector \"{kind}\"{hint}; known are {known}", hint = did_you_mean(.near), known = KINDS.join(", "))]
    UnknownKind {
        /// The kind, shortened.
        kind: String,
        /// The known kind that is most similar.
        near: Option<&'static str>,
    },
    /// `class:` where it is not allowed.
    #[error("class: must stand alone as a request, without parent-of:, \"&\", only= and or=")]
    Class,
    /// `usbip:` where it is not allowed.
    #[error("usbip: must stand alone, without parent-of:, \"&\", only= and or=")]
    Usbip,
    #[error("usbip: {0}")]
    Remote(#[from] AddressError),
    /// `parent-of:` after an `&`.
    #[error("parent-of: must be at the beginning of the request: it applies to all that follows")]
    LateParent,
    #[error("parent-of: is repeated more than {MAX_PARENTS} times: no device has so many parents")]
    TooManyParents,
    #[error("more than {MAX_TERMS} selectors are joined by \"&\": the first few should name the device")]
    TooManyTerms,
    #[error("the first selector must not have a \"!\": first select devices, then exclude some with \"&!\"")]
    NegatedFirst,
    /// A separator of the grammar inside a value.
    #[error("\"{found}\" is not allowed here: write \"\\{found}\" where it is part of the value")]
    Separator { found: char },
    /// Control characters are in no device's name, and must not reach a log.
    #[error("a value must not have control characters")]
    Control,
    /// `\` at the end.
    #[error("nothing follows the last \"\\\": write \"\\\\\" for a backslash")]
    Dangling,
    /// `\` before a character with a special meaning in a regular expression.
    #[error(
        "\"\\{letter}\" in a regex is read as \"{letter}\": write \"\\\\{letter}\" for the regex's own backslash"
    )]
    RegexEscape {
        /// The character after the backslash, escaped for display.
        letter: String,
    },
    /// The same in a glob, whose grammar has no backslash.
    #[error(
        "\"\\{letter}\" in a glob is read as \"{letter}\": write \"[{letter}]\" for the character itself"
    )]
    GlobEscape {
        /// The character after the backslash, escaped for display.
        letter: String,
    },
    /// udev's escapes in the names of links.
    #[error("\"\\x\" in a path is read as \"x\": write \"\\\\x\" for the backslash in a link's name")]
    LinkEscape,
    #[error("{which} id must be 4 hex digits, such as {example}")]
    UsbId {
        /// `vendor` or `product`.
        which: &'static str,
        /// A valid id.
        example: &'static str,
    },
    /// Nothing follows the last colon.
    #[error("{what} is empty: write one, such as {example}, or leave the colon out")]
    EmptySerial {
        /// `serial number`.
        what: &'static str,
        /// A valid request.
        example: &'static str,
    },
    #[error("{kind}: is empty: write a value, such as {example}")]
    EmptyValue {
        kind: &'static str,
        /// A valid selector.
        example: &'static str,
    },
    #[error("{kind} path {fault}")]
    Path { kind: &'static str, fault: PathFault },
    #[error("{kind}: must be {form}, such as {example}")]
    NoPattern {
        kind: &'static str,
        /// `KEY=GLOB` or `NAME=GLOB`.
        form: &'static str,
        /// A valid selector.
        example: &'static str,
    },
    /// A property's key with a `=` in it.
    #[error("a property's key must not have a \"=\"")]
    KeyWithEquals,
    /// The name leads outside the device's own directory.
    #[error(
        "an attribute must be a file in the device's own directory, such as idVendor or power/control, without \
         \".\" and \"..\""
    )]
    AttributeName,
    #[error("port must be BUS-PORT[.PORT...], such as 1-1.4, or a root hub, such as usb1")]
    Port,
    #[error("pci address must be [DOMAIN:]BUS:DEVICE.FUNCTION in hex, such as 0000:02:00.0")]
    Pci,
    #[error("{kind} has {length} characters: at most {limit} are allowed")]
    PatternTooLong {
        /// `glob` or `regex`.
        kind: &'static str,
        /// In characters.
        length: usize,
        /// In characters.
        limit: usize,
    },
    #[error("glob cannot be read at character {position}: {reason}")]
    Glob {
        /// Counted from 1.
        position: usize,
        /// The message of the glob engine.
        reason: &'static str,
    },
    /// A glob that cannot match the path of a node.
    #[error(
        "glob is matched against device nodes, which are below /dev: begin it with /dev/ or without a \"/\""
    )]
    GlobOutsideDev,
    #[error("regex cannot be compiled: {reason}")]
    Regex {
        /// The message of the regex engine.
        reason: String,
    },
    /// A kind that the lowRISC annotations do not have.
    #[error(
        "unknown device \"{kind}\": this annotation has usb:, syspath: and devnode:, each with parent-of:; \
         use io.oci-hotplug.devices for all others"
    )]
    LowriscKind {
        /// The kind, shortened.
        kind: String,
    },
    /// A serial number that the grammar of the lowRISC annotations cannot express.
    #[error(
        "serial number must be letters and digits in this annotation; any other can be named in \
         io.oci-hotplug.devices"
    )]
    LowriscSerial,
}

/// The same as [`did_you_mean`] for names from the configuration.
pub(in crate::model) fn did_you_mean_owned(near: &Option<String>) -> String {
    near.as_ref()
        .map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

/// The `(did you mean …?)` of a message.
pub(in crate::model) fn did_you_mean(near: &Option<&'static str>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}
