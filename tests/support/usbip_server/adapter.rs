//! An FTDI serial adapter (FT232R) as the kernel's driver ftdi_sio wants it, with its line looped
//! back.
//!
//! Requests and replies of usbip are 48 bytes: five words (command, number, device, direction,
//! endpoint), then what the command needs. Bulk data from the adapter begins with two bytes of
//! status.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::Adapter;

const SUBMIT: u32 = 1;
const UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;
/// Errors of the kernel: the endpoint stalls; the request was taken back.
const EPIPE: i32 = -32;
const ECONNRESET: i32 = -104;
/// The modem's and the line's status: all well.
const STATUS: [u8; 2] = [0x01, 0x60];

struct Request {
    number: u32,
    is_in: bool,
    endpoint: u32,
    /// Of the buffer; or which request is taken back.
    length: u32,
    setup: [u8; 8],
}

/// Standard requests (USB 2.0, table 9-4).
pub const GET_DESCRIPTOR: u8 = 6;
pub const SET_CONFIGURATION: u8 = 9;

/// Answers the kernel until it hangs up, or makes the standard request `last`: then it hangs with
/// the connection open. `may_answer` comes back when that is allowed.
pub fn serve(
    mut stream: &TcpStream,
    adapter: &Adapter,
    last: Option<u8>,
    may_answer: impl Fn(),
) -> std::io::Result<()> {
    let mut waiting: VecDeque<Request> = VecDeque::new();
    let mut looped: VecDeque<u8> = VecDeque::new();
    loop {
        let (command, request) = read(stream)?;
        may_answer();
        let is_standard = command == SUBMIT && request.endpoint == 0 && request.setup[0] & 0x60 == 0;
        if is_standard && Some(request.setup[1]) == last {
            return stream.read_to_end(&mut Vec::new()).map(drop);
        }
        match command {
            SUBMIT if request.endpoint == 0 && request.is_in => match control(adapter, request.setup) {
                Some(mut data) => {
                    data.truncate(request.length as usize);
                    reply(stream, &request, 0, data.len() as u32, &data)?;
                }
                None => reply(stream, &request, EPIPE, 0, &[])?,
            },
            SUBMIT if !request.is_in => {
                let mut data = vec![0; request.length as usize];
                stream.read_exact(&mut data)?;
                if request.endpoint != 0 {
                    looped.extend(&data);
                }
                reply(stream, &request, 0, request.length, &[])?;
            }
            SUBMIT => waiting.push_back(request),
            UNLINK => {
                let before = waiting.len();
                waiting.retain(|waiting| waiting.number != request.length);
                let status = if waiting.len() < before { ECONNRESET } else { 0 };
                stream.write_all(&header(RET_UNLINK, request.number, status, 0))?;
            }
            other => return Err(std::io::Error::other(format!("command {other}"))),
        }
        while let (false, Some(request)) = (looped.is_empty(), waiting.front()) {
            let count = looped.len().min(62).min(request.length as usize - STATUS.len());
            let mut data = STATUS.to_vec();
            data.extend(looped.drain(..count));
            reply(stream, request, 0, data.len() as u32, &data)?;
            waiting.pop_front();
        }
    }
}

fn read(mut stream: &TcpStream) -> std::io::Result<(u32, Request)> {
    let mut bytes = [0; 48];
    stream.read_exact(&mut bytes)?;
    let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let is_unlink = word(0) == UNLINK;
    let mut setup = [0; 8];
    setup.copy_from_slice(&bytes[40..]);
    let request = Request {
        number: word(4),
        is_in: word(12) == 1,
        endpoint: word(16),
        length: if is_unlink { word(20) } else { word(24) },
        setup,
    };
    Ok((word(0), request))
}

fn reply(
    mut stream: &TcpStream,
    request: &Request,
    status: i32,
    length: u32,
    data: &[u8],
) -> std::io::Result<()> {
    let mut bytes = header(RET_SUBMIT, request.number, status, length).to_vec();
    bytes.extend(data);
    stream.write_all(&bytes)
}

fn header(command: u32, number: u32, status: i32, length: u32) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[..4].copy_from_slice(&command.to_be_bytes());
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[20..24].copy_from_slice(&status.to_be_bytes());
    bytes[24..28].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// What the adapter says to a control request that wants data (USB 2.0, 9.4; libftdi's names for
/// the vendor's).
fn control(adapter: &Adapter, setup: [u8; 8]) -> Option<Vec<u8>> {
    let [kind, request, index, value, ..] = setup;
    match (kind, request) {
        (0x80, GET_DESCRIPTOR) => descriptor(adapter, value, index),
        // GET_STATUS of device, interface, endpoint
        (0x80..=0x82, 0) => Some(vec![0, 0]),
        // GET_CONFIGURATION
        (0x80, 8) => Some(vec![1]),
        // the modem's status
        (0xc0, 5) => Some(STATUS.to_vec()),
        // the latency timer, in milliseconds
        (0xc0, 10) => Some(vec![16]),
        // a word of the EEPROM: empty
        (0xc0, 0x90) => Some(vec![0xff, 0xff]),
        _ => None,
    }
}

fn descriptor(adapter: &Adapter, kind: u8, index: u8) -> Option<Vec<u8>> {
    let text = |text: &str| {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut bytes = vec![units.len() as u8 + 2, 3];
        bytes.extend(units);
        Some(bytes)
    };
    match (kind, index) {
        (1, 0) => {
            let [v0, v1] = adapter.true_ids.0.to_le_bytes();
            let [p0, p1] = adapter.true_ids.1.to_le_bytes();
            Some(vec![18, 1, 0x10, 1, 0, 0, 0, 8, v0, v1, p0, p1, 0, 6, 1, 2, 3, 1])
        }
        (2, 0) => Some(vec![
            9, 2, 32, 0, 1, 1, 0, 0x80, 45, // one configuration of one interface, 90 mA
            9, 4, 0, 0, 2, 0xff, 0xff, 0xff, 0, // the vendor's class, two endpoints
            7, 5, 0x81, 2, 64, 0, 0, // bulk in
            7, 5, 0x02, 2, 64, 0, 0, // bulk out
        ]),
        (3, 0) => Some(vec![4, 3, 0x09, 0x04]),
        (3, 1) => text("Test"),
        (3, 2) => text("Remote adapter"),
        (3, 3) => text(adapter.serial),
        _ => None,
    }
}
