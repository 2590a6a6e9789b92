//! The hook of stage createRuntime or prestart: reads the container's requests, and gives it a
//! watcher.
//!
//! ```text
//! state JSON -> requests (annotations, arguments) -> policy -> record -> enroll
//! ```

use std::time::{Duration, Instant};

use super::bundle::{self, BundleError};
use crate::host::config::{Config, ConfigError};
use crate::host::container::ContainerFacts;
use crate::host::engine_names;
use crate::host::process::{ProcessError, start_time};
use crate::host::rootless::rootless;
use crate::host::rootless_check::{self, RootlessError};
use crate::host::state::control::ControlResponse;
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::model::oci::engine;
use crate::model::oci::{Annotations, BundleConfig, HookState};
use crate::model::policy::{ContainerTraits, Denial, Policy};
use crate::model::request::annotations::{self, AnnotationError, RequestListError};
use crate::model::request::class::Classes;
use crate::model::request::entry::{Origin, Requests};
use crate::model::request::symlink::parse_symlinks;
use crate::model::udev_database::UdevMode;
use crate::watcher::enroll::{EnrollError, Enroller, enroll};

/// The requests on the command line of the hook.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments {
    /// `--device`: trusted requests, each a list as in the annotation.
    pub devices: Vec<String>,
    /// `--symlink`: rules for links, each a list as in the annotation.
    pub symlinks: Vec<String>,
    /// `--udev`: whether the container gets a udev database.
    pub udev: Option<UdevMode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The container requests nothing.
    NotOurs,
    /// The container has a watcher, and the devices that are present are attached.
    Watched,
}

/// The reason why the container must not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrestartError {
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// An argument of the hook is malformed.
    #[error("{source} (argument {argument} of the hook)")]
    Argument {
        /// `--device` or `--symlink`.
        argument: &'static str,
        source: RequestListError,
    },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state is not that of a container that is being started.
    #[error("the container's state has no pid (this hook belongs to stage createRuntime or prestart)")]
    NoPid,
    /// The container's process cannot be examined.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A rootless engine runs the container, and cannot give it what it requests.
    #[error(transparent)]
    Rootless(#[from] RootlessError),
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The watcher failed, with this message.
    #[error("{0}")]
    Failed(String),
    /// The policy denies a request.
    #[error("device request {request:?}: {denial}")]
    Denied {
        request: String,
        /// The rule, its reason and the hint.
        denial: Box<Denial>,
    },
    /// The policy denies a device that is present, with the watcher's message.
    #[error("{0}")]
    Refused(String),
    /// An earlier container with this id has not ended.
    #[error(
        "the watcher of an earlier container with this id has not ended after {0:?} (`oci-hotplug list` shows it)"
    )]
    Predecessor(Duration),
}

impl PrestartError {
    /// Whether a request of the container is malformed.
    pub(crate) fn is_malformed_request(&self) -> bool {
        match self {
            Self::Annotation(AnnotationError::Key { .. }) => true,
            Self::Annotation(AnnotationError::Value { source, .. }) | Self::Argument { source, .. } => {
                !source.is_refusal() && !source.is_of_configuration()
            }
            _ => false,
        }
    }

    /// Whether the policy denies the start.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Refused(_) => true,
            Self::Annotation(error) => error.is_refusal(),
            _ => false,
        }
    }
}

/// Gives the container a watcher, if it requests anything.
///
/// # Errors
/// When a request is malformed, or the container cannot have what it requests: then it must not
/// start.
pub(crate) fn run(
    state: &HookState,
    arguments: &Arguments,
    config: &Config,
    registry: &Registry,
) -> Result<Outcome, PrestartError> {
    let deadline = Instant::now() + config.prestart_timeout;
    let state = &*bundle::with_usable_bundle(state);
    let Some((requests, bundle)) = read_requests(state, arguments, config)? else {
        return Ok(Outcome::NotOurs);
    };
    if let Some(rootless) = rootless() {
        rootless_check::check(rootless, &requests)?;
    }
    let traits = traits(state, &bundle);
    authorise(&config.usable_policy(), &traits, &requests)?;
    let record = record(state, bundle, requests, traits, config)?;
    match enroll(registry, &state.id, &record, config, Enroller::Hook, deadline)? {
        ControlResponse::Failed(reason) => Err(PrestartError::Failed(reason)),
        ControlResponse::Refused(reason) => Err(PrestartError::Refused(reason)),
        ControlResponse::Gone => Err(PrestartError::Predecessor(config.prestart_timeout)),
        _ => Ok(Outcome::Watched),
    }
}

/// The requests of annotations and arguments, with the bundle; `None` if there are none. The bundle
/// is read only if it is needed: most containers request nothing.
fn read_requests(
    state: &HookState,
    arguments: &Arguments,
    config: &Config,
) -> Result<Option<(Requests, BundleConfig)>, PrestartError> {
    let classes = config.usable_classes();
    let mut bundle = None;
    let mut requests = annotations::read(&state.annotations, &config.lowrisc, &classes)?;
    if requests.is_empty() && state.bundle.is_some() {
        let config_json = bundle::read(state)?;
        requests = annotations::read(&config_json.annotations, &config.lowrisc, &classes)?;
        bundle = Some(config_json);
    }
    add_arguments(&mut requests, arguments, &classes)?;
    if requests.is_empty() {
        return Ok(None);
    }
    let bundle = match bundle {
        Some(bundle) => bundle,
        None => bundle::read(state)?,
    };
    Ok(Some((requests, bundle)))
}

fn add_arguments(
    requests: &mut Requests,
    arguments: &Arguments,
    classes: &Classes,
) -> Result<(), PrestartError> {
    let malformed = |argument| move |source| PrestartError::Argument { argument, source };
    for text in &arguments.devices {
        let more = annotations::read_list(Origin::Root, text, classes);
        requests.extend(more.map_err(malformed("--device"))?);
    }
    for text in &arguments.symlinks {
        let rules = parse_symlinks(text).map_err(RequestListError::from);
        requests.symlinks.extend(rules.map_err(malformed("--symlink"))?);
    }
    requests.udev = arguments.udev.or(requests.udev);
    Ok(())
}

/// Whether the container requests anything, well-formed or not. A container without requests is
/// started even with an unusable configuration.
pub(crate) fn has_request(state: &HookState, arguments: &Arguments) -> bool {
    let is_ours = |annotations: &Annotations| annotations.keys().any(|key| annotations::is_ours(key));
    !arguments.devices.is_empty() || !arguments.symlinks.is_empty() || is_ours(&state.annotations) || {
        let state = bundle::with_usable_bundle(state);
        state.bundle.is_some() && bundle::read(&state).map_or(true, |bundle| is_ours(&bundle.annotations))
    }
}

/// The engine's name of the container, for messages.
pub(crate) fn engine_name(state: &HookState) -> Option<String> {
    let state = bundle::with_usable_bundle(state);
    let bundle = bundle::read(&state).ok()?;
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
        read_only_sys: bundle.read_only_sys,
    };
    engine::name(&annotations)
        .or_else(|| engine_names::name(engine::engine(&facts.bundle, &annotations)?, &facts))
}

/// The engine wrote the bundle's annotations; some runtimes add others to the state.
fn traits(state: &HookState, bundle: &BundleConfig) -> ContainerTraits {
    let mut annotations = bundle.annotations.clone();
    annotations.extend(state.annotations.clone());
    ContainerTraits::new(annotations, bundle.user_namespace, bundle.allows_every_device)
}

fn authorise(policy: &Policy, traits: &ContainerTraits, requests: &Requests) -> Result<(), PrestartError> {
    for entry in &requests.entries {
        policy
            .authorise(traits, entry)
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
    mut requests: Requests,
    traits: ContainerTraits,
    config: &Config,
) -> Result<Record, PrestartError> {
    requests.udev.get_or_insert(config.udev);
    let pid = state.pid.ok_or(PrestartError::NoPid)?;
    let container = ContainerFacts {
        id: state.id.as_str().to_owned(),
        pid,
        start_time: start_time(pid)?,
        bundle: state.bundle.clone().unwrap_or_default(),
        rootfs: bundle.rootfs,
        cgroups_path: bundle.cgroups_path,
        user: bundle.user,
        read_only_sys: bundle.read_only_sys,
    };
    Ok(Record::new(container, requests, traits, config.named.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_without_a_bundle_requests_nothing() {
        let state = |text: &str| crate::hook::read_state(text.as_bytes()).unwrap();
        let bare = r#"{"ociVersion":"1.0.2","id":"c1","status":"created","pid":1"#;
        assert!(!has_request(&state(&format!("{bare}}}")), &Arguments::default()));
        let absent = state(&format!(r#"{bare},"bundle":"/no/such/bundle"}}"#));
        assert!(has_request(&absent, &Arguments::default()));
    }
}
