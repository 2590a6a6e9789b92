//! createRuntime or prestart: what does the container ask for, and is somebody watching?
//!
//! state JSON -> requests (annotations, arguments) -> container -> enroll -> launch, or join the watcher there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::host::config::{Config, ConfigError};
use crate::host::container::ContainerFacts;
use crate::host::engine_names;
use crate::host::process::{ProcessError, boot_id, start_time};
use crate::host::state::cgroup_owners;
use crate::host::state::control::{ControlError, ControlRequest, ControlResponse};
use crate::host::state::error::RegistryError;
use crate::host::state::leftovers;
use crate::host::state::record::{Record, STATE_VERSION};
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::model::oci::engine;
use crate::model::oci::{
    Annotations, BundleConfig, BundleConfigError, ContainerId, HookState, bundle_argument,
};
use crate::model::policy::{Circumstances, Denial, Policy};
use crate::model::quoting::shown;
use crate::model::request::annotations::{self, AnnotationError, AskError};
use crate::model::request::class::Classes;
use crate::model::request::entry::{Origin, Requests};
use crate::watcher::launch::{LaunchError, ask_or_start, launch};

/// The longest config.json that is read.
const MAX_CONFIG: u64 = 16 << 20;

/// The longest path that the kernel takes, in bytes (PATH_MAX without the NUL, limits.h).
const MAX_PATH: usize = 4095;

/// What the hook was told on its command line.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// `--device`: trusted requests, each a list as in the annotation.
    pub devices: Vec<String>,
    /// `--symlink`: rules for links, each a list as in the annotation.
    pub symlinks: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The container asks for nothing.
    NotOurs,
    /// The container is watched, and what is present is in place.
    Watched,
}

/// Why the container must not start.
#[derive(Debug, thiserror::Error)]
pub enum PrestartError {
    /// A malformed annotation.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A malformed argument.
    #[error("{source} (argument {argument} of the hook)")]
    Argument {
        /// `--device` or `--symlink`.
        argument: &'static str,
        /// What is wrong.
        source: AskError,
    },
    /// The bundle.
    #[error("reading {path}: {source}", path = path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bundle's config.json.
    #[error(transparent)]
    BundleConfig(#[from] BundleConfigError),
    /// A bundle or root file system whose path no runtime would have made.
    #[error(
        "the container's {what} \"{shown}\": a path must have at most {MAX_PATH} bytes and no control characters"
    )]
    Path {
        /// Which path.
        what: &'static str,
        /// Its beginning, made visible.
        shown: String,
    },
    /// Our own configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A state that lacks what this stage needs.
    #[error("the container's state has no {0} (this hook belongs to stage createRuntime or prestart)")]
    Lacks(&'static str),
    /// The container.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The state directory.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The watcher.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The watcher that is there already.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// What the watcher says.
    #[error("{0}")]
    Failed(String),
    /// What the policy says of a request.
    #[error("device request {request:?}: {denial}")]
    Denied {
        /// The request.
        request: String,
        /// The rule, its reason and the hint.
        denial: Box<Denial>,
    },
    /// What the policy says of the devices that are there, by the watcher.
    #[error("{0}")]
    Refused(String),
    /// An earlier container of this id.
    #[error(
        "the watcher of an earlier container of this id is still there after {0:?} (oci-hotplug list shows it)"
    )]
    Predecessor(Duration),
}

impl PrestartError {
    /// Whether the container's request itself is at fault.
    pub fn is_malformed_request(&self) -> bool {
        match self {
            Self::Annotation(AnnotationError::Key { .. }) => true,
            Self::Annotation(AnnotationError::Value { source, .. }) | Self::Argument { source, .. } => {
                !source.is_refusal() && !source.is_of_configuration()
            }
            _ => false,
        }
    }

    /// Whether the policy refuses it.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Refused(_) => true,
            Self::Annotation(error) => error.is_refusal(),
            _ => false,
        }
    }
}

/// Sees to it that the container whose state this is has a watcher, if it asks for anything.
///
/// # Errors
/// When the request is malformed, or the container can't have what it asks for: then it must not start.
pub fn run(
    state: &HookState,
    arguments: &Arguments,
    config: &Config,
    registry: &Registry,
) -> Result<Outcome, PrestartError> {
    let started = Instant::now();
    let mended = mended(state);
    let state = mended.as_ref().unwrap_or(state);
    // The bundle is read only when it must be: most containers ask for nothing.
    let mut bundle = None;
    let classes = config.usable_classes();
    let mut asks = annotations::read(&state.annotations, &config.lowrisc, &classes)?;
    if asks.is_empty() && state.bundle.is_some() {
        let config_json = read_bundle(state)?;
        asks = annotations::read(&config_json.annotations, &config.lowrisc, &classes)?;
        bundle = Some(config_json);
    }
    add_arguments(&mut asks, arguments, &classes)?;
    if asks.is_empty() {
        return Ok(Outcome::NotOurs);
    }
    let bundle = match bundle {
        Some(bundle) => bundle,
        None => read_bundle(state)?,
    };
    let circumstances = circumstances(state, &bundle);
    authorise(&config.usable_policy(), &circumstances, &asks)?;
    let record = record(state, bundle, asks, circumstances, config)?;
    let answer = enroll(registry, &state.id, &record, config, started)?;
    match answer {
        ControlResponse::Failed(reason) => Err(PrestartError::Failed(reason)),
        ControlResponse::Refused(reason) => Err(PrestartError::Refused(reason)),
        _ => Ok(Outcome::Watched),
    }
}

/// Whether the container requests anything, well or badly; one that does not is started whatever is wrong here.
pub fn has_request(state: &HookState, arguments: &Arguments) -> bool {
    let is_ours = |annotations: &Annotations| annotations.keys().any(|key| annotations::is_ours(key));
    !arguments.devices.is_empty() || !arguments.symlinks.is_empty() || is_ours(&state.annotations) || {
        let mended = mended(state);
        let state = mended.as_ref().unwrap_or(state);
        state.bundle.is_some() && read_bundle(state).map_or(true, |bundle| is_ours(&bundle.annotations))
    }
}

/// What the engine calls the container; for people.
pub fn engine_name(state: &HookState) -> Option<String> {
    let mended = mended(state);
    let state = mended.as_ref().unwrap_or(state);
    let bundle = read_bundle(state).ok()?;
    let mut annotations = bundle.annotations;
    annotations.extend(state.annotations.clone());
    let facts = ContainerFacts {
        id: state.id.as_str().to_owned(),
        pid: state.pid.unwrap_or_default(),
        start_time: 0,
        bundle: state.bundle.clone()?,
        rootfs: bundle.rootfs,
        cgroups_path: None,
        user: bundle.user,
    };
    engine::name(&annotations)
        .or_else(|| engine_names::name(engine::engine(&facts.bundle, &annotations)?, &facts))
}

fn add_arguments(asks: &mut Requests, arguments: &Arguments, classes: &Classes) -> Result<(), PrestartError> {
    for text in &arguments.devices {
        let more = annotations::read_list(Origin::Root, text, classes).map_err(|source| {
            PrestartError::Argument {
                argument: "--device",
                source,
            }
        })?;
        asks.extend(more);
    }
    for text in &arguments.symlinks {
        let rules = crate::model::request::symlink::parse_symlinks(text).map_err(|source| {
            PrestartError::Argument {
                argument: "--symlink",
                source: source.into(),
            }
        })?;
        asks.symlinks.extend(rules);
    }
    Ok(())
}

/// The state with the bundle that has the container's config.json, where its own has none.
fn mended(state: &HookState) -> Option<HookState> {
    bundle_told_by_runtime(state).map(|bundle| HookState {
        bundle: Some(bundle),
        ..state.clone()
    })
}

/// The bundle that has the container's config.json, where the state's has none. crun 1.21 names its own working directory,
/// which is the root once it has mounted an engine's device into a user namespace (setns(2) into a mount namespace moves it
/// there); its command line still has what it was told.
fn bundle_told_by_runtime(state: &HookState) -> Option<PathBuf> {
    let has_config = |bundle: &Path| bundle != Path::new("/") && bundle.join("config.json").exists();
    if state.bundle.as_deref().is_some_and(has_config) {
        return None;
    }
    bundle_argument(&parent_command_line()?, &state.id).filter(|bundle| has_config(bundle))
}

/// The command line of the runtime that started this hook. What it says is believed as far as the state is that it
/// wrote: it runs as the same user.
fn parent_command_line() -> Option<Vec<u8>> {
    let runtime = format!("/proc/{}", nix::unistd::getppid());
    let owner = fs::metadata(&runtime).ok()?.uid();
    (owner == nix::unistd::geteuid().as_raw()).then_some(())?;
    fs::read(format!("{runtime}/cmdline")).ok()
}

fn read_bundle(state: &HookState) -> Result<BundleConfig, PrestartError> {
    let bundle = state.bundle.as_deref().ok_or(PrestartError::Lacks("bundle"))?;
    check_path("bundle", bundle)?;
    let path = bundle.join("config.json");
    let json = read_file(&path).map_err(|source| PrestartError::Bundle { path, source })?;
    let config = BundleConfig::parse(bundle, &json)?;
    check_path("root file system", &config.rootfs)?;
    Ok(config)
}

/// Messages show these paths as they are.
fn check_path(what: &'static str, path: &Path) -> Result<(), PrestartError> {
    let text = path.to_string_lossy();
    if text.len() <= MAX_PATH && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(PrestartError::Path {
        what,
        shown: shown(&text, 80),
    })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_CONFIG + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {MAX_CONFIG} bytes"),
        ));
    }
    Ok(text)
}

/// The bundle's annotations are those that the engine wrote; some runtimes add to them in the state.
fn circumstances(state: &HookState, bundle: &BundleConfig) -> Circumstances {
    let mut annotations = bundle.annotations.clone();
    annotations.extend(state.annotations.clone());
    Circumstances::new(annotations, bundle.user_namespace, bundle.allows_every_device)
}

fn authorise(policy: &Policy, circumstances: &Circumstances, asks: &Requests) -> Result<(), PrestartError> {
    for entry in &asks.entries {
        policy
            .authorise(circumstances, entry)
            .map_err(|denial| PrestartError::Denied {
                request: entry.request.to_string(),
                denial: Box::new(denial),
            })?;
    }
    Ok(())
}

fn record(
    state: &HookState,
    bundle: BundleConfig,
    asks: Requests,
    circumstances: Circumstances,
    config: &Config,
) -> Result<Record, PrestartError> {
    let pid = state.pid.ok_or(PrestartError::Lacks("pid"))?;
    Ok(Record {
        version: STATE_VERSION,
        container: ContainerFacts {
            id: state.id.as_str().to_owned(),
            pid,
            start_time: start_time(pid)?,
            bundle: state.bundle.clone().unwrap_or_default(),
            rootfs: bundle.rootfs,
            cgroups_path: bundle.cgroups_path,
            user: bundle.user,
        },
        requests: asks.entries,
        symlinks: asks.symlinks,
        enrolled: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        circumstances,
        config: config.named.clone(),
        boot: boot_id(),
    })
}

/// Starts a watcher, or joins the one that is there; a watcher of an earlier container of the same id is on its
/// way out, and waited for.
fn enroll(
    registry: &Registry,
    id: &ContainerId,
    record: &Record,
    config: &Config,
    started: Instant,
) -> Result<ControlResponse, PrestartError> {
    let patience = config.prestart_timeout;
    let question = ControlRequest::Add {
        container: record.container.clone(),
        entries: record.requests.clone(),
        symlinks: record.symlinks.clone(),
    };
    let answer = ask_or_start(
        registry,
        id,
        &record.container,
        &question,
        started + patience,
        |lock, left| start(registry, id, lock, record, config, left),
    )?;
    match answer {
        ControlResponse::Gone => Err(PrestartError::Predecessor(patience)),
        answer => Ok(answer),
    }
}

fn start(
    registry: &Registry,
    id: &ContainerId,
    lock: RecordLock,
    record: &Record,
    config: &Config,
    patience: Duration,
) -> Result<ControlResponse, PrestartError> {
    match lock.record() {
        // Its watcher died: what an earlier hook of this container asked for, and what is inside, stays.
        Ok(Some(before)) if before.is_of(&record.container) => {
            lock.write_record(&before.joined_by(record))?
        }
        _ => {
            // An earlier container of this id may have had the same root file system.
            leftovers::remove_files(&lock);
            lock.clear()?;
            lock.write_record(record)?;
        }
    }
    let answer = launch(registry, id, &lock, config.named.as_deref(), patience);
    if !matches!(answer, Ok(ControlResponse::Done)) {
        // The container will not start: nothing of it is to be left. The watcher is gone or going, and until
        // it is, the lock that we share keeps others out.
        lock.remove()?;
        cgroup_owners::sweep(registry.root());
    }
    Ok(answer?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{Access, DevKind, DevNum, Device, SysPath};
    use crate::model::oci::ProcessUser;
    use crate::model::plan::attachment::{Attachment, Attachments, NodeCreator, NodeSpec};

    fn record_of(pid: i32, bundle: &Path) -> Record {
        Record {
            version: STATE_VERSION,
            container: ContainerFacts {
                id: "c1".into(),
                pid,
                start_time: 1,
                bundle: bundle.to_owned(),
                rootfs: bundle.join("rootfs"),
                cgroups_path: None,
                user: ProcessUser::default(),
            },
            requests: Vec::new(),
            symlinks: Vec::new(),
            enrolled: 0,
            circumstances: Circumstances::default(),
            config: None,
            boot: String::new(),
        }
    }

    /// Case security 10.
    #[test]
    fn what_an_earlier_run_left_on_the_disk_is_not_in_the_way_of_the_next() {
        let scratch = tempfile::tempdir().unwrap();
        let bundle = scratch.path();
        let dev = bundle.join("rootfs/dev");
        fs::create_dir_all(&dev).unwrap();
        for (link, target) in [("ours", "ttyUSB0"), ("theirs", "null")] {
            std::os::unix::fs::symlink(target, dev.join(link)).unwrap();
        }
        let num = DevNum {
            kind: DevKind::Char,
            major: 188,
            minor: 0,
        };
        let mut attachments = Attachments::default();
        attachments.insert(
            "/dev/ttyUSB0".into(),
            Attachment {
                device: Device::new(SysPath::new("/sys/devices/x")),
                access: Access::ALL,
                node: NodeSpec {
                    num,
                    mode: 0o660,
                    uid: 0,
                    gid: 0,
                },
                node_creator: NodeCreator::Watcher,
                links: [("/dev/ours".into(), NodeCreator::Watcher)].into(),
                announced: None,
                since: 0,
            },
        );
        let registry = Registry::new(bundle.join("state"));
        let id: ContainerId = "c1".parse().unwrap();
        let lock = registry.try_enroll(&id).unwrap().unwrap();
        // No process has such a number.
        lock.write_record(&record_of(i32::MAX - 1, bundle)).unwrap();
        lock.write_attached(&serde_json::json!({ "version": STATE_VERSION, "attachments": attachments }))
            .unwrap();
        let next = record_of(i32::MAX, bundle);
        let patience = Duration::from_secs(5);
        // There is no such container, and perhaps no watcher's program.
        let _ = start(&registry, &id, lock, &next, &Config::default(), patience);
        let left: Vec<_> = fs::read_dir(&dev)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["theirs"]);
    }

    #[test]
    fn a_state_without_a_bundle_requests_nothing() {
        let state = |text: &str| crate::hook::read_state(text.as_bytes()).unwrap();
        let bare = r#"{"ociVersion":"1.0.2","id":"c1","status":"created","pid":1"#;
        assert!(!has_request(&state(&format!("{bare}}}")), &Arguments::default()));
        let absent = state(&format!(r#"{bare},"bundle":"/no/such/bundle"}}"#));
        assert!(has_request(&absent, &Arguments::default()));
    }
}
