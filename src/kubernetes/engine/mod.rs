//! Whether the container engine of this node supports CDI devices.
//!
//! Asks the engine if its socket is reachable; otherwise reads containerd's configuration.
//! Decisions are pure. Must not know what is advertised.

pub mod cri;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::kubernetes::kubelet::grpc::Client;
use crate::model::host_check::engine_config::ContainerdConfig;

/// The timeout of the request to an engine, which happens once, at the start.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The paths of engines and configuration.
#[derive(Debug, Clone)]
pub struct Places {
    /// The sockets of engines; the first that answers is used.
    pub sockets: Vec<PathBuf>,
    pub containerd_config: PathBuf,
}

/// Whether the engine supports CDI devices, each with the source of the information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cdi {
    On(String),
    Off(String),
    /// Neither the engine nor a configuration shows it.
    Unknown(String),
}

impl Cdi {
    /// Whether `--cdi auto` uses CDI: an unknown engine is assumed to be a current one.
    pub fn is_used(&self) -> bool {
        !matches!(self, Self::Off(_))
    }
}

impl fmt::Display for Cdi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(source) => write!(f, "CDI is on: {source}"),
            Self::Off(source) => write!(f, "CDI is off: {source}"),
            Self::Unknown(reason) => write!(
                f,
                "CDI may be on or off ({reason}): it is on in containerd 2.0 and CRI-O 1.28 and later, and off in containerd 1.7 \
                 unless its configuration says enable_cdi = true"
            ),
        }
    }
}

pub async fn cdi(places: &Places) -> Cdi {
    for socket in &places.sockets {
        // An engine that is absent, or refuses the plugin, is skipped.
        if let Ok(Some(cdi)) = tokio::time::timeout(TIMEOUT, ask(socket)).await {
            return cdi;
        }
    }
    configured(&places.containerd_config)
}

/// Asks the engine at `socket`; `None` if it is not reachable or unknown.
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
    judge(&version.runtime_name, &version.runtime_version, config.as_deref())
}

/// Judges an engine by its name and version, and by the effective configuration that containerd
/// reports with its status.
///
/// containerd 1.6 and earlier do not support CDI devices, 1.7 does with `enable_cdi = true`, 2.0
/// does unless `enable_cdi = false`; the key is to be removed in 2.4 (containerd's RELEASES.md).
/// CRI-O supports them from 1.28 on, in the field that kubelet fills.
pub fn judge(name: &str, version: &str, config: Option<&str>) -> Option<Cdi> {
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
    let source = format!("{name} {version} reports it");
    Some(if is_on { Cdi::On(source) } else { Cdi::Off(source) })
}

/// Judges containerd's configuration file: by the key, or by a version of the file that only 2.x
/// reads.
fn configured(path: &Path) -> Cdi {
    let place = path.display();
    let Ok(text) = std::fs::read_to_string(path) else {
        return Cdi::Unknown(format!(
            "no engine's socket was found, and {place} cannot be read"
        ));
    };
    let mut file = ContainerdConfig::default();
    if file.take(&text).is_err() {
        return Cdi::Unknown(format!("{place} is not a configuration of containerd"));
    }
    match (file.cdi, file.version) {
        (Some(true), _) => Cdi::On(format!("{place} has enable_cdi = true")),
        (Some(false), _) => Cdi::Off(format!("{place} has enable_cdi = false")),
        (None, Some(3..)) => Cdi::On(format!("{place} has a version that only containerd 2 reads")),
        (None, _) => Cdi::Unknown(format!("{place} does not set enable_cdi")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_on(name: &str, version: &str, config: Option<&str>) -> Option<bool> {
        judge(name, version, config).map(|cdi| cdi.is_used())
    }

    #[test]
    fn an_engine_is_judged_by_its_version_and_containerd_by_its_configuration_in_force() {
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
    fn a_configuration_without_the_key_is_unknown_unless_only_containerd_2_reads_it() {
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
