//! The connection that the kernel takes over.

use std::io::Read;
use std::time::Instant;

use nix::sys::socket::{getsockopt, sockopt};
use oci_hotplug::usbip::client;

use super::usbip_server::Fault;
use super::{LONG, name, one};

#[test]
fn a_connection_for_the_kernel_has_no_timeout_and_nothing_was_read_ahead() {
    let server = one(Fault::None);
    let deadline = Instant::now() + LONG;
    let imported =
        client::import(&name(&server), &"1-1".parse().expect("a bus id"), None, deadline).expect("an import");
    let connection = imported.connection;
    assert_eq!(connection.read_timeout().expect("an option"), None);
    assert_eq!(connection.write_timeout().expect("an option"), None);
    assert!(connection.nodelay().expect("an option"));
    for (option, seconds) in [
        (getsockopt(&connection, sockopt::TcpKeepIdle), 2),
        (getsockopt(&connection, sockopt::TcpUserTimeout), 5000),
    ] {
        assert_eq!(option.expect("an option"), seconds);
    }
    // A request of the kernel for the device descriptor is answered from its first byte on.
    let mut request = [0; 48];
    request[3] = 1;
    request[7] = 1;
    request[15] = 1;
    request[27] = 18;
    request[40..].copy_from_slice(&[0x80, 6, 0, 1, 0, 0, 18, 0]);
    std::io::Write::write_all(&mut &connection, &request).expect("a request");
    connection.set_read_timeout(Some(LONG)).expect("an option");
    let mut reply = [0; 48 + 18];
    (&connection).read_exact(&mut reply).expect("a reply");
    assert_eq!((reply[3], reply[48], reply[49]), (3, 18, 1));
    drop(connection);
    server.wait_until_all_are_free();
    assert_eq!(server.accepted(), 1);
}
