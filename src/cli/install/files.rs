//! The files of an installation, and their paths.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::host::programs;

/// Where podman and CRI-O look for hooks that annotations request, whatever the prefix is.
pub(super) const HOOKS_JSON: &str = "/usr/share/containers/oci/hooks.d";

/// Where the files below name our programs.
const PACKAGED_HOOKS: &str = "/usr/libexec/oci/hooks.d/";
const PACKAGED_BIN: &str = "/usr/bin/";

/// The units that systemd starts at boot (systemctl(1), enable).
pub(super) const WANTED_AT_BOOT: &str = "/etc/systemd/system/multi-user.target.wants";

const TOOL: &str = "oci-hotplug";
const DEVICE_PLUGIN: &str = "oci-hotplug-device-plugin";

/// In the order of their installation: a hook starts a watcher, and a watcher the worker.
const LIBEXEC: [&str; 4] = [
    "oci-hotplug-usbip",
    "oci-hotplug-watcher",
    "oci-hotplug-prestart",
    "oci-hotplug-poststop",
];

/// Removes, at boot, the records of the boot before.
pub(super) const RECOVER_UNIT: &str = "oci-hotplug-recover.service";

const UNITS: [(&str, &str); 3] = [
    (
        "oci-hotplug-watcher@.service",
        include_str!("../../../packaging/systemd/oci-hotplug-watcher@.service"),
    ),
    (
        "oci-hotplug.slice",
        include_str!("../../../packaging/systemd/oci-hotplug.slice"),
    ),
    (
        RECOVER_UNIT,
        include_str!("../../../packaging/systemd/oci-hotplug-recover.service"),
    ),
];

/// For the managers of users.
const USER_UNIT: (&str, &str) = (
    "oci-hotplug-watcher@.service",
    include_str!("../../../packaging/systemd/user/oci-hotplug-watcher@.service"),
);

/// The unit that an administrator may enable.
pub(super) const METRICS_TIMER: &str = "oci-hotplug-metrics.timer";
const METRICS_UNITS: [&str; 2] = ["oci-hotplug-metrics.service", METRICS_TIMER];

const JSON: [(&str, &str); 2] = [
    (
        "oci-hotplug-prestart.json",
        include_str!("../../../hooks.d/oci-hotplug-prestart.json"),
    ),
    (
        "oci-hotplug-poststop.json",
        include_str!("../../../hooks.d/oci-hotplug-poststop.json"),
    ),
];

/// Writes the man pages and completions of this program into a directory.
pub(super) type WriteDocs = fn(&Path) -> Result<()>;

/// The directories of an installation, as its host has them.
#[derive(Debug)]
pub(super) struct Layout {
    pub bin: PathBuf,
    pub hooks: PathBuf,
    pub data: PathBuf,
    pub config: PathBuf,
    pub cdi: PathBuf,
    pub hooks_json: PathBuf,
    share: PathBuf,
    units: PathBuf,
    user_units: PathBuf,
}

impl Layout {
    pub(super) fn new(prefix: &Path, sysconfdir: &Path) -> Self {
        // systemd.unit(5), "System Unit Search Path".
        let is_read = ["/usr", "/usr/local"].iter().any(|dir| prefix == Path::new(dir));
        let units_of = |manager: &str| match is_read {
            true => prefix.join("lib/systemd").join(manager),
            false => Path::new("/etc/systemd").join(manager),
        };
        Self {
            bin: prefix.join("bin"),
            hooks: prefix.join("libexec/oci/hooks.d"),
            data: prefix.join("share/oci-hotplug"),
            config: sysconfdir.join("oci-hotplug/config.toml"),
            cdi: sysconfdir.join("cdi"),
            hooks_json: PathBuf::from(HOOKS_JSON),
            share: prefix.join("share"),
            units: units_of("system"),
            user_units: units_of("user"),
        }
    }

    /// The directories below a user's home directory: those of the XDG Base Directory Specification
    /// with their default values, and ~/.local/bin and ~/.local/libexec of systemd's
    /// file-hierarchy(7).
    pub(super) fn of_user(home: &Path) -> Self {
        let local = home.join(".local");
        let share = local.join("share");
        let data = share.join("oci-hotplug");
        let user_units = share.join("systemd/user");
        Self {
            bin: local.join("bin"),
            hooks: local.join("libexec/oci/hooks.d"),
            config: home.join(".config/oci-hotplug/config.toml"),
            cdi: home.join(".config/cdi"),
            hooks_json: data.join("hooks.d"),
            data,
            share,
            units: user_units.clone(),
            user_units,
        }
    }

    pub(super) fn watcher(&self) -> PathBuf {
        self.hooks.join("oci-hotplug-watcher")
    }

    /// A file that names our programs.
    fn text_file(&self, path: PathBuf, text: &str) -> InstalledFile {
        let text = text
            .replace(PACKAGED_HOOKS, &format!("{}/", self.hooks.display()))
            .replace(PACKAGED_BIN, &format!("{}/", self.bin.display()));
        InstalledFile::new(path, text.into_bytes())
    }
}

/// A file that is to be on the host.
#[derive(Debug)]
pub(super) struct InstalledFile {
    pub path: PathBuf,
    pub content: Vec<u8>,
    pub mode: u32,
}

impl InstalledFile {
    fn new(path: PathBuf, content: Vec<u8>) -> Self {
        Self {
            path,
            content,
            mode: 0o644,
        }
    }
}

/// All files of an installation.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub programs: Vec<InstalledFile>,
    /// Man pages, completions, and an example of the configuration.
    pub documents: Vec<InstalledFile>,
    pub config: Option<InstalledFile>,
    pub units: Vec<InstalledFile>,
    pub hooks_json: Vec<InstalledFile>,
}

impl Files {
    /// Reads the files. `from` has the programs; `packaging` adds what only a source tree has.
    pub(super) fn read(
        layout: &Layout,
        from: Option<&Path>,
        packaging: Option<&Path>,
        write_docs: WriteDocs,
        device_plugin: bool,
    ) -> Result<Self> {
        let plugin = device_plugin.then_some(DEVICE_PLUGIN);
        let mut files = Self::common(layout, from, plugin)?;
        let of_host = UNITS.map(|(name, text)| layout.text_file(layout.units.join(name), text));
        files.units.extend(of_host);
        if let Some(packaging) = packaging {
            files.add_packaged(layout, packaging)?;
            files.add_generated(
                layout,
                write_docs,
                plugin.map(|name| source(name, from)).transpose()?,
            )?;
        }
        Ok(files)
    }

    /// Reads the files for the rootless podman of one user: no configuration, no CDI device and no
    /// units of the host.
    pub(super) fn for_user(layout: &Layout, from: Option<&Path>, write_docs: WriteDocs) -> Result<Self> {
        let mut files = Self::common(layout, from, None)?;
        files.add_generated(layout, write_docs, None)?;
        Ok(files)
    }

    /// The programs, the hooks' JSON, and the unit for managers of users.
    fn common(layout: &Layout, from: Option<&Path>, plugin: Option<&str>) -> Result<Self> {
        let (name, text) = USER_UNIT;
        let mut files = Self {
            hooks_json: JSON
                .map(|(name, text)| layout.text_file(layout.hooks_json.join(name), text))
                .into(),
            units: vec![layout.text_file(layout.user_units.join(name), text)],
            ..Self::default()
        };
        let commands = [TOOL].into_iter().chain(plugin);
        let commands = commands.map(|name| (name, &layout.bin));
        for (name, dir) in commands.chain(LIBEXEC.map(|name| (name, &layout.hooks))) {
            files.programs.push(InstalledFile {
                mode: 0o755,
                ..read(&source(name, from)?, dir.join(name))?
            });
        }
        Ok(files)
    }

    fn add_packaged(&mut self, layout: &Layout, packaging: &Path) -> Result<()> {
        let config = packaging.join("config.toml");
        self.config = Some(read(&config, layout.config.clone())?);
        self.documents
            .push(read(&config, layout.data.join("config.toml"))?);
        for page in entries(&packaging.join("man"))? {
            self.documents.push(man_page(layout, &page)?);
        }
        for name in METRICS_UNITS {
            let path = packaging.join("systemd").join(name);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.units.push(layout.text_file(layout.units.join(name), &text));
        }
        Ok(())
    }

    /// Adds the man pages and completions that programs write themselves.
    fn add_generated(
        &mut self,
        layout: &Layout,
        write_docs: WriteDocs,
        plugin: Option<PathBuf>,
    ) -> Result<()> {
        let scratch = Scratch::new()?;
        write_docs(&scratch.0)?;
        if let Some(plugin) = plugin {
            let status = Command::new(&plugin)
                .arg("--generate-docs")
                .arg(&scratch.0)
                .status()
                .with_context(|| format!("cannot start {}", plugin.display()))?;
            if !status.success() {
                bail!("{} --generate-docs failed: {status}", plugin.display());
            }
        }
        for page in entries(&scratch.0.join("man"))? {
            self.documents.push(man_page(layout, &page)?);
        }
        for file in entries(&scratch.0.join("completions"))? {
            self.documents.push(read(&file, completion(layout, &file))?);
        }
        Ok(())
    }
}

fn source(name: &str, from: Option<&Path>) -> Result<PathBuf> {
    let Some(from) = from else {
        return Ok(programs::find(name)?);
    };
    let path = from.join(name);
    if !path.is_file() {
        bail!("cannot find {} (build it: cargo build --release)", path.display());
    }
    Ok(path)
}

fn read(from: &Path, to: PathBuf) -> Result<InstalledFile> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    Ok(InstalledFile::new(to, content))
}

fn man_page(layout: &Layout, page: &Path) -> Result<InstalledFile> {
    let section = page
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let dir = layout.share.join("man").join(format!("man{section}"));
    read(page, dir.join(page.file_name().unwrap_or_default()))
}

/// Where shells look for a completion.
fn completion(layout: &Layout, file: &Path) -> PathBuf {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    match name.split_once('.') {
        Some((program, "bash")) => layout.share.join("bash-completion/completions").join(program),
        Some((_, "fish")) => layout.share.join("fish/vendor_completions.d").join(name),
        _ => layout.share.join("zsh/site-functions").join(name),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oci-hotplug-install.{}.{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Fails if it exists: another process may have made it.
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
