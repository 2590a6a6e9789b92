//! The annotation of container-hotplug.

use super::*;

#[test]
fn container_hotplugs_annotation_keeps_its_meaning() {
    for (text, ours) in [
        ("usb:0403", "usb:0403;mode=0644"),
        ("usb:ABCD:6001:FT001a", "usb:abcd:6001:FT001a;mode=0644"),
        (
            "parent-of:parent-of:devnode:/dev/ttyUSB0",
            "parent-of:parent-of:devnode:/dev/ttyUSB0;mode=0644",
        ),
        (r"devnode:/dev/a;b&c\d ", r"devnode:/dev/a\;b\&c\\d\ ;mode=0644"),
        ("devnode:/dev/./snd//../ttyS0", "devnode:/dev/ttyS0;mode=0644"),
        (
            "syspath:/sys/class/tty/ttyS0/device/..",
            "syspath:/sys/class/tty/ttyS0/device/..;mode=0644",
        ),
        ("syspath:/sys/devices/x/", "syspath:/sys/devices/x;mode=0644"),
    ] {
        let requests = parse_lowrisc_devices(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(requests, [request(ours)]);
        assert_eq!(requests[0].to_string(), ours);
    }
    assert_eq!(parse_lowrisc_devices("usb:0403,usb:0404").unwrap().len(), 2);
}

#[test]
fn every_error_in_container_hotplugs_annotation_has_its_message() {
    let kind = |kind: &str| {
        format!(
            "unknown device \"{kind}\": this annotation has usb:, syspath: and devnode:, each with parent-of:; \
             use io.oci-hotplug.devices for all others"
        )
    };
    let serial = "serial number must be letters and digits in this annotation; any other can be named in \
                  io.oci-hotplug.devices"
        .to_owned();
    let below_dev = "devnode path must be absolute and below /dev, such as /dev/ttyUSB0".to_owned();
    for (text, message) in [
        (" usb:0403", kind(" usb")),
        ("glob:tty*", kind("glob")),
        ("ttyUSB0", kind("ttyUSB0")),
        (
            "usb:0403 ",
            "vendor id must be 4 hex digits, such as 0403".to_owned(),
        ),
        (
            "usb:0403:6001;mode=0600",
            "product id must be 4 hex digits, such as 6001".to_owned(),
        ),
        ("usb:0403:6001:", serial.clone()),
        ("usb:0403:6001:A-1", serial.clone()),
        ("usb:0403:6001:A:1", serial),
        ("devnode:ttyUSB0", below_dev.clone()),
        ("devnode:/dev/../etc/x", below_dev),
        ("devnode:/dev/x/", "devnode path must not end in \"/\"".to_owned()),
        (
            "syspath:/proc",
            "syspath path must be absolute and below /sys, such as /sys/bus/usb/devices/1-1.4".to_owned(),
        ),
    ] {
        let error = parse_lowrisc_devices(&format!("usb:0403,{text}")).expect_err(text);
        assert_eq!(error.to_string(), format!("device request \"{text}\": {message}"));
    }
    let error = parse_lowrisc_devices("usb:0403,").unwrap_err().to_string();
    assert_eq!(error, "device request 2 of 2 is empty: remove the extra \",\"");
    assert_eq!(parse_lowrisc_devices(""), Err(RequestError::Empty));
}
