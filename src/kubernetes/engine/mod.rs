//! The container engine of this node, as far as a device plugin has to know it: does it take CDI devices?
//!
//! The engine itself is asked where its socket can be reached; else containerd's configuration is read. Decisions are
//! pure; must not know what is advertised.

pub mod cri;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kubernetes::kubelet::grpc::Client;
use crate::model::host_check::engine_config::ContainerdConfig;

/// The timeout of an engine, which is asked once, at the start.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where it is asked and looked for.
#[derive(Debug, Clone)]
pub struct Places {
    /// The sockets of engines; the first that answers is the node's.
    pub sockets: Vec<PathBuf>,
    /// containerd's configuration.
    pub containerd_config: PathBuf,
}

/// Whether the engine takes CDI devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cdi {
    /// It does; who says so.
    On(String),
    /// It takes none; who says so.
    Off(String),
    /// Nobody says; what was looked at.
    Unknown(String),
}

impl Cdi {
    /// What is done about it when nothing else was said: an engine of which nothing is known is taken for one of today.
    pub fn is_used(&self) -> bool {
        !matches!(self, Self::Off(_))
    }
}

impl fmt::Display for Cdi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(who) => write!(f, "CDI, which is on: {who}"),
            Self::Off(who) => write!(f, "CDI is off: {who}"),
            Self::Unknown(what) => write!(
                f,
                "CDI may be on or off ({what}): it is on in containerd 2.0 and CRI-O 1.28 and later, and off in containerd 1.7 \
                 unless its configuration says enable_cdi = true"
            ),
        }
    }
}

/// Finds out whether this node's engine takes CDI devices.
pub async fn cdi(places: &Places) -> Cdi {
    for socket in &places.sockets {
        // Not this one, or not for us: the next.
        if let Ok(Some(told)) = tokio::time::timeout(TIMEOUT, ask(socket)).await {
            return told;
        }
    }
    configured(&places.containerd_config)
}

/// What the engine at `socket` says of itself; nothing when it can't be reached, or is none that we know.
async fn ask(socket: &Path) -> Option<Cdi> {
    let engine = Client::connect(socket).await.ok()?;
    let version: cri::VersionResponse = engine
        .unary(cri::VERSION, cri::VersionRequest::default())
        .await
        .ok()?;
    let status: Option<cri::StatusResponse> = engine
        .unary(cri::STATUS, cri::StatusRequest { verbose: true })
        .await
        .ok();
    let config = status.and_then(|status| status.info.get("config").cloned());
    told(&version.runtime_name, &version.runtime_version, config.as_deref())
}

/// What an engine's name and version mean, and the configuration in force that containerd prints with its status.
///
/// containerd 1.6 and earlier know no CDI devices, 1.7 takes them where `enable_cdi` says so, 2.0 unless it says
/// otherwise; 2.4 is to lose the key (containerd's RELEASES.md). CRI-O takes them in the field that kubelet fills from
/// 1.28 on.
fn told(name: &str, version: &str, config: Option<&str>) -> Option<Cdi> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+', '~']);
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let release = (number()?, number()?);
    let since = match name {
        "containerd" => (2, 0),
        "cri-o" => (1, 28),
        _ => return None,
    };
    let enabled = config
        .and_then(|config| serde_json::from_str::<serde_json::Value>(config).ok())
        .and_then(|config| config.get("enableCDI")?.as_bool());
    let is_on = enabled.unwrap_or(release >= since);
    let who = format!("{name} {version} says so");
    Some(if is_on { Cdi::On(who) } else { Cdi::Off(who) })
}

/// What containerd's configuration file says: the key, or else a version of the file that only 2.x reads.
fn configured(path: &Path) -> Cdi {
    let place = path.display();
    let Ok(text) = std::fs::read_to_string(path) else {
        return Cdi::Unknown(format!("no engine's socket is here, and {place} can't be read"));
    };
    let mut file = ContainerdConfig::default();
    if file.take(&text).is_err() {
        return Cdi::Unknown(format!("{place} is no configuration of containerd's"));
    }
    match (file.cdi, file.version) {
        (Some(true), _) => Cdi::On(format!("{place} has enable_cdi = true")),
        (Some(false), _) => Cdi::Off(format!("{place} has enable_cdi = false")),
        (None, Some(3..)) => Cdi::On(format!("{place} is of a containerd 2")),
        (None, _) => Cdi::Unknown(format!("{place} does not say")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_on(name: &str, version: &str, config: Option<&str>) -> Option<bool> {
        told(name, version, config).map(|cdi| cdi.is_used())
    }

    #[test]
    fn an_engine_is_known_by_its_version_and_containerd_by_what_is_in_force() {
        assert_eq!(is_on("containerd", "1.7.24~ds1", None), Some(false));
        let on = r#"{"containerd":{},"enableCDI":true}"#;
        assert_eq!(is_on("containerd", "1.7.24~ds1", Some(on)), Some(true));
        assert_eq!(is_on("containerd", "v2.1.4", None), Some(true));
        let off = r#"{"enableCDI":false}"#;
        assert_eq!(is_on("containerd", "v2.1.4", Some(off)), Some(false));
        assert_eq!(is_on("containerd", "v2.1.4", Some("no JSON")), Some(true));
        assert_eq!(is_on("cri-o", "1.36.3", Some("[crio]\n")), Some(true));
        assert_eq!(is_on("cri-o", "1.27.1", None), Some(false));
        assert_eq!(is_on("cri-dockerd", "0.3.4", None), None);
        assert_eq!(is_on("containerd", "unknown", None), None);
    }

    #[test]
    fn a_configuration_without_the_key_tells_nothing_unless_only_a_containerd_2_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            configured(&path)
        };
        let old = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n";
        assert!(matches!(read(old), Cdi::Unknown(_)));
        assert!(matches!(read(&format!("{old}enable_cdi = true")), Cdi::On(_)));
        assert!(matches!(read(&format!("{old}enable_cdi = false")), Cdi::Off(_)));
        let new = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n";
        assert!(matches!(read(new), Cdi::On(_)));
        assert!(matches!(read(&format!("{new}enable_cdi = false")), Cdi::Off(_)));
        assert!(matches!(read("version = "), Cdi::Unknown(_)));
        assert!(matches!(configured(Path::new("/nowhere")), Cdi::Unknown(_)));
    }
}
