//! A connection to a USB/IP server: connects, sends a request, and prepares the socket for the
//! kernel.
//!
//! All waits within one call share one deadline. Must not know this host's kernel (`vhci`).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use super::protocol::{self, Exported, Refusal, ReplyError};
use crate::model::remote::address::{BusId, Server};

/// How long the peer may be silent before TCP sends a keepalive probe, in seconds.
const KEEPALIVE_IDLE: u32 = 2;
/// The interval of keepalive probes, in seconds.
const KEEPALIVE_INTERVAL: u32 = 1;
/// The number of unanswered probes that end the connection.
const KEEPALIVE_COUNT: u32 = 3;
/// How long sent data may stay unacknowledged before the connection ends, in milliseconds.
const USER_TIMEOUT: u32 = 5000;

/// The timeout of connecting. TCP repeats a lost packet after 1, 2, 4 s and so on, so a new attempt
/// succeeds sooner once the network works again.
const CONNECT: Duration = Duration::from_secs(7);
/// The timeout of connecting from the local port of the previous connection.
const CONNECT_FROM: Duration = Duration::from_secs(3);

/// Why a request to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's name has no address.
    #[error("usbip server {server}: its name cannot be resolved: {source}")]
    Resolve { server: Server, source: io::Error },
    /// No process listens at the port.
    #[error(
        "usbip server {server}: connection refused: nothing listens there (start usbipd on that host, or name its port: HOST:PORT)"
    )]
    ConnectionRefused { server: Server },
    #[error("usbip server {server}: not reachable: {source}")]
    Unreachable { server: Server, source: io::Error },
    /// The deadline has passed.
    #[error(
        "usbip server {server}: no answer in time while {doing} (it is down, hangs, or a firewall drops what is sent there)"
    )]
    TimedOut {
        server: Server,
        /// The operation, as a gerund.
        doing: &'static str,
    },
    #[error("usbip server {server}: it closed the connection while {doing}")]
    Closed {
        server: Server,
        /// The operation, as a gerund.
        doing: &'static str,
    },
    /// The reply is invalid.
    #[error("usbip server {server}: {source}")]
    Reply { server: Server, source: ReplyError },
    /// Another host has imported the device.
    #[error(
        "device {busid} of usbip server {server} is busy: another host or container has imported it (a host that \
         vanished holds it until it is bound again there: usbip unbind, usbip bind)"
    )]
    Busy { server: Server, busid: BusId },
    /// The server refused for another reason.
    #[error("device {busid} of usbip server {server}: {refusal}")]
    Refused {
        server: Server,
        busid: BusId,
        refusal: Refusal,
    },
}

/// An imported device whose connection is ready for the kernel.
#[derive(Debug)]
pub struct Imported {
    /// All further data on it is between the server and the kernel.
    pub connection: TcpStream,
    /// The server's description.
    pub device: Exported,
}

/// Lists the devices that a server exports and that no host has imported.
///
/// # Errors
/// If the server does not answer before the deadline, or its reply is malformed.
pub fn list(server: &Server, deadline: Instant) -> Result<Vec<Exported>, ClientError> {
    let mut dialogue = Dialogue::dial(server, None, deadline)?;
    let doing = "listing its devices";
    dialogue.send(&protocol::devlist_request(), doing)?;
    protocol::read_devlist(&mut dialogue).map_err(|error| dialogue.reply_error(error, doing))
}

/// Imports a device: until the connection is closed, the server gives it to no other host.
///
/// `from` is the local port of the previous connection, if that broke. If the server has not
/// noticed, a new connection from the same port makes it release the device (RFC 9293, 3.5.1:
/// half-open connections). If the port is not available, another one is used.
///
/// # Errors
/// If the server does not answer before the deadline, refuses, or replies with another device.
pub fn import(
    server: &Server,
    busid: &BusId,
    from: Option<u16>,
    deadline: Instant,
) -> Result<Imported, ClientError> {
    let mut dialogue = Dialogue::dial(server, from, deadline)?;
    let doing = "importing a device";
    dialogue.send(&protocol::import_request(busid), doing)?;
    let device = match protocol::read_import(&mut dialogue, busid) {
        Ok(device) => device,
        Err(ReplyError::Refused(Refusal::Busy)) => {
            return Err(ClientError::Busy {
                server: server.clone(),
                busid: busid.clone(),
            });
        }
        Err(ReplyError::Refused(refusal)) => {
            return Err(ClientError::Refused {
                server: server.clone(),
                busid: busid.clone(),
                refusal,
            });
        }
        Err(error) => return Err(dialogue.reply_error(error, doing)),
    };
    let connection = dialogue.into_connection()?;
    Ok(Imported { connection, device })
}

/// One request and its reply.
struct Dialogue<'a> {
    server: &'a Server,
    stream: TcpStream,
    deadline: Instant,
}

impl<'a> Dialogue<'a> {
    fn dial(server: &'a Server, from: Option<u16>, deadline: Instant) -> Result<Self, ClientError> {
        let addresses = resolve(server, deadline)?;
        for (address, from) in addresses.iter().zip(from) {
            let Some(left) = left(deadline) else { break };
            if let Ok(stream) = connect_from(from, address, CONNECT_FROM.min(left / 2)) {
                return Ok(Self {
                    server,
                    stream,
                    deadline,
                });
            }
        }
        let mut last = io::Error::new(ErrorKind::NotFound, "it has no address");
        for (index, address) in addresses.iter().enumerate() {
            // Divide the time, so that an address that drops all packets leaves time for the next
            // ones.
            let shares = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let Some(left) = left(deadline) else { break };
            let patience = CONNECT.min(left / shares).max(Duration::from_millis(1));
            match TcpStream::connect_timeout(address, patience) {
                Ok(stream) => {
                    return Ok(Self {
                        server,
                        stream,
                        deadline,
                    });
                }
                Err(error) => last = error,
            }
        }
        let server = server.clone();
        Err(match last.kind() {
            ErrorKind::ConnectionRefused => ClientError::ConnectionRefused { server },
            ErrorKind::TimedOut => ClientError::TimedOut {
                server,
                doing: "connecting",
            },
            _ => ClientError::Unreachable { server, source: last },
        })
    }

    fn send(&mut self, request: &[u8], doing: &'static str) -> Result<(), ClientError> {
        let sent = self
            .stream
            .set_write_timeout(left(self.deadline).or(Some(Duration::from_millis(1))))
            .and_then(|()| self.stream.write_all(request));
        sent.map_err(|error| self.reply_error(error.into(), doing))
    }

    fn reply_error(&self, error: ReplyError, doing: &'static str) -> ClientError {
        let server = self.server.clone();
        match error {
            ReplyError::Read(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::TimedOut { server, doing },
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    ClientError::Closed { server, doing }
                }
                _ => ClientError::Unreachable {
                    server,
                    source: error,
                },
            },
            source => ClientError::Reply { server, source },
        }
    }

    /// Prepares the socket for the kernel: no timeouts, no delay, and keepalive.
    fn into_connection(self) -> Result<TcpStream, ClientError> {
        let prepare = || -> io::Result<()> {
            self.stream.set_read_timeout(None)?;
            self.stream.set_write_timeout(None)?;
            self.stream.set_nodelay(true)?;
            setsockopt(&self.stream, sockopt::KeepAlive, &true)?;
            setsockopt(&self.stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
            setsockopt(&self.stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
            setsockopt(&self.stream, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
            setsockopt(&self.stream, sockopt::TcpUserTimeout, &USER_TIMEOUT)?;
            Ok(())
        };
        match prepare() {
            Ok(()) => Ok(self.stream),
            Err(source) => Err(ClientError::Unreachable {
                server: self.server.clone(),
                source,
            }),
        }
    }
}

impl Read for Dialogue<'_> {
    /// Reads with a timeout at the deadline, in however many pieces the answer arrives.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = left(self.deadline).ok_or(ErrorKind::TimedOut)?;
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(into)
    }
}

/// Like `TcpStream::connect_timeout`, from a local port that another connection may just have used.
fn connect_from(port: u16, to: &SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let (family, any) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (AddressFamily::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = TcpStream::from(socket(family, SockType::Stream, flags, None)?);
    setsockopt(&stream, sockopt::ReuseAddr, &true)?;
    bind(
        stream.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(any, port)),
    )?;
    match connect(stream.as_raw_fd(), &SockaddrStorage::from(*to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)], timeout)? == 0 {
        return Err(ErrorKind::TimedOut.into());
    }
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The remaining time; `None` if the deadline has passed.
fn left(deadline: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
}

/// The addresses of the server. The C library's resolver has no deadline, so a thread calls it and
/// is abandoned after the deadline.
fn resolve(server: &Server, deadline: Instant) -> Result<Vec<SocketAddr>, ClientError> {
    if let Ok(address) = server.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, server.port())]);
    }
    let (answer, wait) = mpsc::channel();
    let (host, port) = (server.host().to_owned(), server.port());
    let resolver = thread::Builder::new().spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // If the receiver is gone, nothing needs the result.
        let _ = answer.send(addresses);
    });
    let outcome = match resolver {
        Ok(_) => wait.recv_timeout(left(deadline).unwrap_or_default()),
        Err(source) => Ok(Err(source)),
    };
    match outcome {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(source)) => Err(ClientError::Resolve {
            server: server.clone(),
            source,
        }),
        Err(_) => Err(ClientError::TimedOut {
            server: server.clone(),
            doing: "resolving its name",
        }),
    }
}
