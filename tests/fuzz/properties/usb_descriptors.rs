//! What a device says of itself, in USB descriptors, HID report descriptors and key bitmaps: the
//! policy rests on it, and the maker of the device wrote it.

use oci_hotplug::model::device::hid_usages::HidUsages;
use oci_hotplug::model::device::input_capabilities::InputCapabilities;
use oci_hotplug::model::device::usb_classes::UsbClasses;
use oci_hotplug::model::device::usb_hub;

/// What is understood says the same when it is written and read again, and a hub is a hub whatever
/// follows.
pub fn hold(input: &[u8]) {
    if let Some(id) = usb_hub::container_id(input) {
        assert!(id != [0; 16] && input.windows(16).any(|bytes| bytes == id));
    }
    let usages = HidUsages::in_report_descriptor(input);
    let text = usages.to_text();
    super::is_no_larger_than(text.len(), input.len());
    assert_eq!(HidUsages::from_text(&text), usages, "{text}");
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = HidUsages::from_text(text);
        if let Some(found) = InputCapabilities::in_bitmaps(text, text) {
            assert_eq!(InputCapabilities::from_text(&found.to_text()), found);
        }
    }
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
