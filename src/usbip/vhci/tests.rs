use super::*;
use crate::model::any_text::any_text;
use proptest::prelude::*;

/// As shown by kernel 6.12 of Debian 13: an FTDI adapter, a device that is starting, a
/// SuperSpeed disk; and a controller that is not ready, according to that kernel's source.
const STATUS: &str = "hub port sta spd dev      sockfd local_busid\n\
    hs  0000 006 002 00010002 000003 3-1\n\
    hs  0008 005 000 00000000 000000 0-0\n\
    ss  0015 006 005 00020002 000003 4-1\n\
    hs  0030 005 000 00000000 0000000000000000 0-0\n\
    ss  0047 004 000 00000000 000000 0-0\n";
/// Before 4.13.
const OLD: &str = "port sta spd bus dev socket local_busid\n000 004 000 000 000 0000000000000000 0-0\n";

#[test]
fn ports_are_parsed_as_decimals_and_devices_as_hex() {
    let slots = parse_status(STATUS).unwrap();
    assert_eq!(slots.len(), 5);
    assert_eq!(
        slots[1],
        Slot {
            port: 8,
            is_super: false,
            state: State::Starting,
            speed: 0,
            devid: 0
        }
    );
    assert_eq!(
        (slots[2].port, slots[2].is_super, slots[4].state),
        (15, true, State::Free)
    );
    assert_eq!(slots[3].state, State::NotReady);
    assert!(!parse_status(OLD).unwrap()[0].is_super);
}

#[test]
fn a_status_line_of_an_unknown_form_is_returned() {
    assert_eq!(parse_status("a b\n").unwrap_err(), "a b");
    let error = parse_status("hub port sta\nxs 1 4 0 0\n").unwrap_err();
    assert_eq!(error, "xs 1 4 0 0");
    assert_eq!(
        parse_status("hub port\nhs  0001 009 000 0 0 0-0\n").unwrap_err(),
        "hs  0001 009 000 0 0 0-0"
    );
}

#[test]
fn the_message_for_a_kernel_without_the_module_says_how_to_load_it() {
    let error = Vhci::open_below(Path::new("/nowhere")).unwrap_err().to_string();
    assert_eq!(
        error,
        "this kernel has no virtual USB host controller (/nowhere/vhci_hcd.0 is missing): load its module with \
         `modprobe vhci-hcd`, and at each boot with a line \"vhci-hcd\" in /etc/modules-load.d/usbip.conf"
    );
}

/// Observed on Debian 13: port 0 at usb3/3-1, port 15 at vhci_hcd.0/usb4/4-1, port 35 at
/// vhci_hcd.1/usb5/5-6.
#[test]
fn a_port_is_found_where_the_kernel_puts_it() {
    let vhci = Vhci {
        platform: "/p".into(),
        hub_ports: 15,
        controllers: 8,
        hubs: Vec::new(),
    };
    for (port, controller, is_super, hub_port) in [
        (0, 0, false, 0),
        (15, 0, true, 0),
        (35, 1, false, 5),
        (239, 7, true, 14),
    ] {
        assert_eq!(
            vhci.place(port),
            Place {
                controller,
                is_super,
                hub_port
            }
        );
    }
}

proptest! {
    #[test]
    fn any_status_is_parsed_or_refused(text in any_text(), lines in "(hub port\n)([hs]{2} [0-9]{1,5} 00[0-9] [0-9]{3} [0-9a-f]{1,9} 0\n){0,3}") {
        let _ = parse_status(&text);
        if let Ok(slots) = parse_status(&lines) {
            prop_assert_eq!(slots.len(), lines.lines().count() - 1);
        }
    }
}
