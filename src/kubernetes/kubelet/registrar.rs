//! Serves one resource and keeps it registered with kubelet, despite restarts of kubelet, lost
//! streams and refusals.
//!
//! Level-triggered: every event (a change in kubelet's directory, the end of a stream, a timer)
//! leads to the same three checks: the plugin's socket is still the one that it listens on, kubelet
//! is still the process that accepted the registration, and kubelet reads the list. Must not know
//! what is advertised.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::api;
use super::grpc::{self, CallError, Client};
use super::plugin::Plugin;
use crate::host::backoff::Backoff;
use crate::host::file_system::file_id;
use crate::kubernetes::metrics::Metrics;
use crate::kubernetes::resources::names::{ResourceName, fingerprint};

/// The timeout of a registration: before kubelet answers, it connects back for at most 10 s.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);

/// The timeout for kubelet to open its stream after a registration: if an old stream ended
/// meanwhile, kubelet may have forgotten the new registration with it (kubernetes#121994).
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// The backoff between attempts: each is twice the one before.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Identifies a file: device, inode and change time. A socket that is created again has another
/// identity.
type Identity = ((u64, u64), i64, i64);

/// The registration of one resource.
pub(crate) struct Registrar {
    pub name: ResourceName,
    /// Answers kubelet's calls.
    pub plugin: Arc<Plugin>,
    pub dir: PathBuf,
    /// Changes whenever that directory changes.
    pub changes: watch::Receiver<u64>,
    pub metrics: Arc<Metrics>,
}

/// The plugin's socket; removed on drop.
struct Listening {
    path: PathBuf,
    identity: Identity,
    /// Ends every connection on drop.
    _server: JoinSet<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // A socket with another identity belongs to another plugin.
        if identity(&self.path) == Some(self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("cannot listen on {path}: {source} (is this kubelet's directory of device plugins, and is it writable?)", path = path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("{path} belongs to another running plugin, which serves the resource until it ends (stop one of the two)", path = .0.display())]
    Taken(PathBuf),
    #[error("cannot register with kubelet at {path}: {source}", path = path.display())]
    Call { path: PathBuf, source: CallError },
    #[error("cannot register with kubelet at {path}: no response within {REGISTER_TIMEOUT:?}", path = .0.display())]
    NoAnswer(PathBuf),
    #[error("kubelet accepted the registration but did not call ListAndWatch within {STREAM_TIMEOUT:?}")]
    NoStream,
}

impl Registrar {
    /// Serves and registers until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(MIN_BACKOFF);
        let mut logged = String::new();
        let mut was_registered = false;
        loop {
            self.metrics.set_registered(self.name.as_str(), false);
            let kubelet = self.wait_for_kubelet().await;
            // Use a new socket for each registration, so that no stream of the previous
            // registration can end during the next.
            let mut is_taken = false;
            let (error, lasted) = match self.register().await {
                Ok(listening) => {
                    info!("{}: registered with kubelet", self.name);
                    logged.clear();
                    let is_restart = std::mem::replace(&mut was_registered, true);
                    let format = self.plugin.format();
                    self.metrics
                        .count_registration(self.name.as_str(), format, is_restart);
                    self.metrics.set_registered(self.name.as_str(), true);
                    let begin = tokio::time::Instant::now();
                    let reason = self.until_lost(kubelet, &listening).await;
                    (reason.to_owned(), begin.elapsed())
                }
                Err(error) => {
                    is_taken = matches!(error, RegisterError::Taken(_));
                    (error.to_string(), Duration::ZERO)
                }
            };
            // A registration that lasted is not a failure: try again at once.
            if lasted > MAX_BACKOFF {
                backoff.reset();
            }
            // Logged once, not at each attempt.
            if error != logged {
                warn!("{}: {error}; trying again", self.name);
                logged = error;
            }
            if is_taken {
                // When the other plugin ends, its socket disappears, which changes the directory.
                let _ = timeout(MAX_BACKOFF, self.change()).await;
                continue;
            }
            self.pause(kubelet, backoff.failed(MAX_BACKOFF)).await;
            if identity(&self.kubelet_socket()) != Some(kubelet) {
                backoff.reset();
            }
        }
    }

    fn kubelet_socket(&self) -> PathBuf {
        self.dir.join(api::KUBELET_SOCKET)
    }

    /// Waits until kubelet's socket exists.
    async fn wait_for_kubelet(&mut self) -> Identity {
        loop {
            self.changes.borrow_and_update();
            if let Some(kubelet) = identity(&self.kubelet_socket()) {
                return kubelet;
            }
            self.change().await;
        }
    }

    /// Waits; returns early if kubelet was restarted.
    async fn pause(&mut self, kubelet: Identity, at_most: Duration) {
        let restarted = async {
            loop {
                self.changes.borrow_and_update();
                let now = identity(&self.dir.join(api::KUBELET_SOCKET));
                if now.is_some_and(|now| now != kubelet) {
                    return;
                }
                if self.changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let _ = timeout(at_most, restarted).await;
    }

    /// Waits for a change in kubelet's directory.
    async fn change(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender is gone because the program is ending.
            sleep(MAX_BACKOFF).await;
        }
    }

    /// Serves, registers, and waits until kubelet reads the list.
    async fn register(&self) -> Result<Listening, RegisterError> {
        let mut streams = self.plugin.streams();
        // Streams of the previous registration end late, and must not count for this one.
        let _ = timeout(STREAM_TIMEOUT, streams.wait_for(|open| *open == 0)).await;
        let listening = self.listen().await?;
        let path = self.kubelet_socket();
        let request = api::RegisterRequest {
            version: api::VERSION.to_owned(),
            endpoint: socket_name(&self.name),
            resource_name: self.name.to_string(),
            options: Some(self.plugin.options()),
        };
        let call = async {
            let kubelet = Client::connect(&path).await?;
            kubelet.unary::<_, api::Empty>(api::REGISTER, request).await
        };
        timeout(REGISTER_TIMEOUT, call)
            .await
            .map_err(|_| RegisterError::NoAnswer(path.clone()))?
            .map_err(|source| RegisterError::Call { path, source })?;
        let opened = timeout(STREAM_TIMEOUT, streams.wait_for(|open| *open > 0)).await;
        opened
            .map_err(|_| RegisterError::NoStream)?
            .map_err(|_| RegisterError::NoStream)?;
        Ok(listening)
    }

    async fn listen(&self) -> Result<Listening, RegisterError> {
        let path = self.dir.join(socket_name(&self.name));
        let listen_error = |source| RegisterError::Listen {
            path: path.clone(),
            source,
        };
        // If a plugin answers, it is running. If two plugins took turns, kubelet would keep neither
        // (kubernetes#121994).
        if UnixStream::connect(&path).await.is_ok() {
            return Err(RegisterError::Taken(path));
        }
        // A socket that does not answer was left by a plugin that was killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen_error(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(listen_error)?;
        let identity = identity(&path).ok_or_else(|| listen_error(io::ErrorKind::NotFound.into()))?;
        let plugin = Arc::clone(&self.plugin);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let served =
                grpc::serve_grpc(listener, move |request| Arc::clone(&plugin).respond(request)).await;
            let Err(error) = served;
            warn!("cannot accept kubelet's calls: {error}");
        });
        Ok(Listening {
            path,
            identity,
            _server: server,
        })
    }

    /// Waits until the registration is lost; returns why.
    async fn until_lost(&mut self, kubelet: Identity, listening: &Listening) -> &'static str {
        let mut streams = self.plugin.streams();
        loop {
            self.changes.borrow_and_update();
            let now = identity(&self.kubelet_socket());
            if now.is_some_and(|now| now != kubelet) {
                return "kubelet was restarted";
            }
            if identity(&listening.path) != Some(listening.identity) {
                return "the plugin's socket was removed, as kubelet does when it starts";
            }
            if *streams.borrow_and_update() == 0 {
                return "kubelet closed the ListAndWatch stream";
            }
            debug!("{}: the registration is valid", self.name);
            tokio::select! {
                changed = streams.changed() => {
                    if changed.is_err() {
                        return "the plugin ended";
                    }
                }
                () = self.change() => {}
            }
        }
    }
}

/// The name of a resource's socket, kept short because a socket's path has at most 107 bytes
/// (unix(7)).
fn socket_name(resource: &ResourceName) -> String {
    let short: String = resource.short().chars().take(24).collect();
    format!(
        "oci-hotplug-{short}-{}.sock",
        &fingerprint(resource.as_str())[..8]
    )
}

fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::symlink_metadata(path).ok()?;
    // A new file may get the inode number of the old one: the change time distinguishes them.
    Some((file_id(&found), found.ctime(), found.ctime_nsec()))
}
