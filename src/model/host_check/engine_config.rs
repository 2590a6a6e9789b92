//! What the configurations of engines say about hooks and CDI: parses the files and keeps the few
//! relevant keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex_lite::Regex;
use serde::Deserialize;

/// Where engines look for hooks by default, oci-hooks(5), and where oci-hotplug installs its own.
pub(crate) const DEFAULT_HOOK_DIR: &str = "/usr/share/containers/oci/hooks.d";

/// The annotation that requests devices.
const ASKING: &str = "io.oci-hotplug.devices";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DockerConfig {
    /// `features.cdi`
    pub cdi: Option<bool>,
    /// `cdi-spec-dirs`
    pub spec_dirs: Option<Vec<PathBuf>>,
}

/// config.toml of containerd, in all its versions: the settings of the CRI plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerdConfig {
    /// `version`: the version of the file's format; only containerd 2 reads version 3.
    pub version: Option<i64>,
    /// Whether the CRI plugin is disabled, as in Docker's own packages.
    pub cri_is_off: bool,
    /// `enable_cdi`
    pub cdi: Option<bool>,
    /// `cdi_spec_dirs`
    pub spec_dirs: Option<Vec<PathBuf>>,
}

/// crio.conf(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CriOConfig {
    /// `hooks_dir`
    pub hooks_dirs: Vec<PathBuf>,
    /// `cdi_spec_dirs`
    pub spec_dirs: Option<Vec<PathBuf>>,
}

/// The content of a file in a hook directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookDefinition {
    pub program: PathBuf,
    /// The stages at which it runs.
    pub stages: Vec<String>,
    /// Whether it runs for containers with the annotation io.oci-hotplug.devices.
    pub asked_by_annotation: bool,
}

impl Default for CriOConfig {
    fn default() -> Self {
        Self {
            hooks_dirs: vec![DEFAULT_HOOK_DIR.into()],
            spec_dirs: None,
        }
    }
}

impl DockerConfig {
    /// Parses daemon.json.
    ///
    /// # Errors
    /// Why the text is invalid.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Daemon {
            #[serde(default)]
            features: BTreeMap<String, serde_json::Value>,
            #[serde(rename = "cdi-spec-dirs")]
            spec_dirs: Option<Vec<PathBuf>>,
        }
        // dockerd treats an empty file as an empty object.
        let text = if text.trim().is_empty() { "{}" } else { text };
        let daemon: Daemon = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self {
            cdi: daemon.features.get("cdi").and_then(serde_json::Value::as_bool),
            spec_dirs: daemon.spec_dirs,
        })
    }
}

impl ContainerdConfig {
    /// Applies one file. Returns the patterns of the files that it imports, which are applied after
    /// it and override it (containerd-config.toml(5)).
    ///
    /// # Errors
    /// Why the text is invalid.
    pub(crate) fn take(&mut self, text: &str) -> Result<Vec<String>, String> {
        #[derive(Deserialize)]
        struct File {
            version: Option<i64>,
            #[serde(default)]
            imports: Vec<String>,
            #[serde(default)]
            disabled_plugins: Vec<String>,
            #[serde(default)]
            plugins: BTreeMap<String, Plugin>,
        }
        #[derive(Deserialize)]
        struct Plugin {
            enable_cdi: Option<bool>,
            cdi_spec_dirs: Option<Vec<PathBuf>>,
        }
        /// The names of the plugin in files of version 1, 2 and 3.
        const CRI: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let is_cri = |name: &String| CRI.contains(&name.as_str());
        self.version = self.version.or(file.version);
        self.cri_is_off |= file.disabled_plugins.iter().any(is_cri);
        for (_, plugin) in file.plugins.into_iter().filter(|(name, _)| is_cri(name)) {
            self.cdi = plugin.enable_cdi.or(self.cdi);
            self.spec_dirs = plugin.cdi_spec_dirs.or(self.spec_dirs.take());
        }
        Ok(file.imports)
    }
}

impl CriOConfig {
    /// Applies one file; a later file overrides an earlier one.
    ///
    /// # Errors
    /// Why the text is invalid.
    pub(crate) fn take(&mut self, text: &str) -> Result<(), String> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            crio: Crio,
        }
        #[derive(Default, Deserialize)]
        struct Crio {
            #[serde(default)]
            runtime: Runtime,
        }
        #[derive(Default, Deserialize)]
        struct Runtime {
            hooks_dir: Option<Vec<PathBuf>>,
            cdi_spec_dirs: Option<Vec<PathBuf>>,
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(dirs) = file.crio.runtime.hooks_dir {
            self.hooks_dirs = dirs;
        }
        if let Some(dirs) = file.crio.runtime.cdi_spec_dirs {
            self.spec_dirs = Some(dirs);
        }
        Ok(())
    }
}

/// Applies the hook directories of one containers.conf: they replace the previous ones unless the
/// file has `{append = true}` (containers.conf(5)).
///
/// # Errors
/// Why the text is invalid.
pub(crate) fn take_podman_hooks_dirs(dirs: &mut Vec<PathBuf>, text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        engine: Engine,
    }
    #[derive(Default, Deserialize)]
    struct Engine {
        hooks_dir: Option<Vec<Item>>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Item {
        Dir(PathBuf),
        Attributes { append: bool },
    }
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let Some(items) = file.engine.hooks_dir else {
        return Ok(());
    };
    if !items
        .iter()
        .any(|item| matches!(item, Item::Attributes { append: true }))
    {
        dirs.clear();
    }
    dirs.extend(items.into_iter().filter_map(|item| match item {
        Item::Dir(dir) => Some(dir),
        Item::Attributes { .. } => None,
    }));
    Ok(())
}

/// Parses a file of a hook directory, version 1.0.0 of oci-hooks(5); `None` if it is not such a
/// file.
pub(crate) fn hook_definition(text: &str) -> Option<HookDefinition> {
    #[derive(Deserialize)]
    struct File {
        hook: Hook,
        when: When,
        stages: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Hook {
        path: PathBuf,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct When {
        always: Option<bool>,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
        #[serde(default)]
        commands: Vec<String>,
        has_bind_mounts: Option<bool>,
    }
    let file: File = serde_json::from_str(text).ok()?;
    let when = &file.when;
    let matches = |pattern: &str, text: &str| Regex::new(pattern).is_ok_and(|regex| regex.is_match(text));
    // All conditions in the file must hold; commands and mounts are not known here.
    let asked_by_annotation = when.commands.is_empty()
        && when.has_bind_mounts.is_none()
        && when.always.unwrap_or(!when.annotations.is_empty())
        && when
            .annotations
            .iter()
            .all(|(key, value)| matches(key, ASKING) && matches(value, "usb:0403:6001"));
    Some(HookDefinition {
        program: file.hook.path,
        stages: file.stages,
        asked_by_annotation,
    })
}

#[cfg(test)]
mod tests;
