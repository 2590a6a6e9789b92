//! `oci-hotplug install`: puts the programs beside this one on a host, with all that its engines
//! and systemd look for.
//!
//! ```text
//! files (what goes where) ──> [enter the host's root] ──> place, each recorded in the manifest
//!                         ──> the hooks' JSON files, last
//! ```
//! The image of the device plugin runs it for the host that is mounted into the container (`--to`);
//! packaging/install.sh and the packages run it with the packaging directory of the source tree
//! (`--packaging`), which adds the configuration, the man pages, the completions, and the manifest
//! that `--uninstall` reads. With `--user`, it installs for the rootless podman of one user
//! (`user`).

mod containers_conf;
mod files;
mod installation;
mod manifest;
mod place;
mod report;
mod uninstall;
mod user;

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::files::{Files, Layout, WriteDocs};
use self::installation::Installation;
use self::manifest::Manifest;
use self::place::Root;
use self::report::{Report, print_report};
use self::user::UserInstallation;

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The host's root directory, as this container has it.
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "staging")]
    to: PathBuf,
    /// Where the programs go on the host: PREFIX/bin and PREFIX/libexec/oci/hooks.d. If /usr is
    /// read-only, name a writable directory that is not mounted noexec.
    #[arg(long, value_name = "PREFIX", default_value = "/usr")]
    prefix: PathBuf,
    /// Install below this directory, for a package: nothing is changed on this host, and no
    /// privilege is needed.
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Where the configuration goes.
    #[arg(long, value_name = "DIR", default_value = "/etc")]
    sysconfdir: PathBuf,
    /// The directory of the programs, instead of that of this one.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// The directory `packaging` of the source tree: install the configuration, man pages and
    /// completions as well, and record all files for --uninstall.
    #[arg(long, value_name = "DIR")]
    packaging: Option<PathBuf>,
    /// Install the Kubernetes device plugin as well, for nodes where it is not a DaemonSet.
    #[arg(long, requires = "packaging")]
    device_plugin: bool,
    /// Install for rootless podman of the user who runs this, without root: below ~/.local, and
    /// with one line in ~/.config/containers/containers.conf, whose other content stays.
    #[arg(long, conflicts_with_all = ["to", "prefix", "staging", "sysconfdir", "packaging"])]
    user: bool,
    /// Remove what was installed with --packaging or --user, except a configuration that was
    /// changed.
    #[arg(long)]
    uninstall: bool,
    /// Uninstall also while watchers run: their containers keep their devices.
    #[arg(long, requires = "uninstall")]
    force: bool,
}

/// Installs or uninstalls.
pub(super) fn run(options: &Options, write_docs: WriteDocs, as_json: bool) -> Result<()> {
    if options.user {
        let installation = UserInstallation::own()?;
        let report = match options.uninstall {
            true => installation.uninstall(options.force)?,
            false => installation.install(options.from.as_deref(), write_docs)?,
        };
        return print_report(&report, as_json);
    }
    if !options.prefix.is_absolute() {
        bail!(
            "--prefix {}: it must be an absolute path",
            options.prefix.display()
        );
    }
    let layout = Layout::new(&options.prefix, &options.sysconfdir);
    let staging = options.staging.as_ref().map(std::path::absolute).transpose()?;
    let root = Root::new(staging);
    if options.uninstall {
        let report = uninstall::run(&layout, &root, options.force)?;
        return print_report(&report, as_json);
    }
    let files = Files::read(
        &layout,
        options.from.as_deref(),
        options.packaging.as_deref(),
        write_docs,
        options.device_plugin,
    )?;
    enter(&options.to)?;
    DirBuilder::new()
        .recursive(true)
        .create(root.at(Path::new("/")))?;
    let manifest = options
        .packaging
        .is_some()
        .then(|| Manifest::open(&layout, &root));
    let mut installation = Installation {
        layout,
        root,
        manifest: manifest.transpose()?,
        report: Report::new(),
    };
    installation.install(&files)?;
    print_report(&installation.finish()?, as_json)
}

/// From here on this process's root is the host's: links on the host lead where they lead there.
fn enter(root: &Path) -> Result<()> {
    if root != Path::new("/") {
        nix::unistd::chroot(root).with_context(|| {
            format!(
                "cannot enter {} (--to needs root and CAP_SYS_CHROOT)",
                root.display()
            )
        })?;
        std::env::set_current_dir("/")?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(())
}
