//! An attached remote device and its connection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::address::BusId;
use crate::model::device::inventory::Inventory;
use crate::model::device::{DevNum, SysPath};

/// The local device of an attached remote device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub syspath: SysPath,
    /// The number of its raw node. Another device at the same path has another number.
    pub num: DevNum,
    /// The connection, for attaching the device again after it breaks.
    pub last: LastConnection,
}

impl Binding {
    pub fn is_present(&self, inventory: &Inventory) -> bool {
        let device = inventory.get(&self.syspath);
        let node = device.and_then(|device| device.node.as_ref());
        node.is_some_and(|node| node.num == self.num)
    }
}

/// The connection of an attached remote device. `FromStr` and `Display` are inverse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LastConnection {
    /// The bus id of the device at the server.
    pub busid: BusId,
    /// The port of the virtual controllers. The next attachment uses another port, because the old
    /// device may disappear late.
    pub port: u32,
    /// The local TCP port.
    pub local_port: u16,
}

impl fmt::Display for LastConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.busid, self.port, self.local_port)
    }
}

impl FromStr for LastConnection {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut words = text.splitn(3, ',');
            Some(Self {
                busid: words.next()?.parse().ok()?,
                port: words.next()?.parse().ok()?,
                local_port: words.next()?.parse().ok()?,
            })
        };
        read().ok_or("write BUSID,PORT,LOCALPORT")
    }
}

impl TryFrom<String> for LastConnection {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LastConnection> for String {
    fn from(last: LastConnection) -> Self {
        last.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_survives_formatting_and_parsing() {
        let last: LastConnection = "1-1.4,7,40001".parse().unwrap();
        assert_eq!(
            (last.busid.as_str(), last.port, last.local_port),
            ("1-1.4", 7, 40001)
        );
        assert_eq!(last.to_string(), "1-1.4,7,40001");
        assert_eq!(String::from(last), "1-1.4,7,40001");
        for text in ["", "1-1", "1-1,7", "1-1,7,x", "1-1,7,1,1"] {
            assert!(text.parse::<LastConnection>().is_err(), "{text}");
        }
    }
}
