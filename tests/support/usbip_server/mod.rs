//! A USB/IP server for tests: exports serial adapters (`adapter`) and misbehaves on command.
//!
//! Written from the kernel's Documentation/usb/usbip_protocol.rst, on its own: it shares no code
//! with the client.

pub mod adapter;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A device that is exported.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub busid: &'static str,
    /// What the server says of it.
    pub ids: (u16, u16),
    /// What its own descriptors say.
    pub true_ids: (u16, u16),
    pub serial: &'static str,
    /// The kernel's number for the speed that the server says it has.
    pub speed: u32,
}

impl Adapter {
    /// An FTDI serial adapter that sends back whatever it is sent.
    pub fn new(busid: &'static str, serial: &'static str) -> Self {
        Self {
            busid,
            ids: (0x0403, 0x6001),
            true_ids: (0x0403, 0x6001),
            serial,
            speed: 2,
        }
    }
}

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Refuses each import with this status.
    Status(u32),
    /// Accepts and reads, and never answers.
    Stall,
    /// Answers one byte each time so long has passed.
    Drip(Duration),
    /// Sends so many bytes of an answer, and closes.
    CloseAfter(usize),
    /// Answers an import with another device's bus id.
    WrongBusId,
    /// Claims to have 2^32-1 devices, and sends some for ever.
    Endless,
    /// Speaks another protocol.
    Http,
    /// Once imported, answers the kernel until that makes this standard request, and nothing from
    /// then on.
    StallAt(u8),
}

/// A server on 127.0.0.1, until it is dropped.
pub struct UsbipServer {
    pub address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    adapters: Vec<Adapter>,
    fault: Fault,
    imported: BTreeSet<&'static str>,
    connections: Vec<TcpStream>,
    accepted: usize,
    /// How often an import was requested.
    imports: usize,
    stopped: bool,
    hangs: bool,
}

impl State {
    /// Comes back when the server answers.
    fn answers(&self) {
        let _unused = self
            .changed
            .wait_while(self.lock(), |inner| inner.hangs)
            .unwrap_or_else(PoisonError::into_inner);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsbipServer {
    pub fn start(adapters: Vec<Adapter>, fault: Fault) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), adapters, fault)
    }

    /// The same at the address of one that was dropped.
    pub fn start_at(address: SocketAddr, adapters: Vec<Adapter>, fault: Fault) -> Self {
        let listener = TcpListener::bind(address).expect("a port of this machine");
        let address = listener.local_addr().expect("its number");
        let state = Arc::new(State {
            inner: Mutex::new(Inner {
                adapters,
                fault,
                imported: BTreeSet::new(),
                connections: Vec::new(),
                accepted: 0,
                imports: 0,
                stopped: false,
                hangs: false,
            }),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&state);
        let thread = thread::spawn(move || accept(&listener, &serving));
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }

    /// Stops answering, as a stopped process does: connections stay as they are. Or goes on.
    pub fn hang(&self, hangs: bool) {
        self.state.lock().hangs = hangs;
        self.state.changed.notify_all();
    }

    /// How many connections there were so far.
    pub fn accepted(&self) -> usize {
        self.state.lock().accepted
    }

    /// How often somebody asked to import a device so far.
    pub fn imports(&self) -> usize {
        self.state.lock().imports
    }

    /// Another host that has imported this device, for as long as it keeps the connection.
    pub fn is_imported_elsewhere(&self, busid: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("connect to the server");
        let mut request = vec![1, 0x11, 0x80, 3, 0, 0, 0, 0];
        request.extend(busid.as_bytes());
        request.resize(8 + 32, 0);
        stream.write_all(&request).expect("request the device");
        let mut reply = [0; 320];
        stream.read_exact(&mut reply).expect("a whole reply");
        assert_eq!(reply[..8], [1, 0x11, 0, 3, 0, 0, 0, 0]);
        stream
    }

    /// Waits until nobody has any of its devices.
    pub fn wait_until_all_are_free(&self) {
        let (inner, waited) = self
            .state
            .changed
            .wait_timeout_while(self.state.lock(), Duration::from_secs(30), |inner| {
                !inner.imported.is_empty()
            })
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "still imported: {:?}", inner.imported);
    }
}

impl Drop for UsbipServer {
    /// As when it is killed: all connections end.
    fn drop(&mut self) {
        {
            let mut inner = self.state.lock();
            inner.stopped = true;
            inner.hangs = false;
            self.state.changed.notify_all();
            for connection in inner.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        // For `accept` to look.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    let mut serving = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        let mut inner = state.lock();
        if inner.stopped {
            break;
        }
        inner.accepted += 1;
        inner
            .connections
            .push(stream.try_clone().expect("a second descriptor"));
        let (state, fault) = (Arc::clone(state), inner.fault);
        serving.push(thread::spawn(move || {
            // A client that goes away ends its connection, and no more.
            let _ = serve(&stream, &state, fault);
            let _ = stream.shutdown(Shutdown::Both);
        }));
    }
    for thread in serving {
        let _ = thread.join();
    }
}

fn serve(mut stream: &TcpStream, state: &State, fault: Fault) -> std::io::Result<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header)?;
    state.answers();
    match fault {
        Fault::Stall => {
            stream.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        Fault::Http => return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        _ => {}
    }
    match header {
        [1, 0x11, 0x80, 5, ..] => list(stream, state, fault),
        [1, 0x11, 0x80, 3, ..] => import(stream, state, fault),
        _ => Ok(()),
    }
}

fn list(mut stream: &TcpStream, state: &State, fault: Fault) -> std::io::Result<()> {
    let free: Vec<Adapter> = {
        let inner = state.lock();
        let is_free = |adapter: &&Adapter| !inner.imported.contains(adapter.busid);
        inner.adapters.iter().filter(is_free).cloned().collect()
    };
    let mut reply = vec![1, 0x11, 0, 5, 0, 0, 0, 0];
    if fault == Fault::Endless {
        reply.extend(u32::MAX.to_be_bytes());
        stream.write_all(&reply)?;
        loop {
            stream.write_all(&describe(&Adapter::new("1-1", "")))?;
            stream.write_all(&[0xff, 0xff, 0xff, 0])?;
        }
    }
    reply.extend((free.len() as u32).to_be_bytes());
    for adapter in &free {
        reply.extend(describe(adapter));
        reply.extend([0xff, 0xff, 0xff, 0]);
    }
    send(stream, &reply, fault)
}

fn import(mut stream: &TcpStream, state: &State, fault: Fault) -> std::io::Result<()> {
    let mut busid = [0; 32];
    stream.read_exact(&mut busid)?;
    let busid = String::from_utf8_lossy(&busid).trim_end_matches('\0').to_owned();
    let refuse = |status: u32| {
        let [a, b, c, d] = status.to_be_bytes();
        let mut stream = stream;
        stream.write_all(&[1, 0x11, 0, 3, a, b, c, d])
    };
    if let Fault::Status(status) = fault {
        return refuse(status);
    }
    let adapter = {
        let mut inner = state.lock();
        inner.imports += 1;
        let Some(adapter) = inner
            .adapters
            .iter()
            .find(|adapter| adapter.busid == busid)
            .cloned()
        else {
            return refuse(4);
        };
        if !inner.imported.insert(adapter.busid) {
            return refuse(2);
        }
        adapter
    };
    let mut told = adapter.clone();
    if fault == Fault::WrongBusId {
        told.busid = "9-9";
    }
    let mut reply = vec![1, 0x11, 0, 3, 0, 0, 0, 0];
    reply.extend(describe(&told));
    let outcome = send(stream, &reply, fault).and_then(|()| {
        let last = match fault {
            Fault::StallAt(request) => Some(request),
            _ => None,
        };
        adapter::serve(stream, &adapter, last, || state.answers())
    });
    state.lock().imported.remove(adapter.busid);
    state.changed.notify_all();
    outcome
}

fn send(mut stream: &TcpStream, reply: &[u8], fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::CloseAfter(bytes) => {
            stream.write_all(&reply[..bytes.min(reply.len())])?;
            stream.shutdown(Shutdown::Both)
        }
        Fault::Drip(pause) => reply.iter().try_for_each(|byte| {
            thread::sleep(pause);
            stream.write_all(&[*byte])
        }),
        _ => stream.write_all(reply),
    }
}

/// `struct usbip_usb_device`: bus 1, device 2, one interface.
fn describe(adapter: &Adapter) -> [u8; 312] {
    let mut bytes = [0; 312];
    let path = format!("/sys/devices/test/{}", adapter.busid);
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    bytes[256..256 + adapter.busid.len()].copy_from_slice(adapter.busid.as_bytes());
    for (at, number) in [(288, 1_u32), (292, 2), (296, adapter.speed)] {
        bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }
    for (at, number) in [(300, adapter.ids.0), (302, adapter.ids.1), (304, 0x0600)] {
        bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
    }
    bytes[309..].copy_from_slice(&[1, 1, 1]);
    bytes
}
