//! What a USB device says of itself: the policy rests on it, and whoever made the device wrote it.

use oci_hotplug::model::usb_classes::UsbClasses;

/// What is understood says the same when it is written and read again, and a hub is a hub whatever follows.
pub fn hold(input: &[u8]) {
    let Some(classes) = UsbClasses::in_descriptors(input) else {
        assert!(input.len() < 18);
        return;
    };
    let text = classes.to_text();
    super::is_no_larger_than(text.len(), input.len());
    assert_eq!(UsbClasses::from_text(&text).as_ref(), Some(&classes), "{text}");
    assert_eq!(classes.is_hub(), input[4] == 9);
    assert!(classes.has_hid() || !classes.is_keyboard_or_mouse());
    if let Ok(text) = std::str::from_utf8(input) {
        UsbClasses::from_text(text);
    }
}
