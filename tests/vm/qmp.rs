//! QEMU's machine protocol (QMP): one command at a time, and the events that end some of them.
//! Knows nothing of devices.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// The deadline of a response: QEMU shares the processors with the machine that it emulates.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a running QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    /// Events that arrived while a response was awaited.
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to the socket of `-qmp unix:PATH` and leaves negotiation mode.
    pub fn connect(path: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        qmp.read(); // the greeting
        qmp.execute("qmp_capabilities", json!({}));
        Ok(qmp)
    }

    /// Runs one command and returns its result. Panics with QEMU's error.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.try_execute(command, &arguments)
            .unwrap_or_else(|error| panic!("qemu: {command} {arguments}: {error}"))
    }

    /// Runs one command. `Err` is QEMU's error.
    pub fn try_execute(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        let stream = self.reader.get_mut();
        stream
            .write_all(line.as_bytes())
            .map_err(|error| error.to_string())?;
        loop {
            let mut message = self.read();
            if message.get("event").is_some() {
                self.events.push(message);
            } else if let Some(error) = message.get("error") {
                return Err(error["desc"].as_str().unwrap_or_default().to_owned());
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Waits until QEMU reports that device `id` is deleted.
    pub fn wait_until_deleted(&mut self, id: &str) {
        let is_it = |event: &Value| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id;
        if let Some(place) = self.events.iter().position(is_it) {
            self.events.remove(place);
            return;
        }
        loop {
            let message = self.read();
            if is_it(&message) {
                return;
            }
            self.events.push(message);
        }
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.reader
            .read_line(&mut line)
            .unwrap_or_else(|error| panic!("qemu does not answer: {error}"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("qemu said {line:?}: {error}"))
    }
}
