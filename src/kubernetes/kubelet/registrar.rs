//! One resource served and registered with kubelet, and kept so: over kubelet's restarts, lost streams and refusals.
//!
//! Level-triggered: whatever happens (something in kubelet's directory, a stream that ends, time that passes) ends in
//! the same look at three facts: is our socket still the one we listen on, is kubelet still the one that took our
//! registration, does it listen to our list? Must not know what is advertised.

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
use crate::kubernetes::resources::names::{ResourceName, fingerprint};
use crate::kubernetes::status::Counters;

/// The timeout of a registration: kubelet dials back, for at most 10 s, before it answers.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);

/// The timeout for kubelet to open its stream after a registration: if an old stream ended meanwhile, kubelet may have
/// forgotten the new registration with it (kubernetes#121994).
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// The backoff between attempts: each is twice the one before.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Which file this is, for as long as it is: a socket that is made anew is another.
type Identity = (u64, u64, i64, i64);

/// A resource on its way to kubelet.
pub struct Registrar {
    /// The resource.
    pub name: ResourceName,
    /// What answers for it.
    pub plugin: Arc<Plugin>,
    /// kubelet's directory of device plugins.
    pub dir: PathBuf,
    /// Ticks when something has happened there.
    pub stirred: watch::Receiver<u64>,
    /// Where it is counted.
    pub counters: Arc<Counters>,
}

/// Our socket; gone when this is dropped.
struct Listening {
    path: PathBuf,
    identity: Identity,
    /// Ends every connection when it is dropped.
    _server: JoinSet<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Another's, if it is not the one that we made.
        if identity(&self.path) == Some(self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why there is no registration yet.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error("listening on {path}: {source} (is this kubelet's directory of device plugins, and writable?)", path = path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("{path} is another plugin's, which is alive: it has the resource until it ends", path = .0.display())]
    Taken(PathBuf),
    #[error("registering with kubelet at {path}: {source}", path = path.display())]
    Call { path: PathBuf, source: CallError },
    #[error("registering with kubelet at {path}: no answer within {REGISTER_TIMEOUT:?}", path = .0.display())]
    NoAnswer(PathBuf),
    #[error("kubelet took the registration and did not ask for the list within {STREAM_TIMEOUT:?}")]
    NoStream,
}

impl Registrar {
    /// Serves and registers until it is dropped.
    pub async fn run(mut self) {
        let mut backoff = MIN_BACKOFF;
        let mut said = String::new();
        let mut registered = false;
        loop {
            self.counters.set("registered", self.name.as_str(), "", 0);
            let kubelet = self.wait_for_kubelet().await;
            // Made anew for each registration: no stream of the last one is left that could end amid the next.
            let mut turn = false;
            let (error, held) = match self.register().await {
                Ok(listening) => {
                    info!("{}: registered with kubelet", self.name);
                    said.clear();
                    self.counters.add("registrations_total", self.name.as_str());
                    if let (true, Some(metric)) = (
                        std::mem::replace(&mut registered, true),
                        self.plugin.metrics().restarts(),
                    ) {
                        self.counters.add(metric, self.name.as_str());
                    }
                    self.counters.set("registered", self.name.as_str(), "", 1);
                    let begin = tokio::time::Instant::now();
                    let reason = self.until_lost(kubelet, &listening).await;
                    (reason.to_owned(), begin.elapsed())
                }
                Err(error) => {
                    turn = matches!(error, RegisterError::Taken(_));
                    (error.to_string(), Duration::ZERO)
                }
            };
            // A registration that lasted is no failure: the next attempt comes at once.
            if held > MAX_BACKOFF {
                backoff = MIN_BACKOFF;
            }
            // Told once, and not at each attempt.
            if error != said {
                warn!("{}: {error}; trying again", self.name);
                said = error;
            }
            if turn {
                // The other's socket goes when it ends, and that is seen.
                let _ = timeout(MAX_BACKOFF, self.stir()).await;
                continue;
            }
            self.pause(kubelet, backoff).await;
            backoff = if identity(&self.kubelet_socket()) == Some(kubelet) {
                (backoff * 2).min(MAX_BACKOFF)
            } else {
                MIN_BACKOFF
            };
        }
    }

    fn kubelet_socket(&self) -> PathBuf {
        self.dir.join(api::KUBELET_SOCKET)
    }

    /// Waits until kubelet has a socket.
    async fn wait_for_kubelet(&mut self) -> Identity {
        loop {
            self.stirred.borrow_and_update();
            if let Some(kubelet) = identity(&self.kubelet_socket()) {
                return kubelet;
            }
            self.stir().await;
        }
    }

    /// Waits, but no longer than until there is another kubelet.
    async fn pause(&mut self, kubelet: Identity, at_most: Duration) {
        let other = async {
            loop {
                self.stirred.borrow_and_update();
                let now = identity(&self.dir.join(api::KUBELET_SOCKET));
                if now.is_some_and(|now| now != kubelet) {
                    return;
                }
                if self.stirred.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let _ = timeout(at_most, other).await;
    }

    async fn stir(&mut self) {
        if self.stirred.changed().await.is_err() {
            // Nobody is left to tell: the program ends.
            sleep(MAX_BACKOFF).await;
        }
    }

    /// Serves, registers, and waits until kubelet listens.
    async fn register(&self) -> Result<Listening, RegisterError> {
        let mut streams = self.plugin.streams();
        // The last one's connections end in their own time, and must not be taken for this one's.
        let _ = timeout(STREAM_TIMEOUT, streams.wait_for(|open| *open == 0)).await;
        let listening = self.listen().await?;
        let path = self.kubelet_socket();
        let asked = api::RegisterRequest {
            version: api::VERSION.to_owned(),
            endpoint: socket_name(&self.name),
            resource_name: self.name.to_string(),
            options: Some(self.plugin.options()),
        };
        let call = async {
            let kubelet = Client::connect(&path).await?;
            kubelet.unary::<_, api::Empty>(api::REGISTER, asked).await
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
        let fault = |source| RegisterError::Listen {
            path: path.clone(),
            source,
        };
        // Whoever answers there is alive: of two that take turns, kubelet would keep neither (kubernetes#121994).
        if UnixStream::connect(&path).await.is_ok() {
            return Err(RegisterError::Taken(path));
        }
        // Else it was left by a plugin that was killed.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(fault)?;
        let identity = identity(&path).ok_or_else(|| fault(io::ErrorKind::NotFound.into()))?;
        let plugin = Arc::clone(&self.plugin);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let served = grpc::serve_grpc(listener, move |request| Arc::clone(&plugin).answer(request)).await;
            let Err(error) = served;
            warn!("accepting kubelet's calls: {error}");
        });
        Ok(Listening {
            path,
            identity,
            _server: server,
        })
    }

    /// Waits until the registration is worth nothing any more; returns why.
    async fn until_lost(&mut self, kubelet: Identity, listening: &Listening) -> &'static str {
        let mut streams = self.plugin.streams();
        loop {
            self.stirred.borrow_and_update();
            let now = identity(&self.kubelet_socket());
            if now.is_some_and(|now| now != kubelet) {
                return "kubelet was restarted";
            }
            if identity(&listening.path) != Some(listening.identity) {
                return "our socket was removed, as a kubelet that starts does";
            }
            if *streams.borrow_and_update() == 0 {
                return "kubelet does not listen to the list any more";
            }
            debug!("{}: the registration stands", self.name);
            tokio::select! {
                changed = streams.changed() => {
                    if changed.is_err() {
                        return "the plugin ended";
                    }
                }
                () = self.stir() => {}
            }
        }
    }
}

/// The name of a resource's socket. Short, as a socket's path must fit into 107 bytes (unix(7)).
fn socket_name(resource: &ResourceName) -> String {
    let short: String = resource.short().chars().take(24).collect();
    format!(
        "oci-hotplug-{short}-{}.sock",
        &fingerprint(resource.as_str())[..8]
    )
}

fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::symlink_metadata(path).ok()?;
    // An inode's number is soon given to another: the time tells them apart.
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}
