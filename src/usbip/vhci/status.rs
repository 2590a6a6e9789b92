//! The ports according to the kernel's files `status` (drivers/usb/usbip/vhci_sysfs.c).

/// The number of digits of the socket in `status` for a controller that has not started
/// (vhci_sysfs.c, status_show_not_ready).
const NOT_READY_SOCKET: usize = 16;

/// The state of a port: the kernel's `enum usbip_device_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// 4: no device attached.
    Free,
    /// 5: attached; the device has no address yet.
    Starting,
    /// 6: attached.
    Used,
    /// 7: attached, but the connection is broken.
    Broken,
    /// The controller has not started yet; shown as 5 with a longer socket number.
    NotReady,
}

/// A port according to `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The number among the ports of all controllers.
    pub port: u32,
    /// Whether it belongs to a SuperSpeed hub.
    pub is_super: bool,
    pub state: State,
    /// The speed of the attached device, as the kernel's number; 0 unless [`State::Used`].
    pub speed: u32,
    /// Bus and number of the attached device at its server; 0 unless [`State::Used`].
    pub devid: u32,
}

/// Parses a `status` file.
///
/// # Errors
/// The line that differs from those of all known kernels.
pub fn parse_status(text: &str) -> Result<Vec<Slot>, String> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    // Before Linux 4.13, there was no SuperSpeed hub and no column for it.
    let has_hub = match header.first() {
        Some(&"hub") => true,
        Some(&"port" | &"prt") => false,
        _ => return Err(header.join(" ")),
    };
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| parse_slot(line, has_hub).ok_or_else(|| line.escape_debug().to_string()))
        .collect()
}

fn parse_slot(line: &str, has_hub: bool) -> Option<Slot> {
    let mut words = line.split_whitespace();
    let is_super = match has_hub.then(|| words.next()) {
        None | Some(Some("hs")) => false,
        Some(Some("ss")) => true,
        _ => return None,
    };
    let port = words.next()?.parse().ok()?;
    let state = match words.next()?.parse::<u32>().ok()? {
        4 => State::Free,
        5 => State::Starting,
        6 => State::Used,
        7 => State::Broken,
        _ => return None,
    };
    let speed = words.next()?.parse().ok()?;
    let devid = u32::from_str_radix(words.next()?, 16).ok()?;
    let is_unready = has_hub && state == State::Starting && words.next()?.len() == NOT_READY_SOCKET;
    Some(Slot {
        port,
        is_super,
        state: if is_unready { State::NotReady } else { state },
        speed,
        devid,
    })
}
