//! What happens in most tests, whatever the engine.

use crate::container::Container;
use crate::machine::Machine;
use crate::usb::UsbSerial;

/// An adapter that a running container asked for is plugged in, used from both ends, and pulled out.
pub fn an_adapter_comes_and_goes(machine: &Machine, container: &Container) {
    let adapter = machine.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.makes_its_own_node("/run/mine", "/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    container.is_refused("/run/mine");
}

/// No watcher, record or lock is left of any container.
pub fn nothing_is_left(machine: &Machine) {
    machine.wait_until("! pgrep -f '[o]ci-hotplug-watcher' && test -z \"$(ls /run/oci-hotplug/containers)\"");
}
