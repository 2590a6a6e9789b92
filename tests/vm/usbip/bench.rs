//! How much time a remote device takes: `tests/run.sh --bench` runs this, and tests/bench/README.md
//! has its tables.
//!
//! All variants use the same far host, link and kernel, and take turns: only the ratio within one
//! run counts.

use std::fmt::Write;

use super::bed::{Allowed, BREAKS, FAR, Far, Remote, asking_for, nothing_is_left};
use crate::machine::{Machine, machine};
use crate::usbip_server::{Adapter, Fault, UsbipServer};

/// Round-trip times in milliseconds.
const LINKS: [u32; 4] = [0, 50, 200, 400];
const ROUNDS: usize = 3;

/// Seconds from the start of a shell command in the machine until a condition holds there, checked
/// every 10 ms, which is also the resolution of the clock.
fn timed(machine: &Machine, command: &str, condition: &str) -> f64 {
    let words = machine.run(&format!(
        "read from rest < /proc/uptime; ({command}) > /dev/null 2>&1 & \
         end=$(($(date +%s) + 60)); until {condition}; do test $(date +%s) -lt $end || exit 1; sleep 0.01; done 2> /dev/null; \
         read to rest < /proc/uptime; wait; echo $from $to"
    ));
    let (from, to) = words.split_once(' ').expect("two times");
    to.parse::<f64>().expect("seconds") - from.parse::<f64>().expect("seconds")
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --bench"]
fn the_times_to_attach_a_remote_device_and_to_attach_it_again_are_measured() {
    let vm = machine();
    let (adapter, far) = Far::with_adapter(&vm);
    let _allowed = Allowed::server(&vm, FAR);
    let container = asking_for(&vm, "usb:ffff:ffff");
    let inside = format!(
        "/proc/{}/root/dev/far",
        vm.run(&format!(
            "podman inspect --format '{{{{.State.Pid}}}}' {}",
            container.id
        ))
    );
    let request = format!("usbip:{FAR}/busid:{}", far.busid);
    let asks = format!("{} '{request};link=/dev/far'", container.id);
    let is_free = format!(
        "! test -e /dev/ttyUSB0 && ! test -e {inside} && oci-hotplug usbip list {FAR} | grep {}",
        far.busid
    );

    let mut table = String::from(
        "\n| there and back | `usbip attach` → node | `oci-hotplug usbip attach` → node | ratio | request → node inside | ratio |\n\
         |---|---|---|---|---|---|\n",
    );
    for link in LINKS {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let variants = [
                (
                    format!("usbip attach -r {FAR} -b {}", far.busid),
                    "test -e /dev/ttyUSB0",
                    "usbip detach -p 0".to_owned(),
                ),
                (
                    format!("oci-hotplug usbip attach {FAR}/busid:{}", far.busid),
                    "test -e /dev/ttyUSB0",
                    "oci-hotplug usbip detach 0".to_owned(),
                ),
                (
                    format!("oci-hotplug attach {asks}"),
                    &*format!("test -e {inside}"),
                    format!("oci-hotplug detach {asks}"),
                ),
            ];
            for (times, (attach, is_there, detach)) in times.iter_mut().zip(variants) {
                far.link(&format!("delay {}us", link * 500));
                times.push(timed(&vm, &attach, is_there));
                far.link("delay 0ms");
                vm.wait_until(&detach);
                vm.wait_until(&is_free);
            }
        }
        let [theirs, by_hand, inside] = times.map(median);
        let _ = writeln!(
            table,
            "| {link} ms | {theirs:.2} s | {by_hand:.2} s | {:.2} | {inside:.2} s | {:.2} |",
            by_hand / theirs,
            inside / theirs
        );
    }

    let _ = write!(
        table,
        "\n| what breaks | the container has lost it | and has it again after the end of it |\n|---|---|---|\n"
    );
    let (is_there, is_gone) = (format!("test -e {inside}"), format!("! test -e {inside}"));
    vm.run(&format!("oci-hotplug attach {asks}"));
    vm.wait_until(&is_there);
    for (what, break_it, mend_it) in BREAKS {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let with_busid = |command: &str| format!("busid={}; {command}", far.busid);
            times[0].push(timed(&vm, &with_busid(break_it), &is_gone));
            times[1].push(timed(&vm, &with_busid(mend_it), &is_there));
        }
        let [gone, back] = times.map(median);
        let _ = writeln!(table, "| {what} | {gone:.2} s | {back:.2} s |");
    }
    drop(container);
    drop(far);
    drop(adapter);
    a_server_of_our_own(&vm, &mut table);
    nothing_is_left(&vm);
    println!("{table}");
}

/// Only our own server can count the round trips. It is outside of the machine: a call to it takes
/// longer.
fn a_server_of_our_own(vm: &Machine, table: &mut String) {
    let adapters = vec![Adapter::new("1-1", "RS001")];
    let Remote { server, address } = Remote::start(vm, adapters.clone(), Fault::None);
    let _allowed = Allowed::server(vm, &address);
    let container = asking_for(vm, &format!("usbip:{address}/0403:6001;link=/dev/far"));
    let pid = vm.run(&format!(
        "podman inspect --format '{{{{.State.Pid}}}}' {}",
        container.id
    ));
    let (is_there, is_gone) = (
        format!("test -e /proc/{pid}/root/dev/far"),
        format!("! test -e /proc/{pid}/root/dev/far"),
    );
    vm.wait_until(&is_there);
    let host = server.address;
    let (mut server, mut times) = (Some(server), [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        drop(server.take());
        times[0].push(timed(vm, "true", &is_gone));
        server = Some(UsbipServer::start_at(host, adapters.clone(), Fault::None));
        times[1].push(timed(vm, "true", &is_there));
    }
    let [gone, back] = times.map(median);
    let _ = writeln!(
        table,
        "| the server is killed, and started again | {gone:.2} s | {back:.2} s |"
    );

    let (server, mut times) = (server.expect("the last one"), [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        server.hang(true);
        container.run("cat /dev/far > /dev/null 2>&1 & sleep 0.5; kill -9 $!");
        times[0].push(timed(vm, "true", &is_gone));
        server.hang(false);
        times[1].push(timed(vm, "true", &is_there));
    }
    let [gone, back] = times.map(median);
    let _ = writeln!(
        table,
        "| the server hangs, and a process of the container with it | {gone:.2} s | {back:.2} s |"
    );
    drop(container);
    server.wait_until_all_are_free();
}
