//! The shortest test of a whole cluster (cluster.rs): a pod waits for its adapter, uses it, and
//! keeps running without it.

use crate::cluster::Cluster;
use crate::machine::machine;
use crate::story::nothing_is_left;
use crate::usb::UsbSerial;

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_pending_pod_starts_when_its_adapter_is_plugged_in_and_an_event_reports_that_it_was_unplugged() {
    const ADAPTER: &str = "example.com/adapter";
    let vm = machine();
    let cluster = Cluster::start(&vm);
    cluster.installs_the_plugin();
    let watcher = "/usr/libexec/oci/hooks.d/oci-hotplug-watcher";
    assert_eq!(cluster.check_says(watcher), format!("ok: {watcher}"));
    vm.run(&format!("mv {watcher} {watcher}.away"));
    let missing = cluster.check_says(watcher);
    vm.run(&format!("mv {watcher}.away {watcher}"));
    assert!(missing.starts_with(&format!("missing: {watcher} (")), "{missing}");
    cluster.offers(ADAPTER, 0);
    cluster.wants_pod("first", "example.com/adapter: 1");
    cluster.has_no_place_for("first", ADAPTER);
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1",
    });
    let pod = cluster.runs("first");
    pod.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    pod.loses("/dev/ttyUSB0");
    cluster.offers(ADAPTER, 0);
    pod.still_runs();
    cluster.tells_of("first", "DeviceVanished", ADAPTER);
    drop(pod);
    nothing_is_left(&vm);
}
