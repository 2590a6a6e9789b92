//! A port on which nobody listens until a test says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

/// A port of 127.0.0.1 for this test alone: the kernel gives it to no process that binds port 0. It
/// is bound and does not listen, so that connections are refused; and it has SO_REUSEADDR, so that
/// a server that has it, too, may listen there.
pub struct Port {
    _socket: OwnedFd,
    pub address: SocketAddr,
}

impl Port {
    pub fn reserve() -> Self {
        let stream = SockType::Stream;
        let socket =
            socket(AddressFamily::Inet, stream, SockFlag::SOCK_CLOEXEC, None).expect("make a socket");
        setsockopt(&socket, sockopt::ReuseAddr, &true).expect("let a server use the port, too");
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind a port");
        let address = getsockname::<SockaddrIn>(socket.as_raw_fd()).expect("look at the port's number");
        Self {
            _socket: socket,
            address: (Ipv4Addr::LOCALHOST, address.port()).into(),
        }
    }
}
