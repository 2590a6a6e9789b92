//! Events at the API server (`--events`): the device of a container's unit was unplugged, or is
//! back.
//!
//! Never delays the plugin: changes are noted in a queue of bounded length, in which the same
//! change of the same unit has one entry with a count, and one task sends them slowly. kubelet
//! knows the pod: the plugin has no right to read anything at the API server. Must not know how
//! changes are detected.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::client::{ApiServer, Connection, RequestError};
use super::queue::{Change, Entry, Holder, Queue, REPEAT_INTERVAL, SentEvent, Subject, Timestamp};
use crate::host::backoff::Backoff;
use crate::kubernetes::kubelet::{checkpoint, pod_resources};
use crate::kubernetes::metrics::Metrics;
use crate::kubernetes::resources::names::fingerprint;

/// The component that reports the events.
const COMPONENT: &str = "oci-hotplug-device-plugin";

/// The interval between two requests.
const SEND_INTERVAL: Duration = Duration::from_millis(200);

/// The backoff after requests that failed: each is twice the one before.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The changes to be reported.
pub(crate) struct Events {
    queue: Mutex<Queue>,
    noted: Notify,
    metrics: Arc<Metrics>,
}

impl Events {
    /// No changes yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            queue: Mutex::default(),
            noted: Notify::new(),
            metrics,
        }
    }

    /// Adds a change of a unit that a container has (`namespace/pod/container`, if known); `place`
    /// is the place of its device.
    pub(crate) fn note(
        &self,
        resource: &str,
        unit: &str,
        place: &str,
        container: Option<&str>,
        change: Change,
    ) {
        let subject = Subject {
            resource: resource.to_owned(),
            unit: unit.to_owned(),
            change,
        };
        if self.queue().note(subject, place, container, Timestamp::now()) {
            self.noted.notify_one();
        } else {
            self.metrics.count_events("dropped", 1);
        }
    }

    /// Whether the queue contains the removal of the unit's device.
    pub(crate) fn has_vanished(&self, resource: &str, unit: &str) -> bool {
        let subject = Subject {
            resource: resource.to_owned(),
            unit: unit.to_owned(),
            change: Change::Vanished,
        };
        self.queue().has(&subject)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Reporter {
    events: Arc<Events>,
    server: ApiServer,
    /// kubelet's pod-resources socket, and its directory of device plugins.
    pod_resources: PathBuf,
    kubelet_dir: PathBuf,
    /// The host's name, which usually is that of the node.
    node: String,
    /// Open while there are changes to send.
    connection: Option<Connection>,
    backoff: Backoff,
    has_failed: bool,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterFailure {
    Retry,
    /// The server will never accept the event.
    Drop,
}

impl Reporter {
    /// Sends nothing before it runs.
    pub(crate) fn new(
        events: Arc<Events>,
        server: ApiServer,
        pod_resources: PathBuf,
        kubelet_dir: PathBuf,
        node: String,
    ) -> Self {
        Self {
            events,
            server,
            pod_resources,
            kubelet_dir,
            node,
            connection: None,
            backoff: Backoff::new(MIN_BACKOFF),
            has_failed: false,
        }
    }

    /// Sends one change after the other, forever.
    pub(crate) async fn run(mut self) {
        loop {
            let next = self.events.queue().next();
            match next {
                Some((at, subject, entry)) if at <= Instant::now() => self.report(&subject, &entry).await,
                Some((at, ..)) => {
                    self.connection = None;
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = self.events.noted.notified() => {}
                    }
                }
                None => {
                    self.connection = None;
                    self.events.noted.notified().await;
                }
            }
        }
    }

    /// Sends an event for an entry, if its container still has the unit.
    async fn report(&mut self, subject: &Subject, entry: &Entry) {
        let holder = match self.holder(subject).await {
            Ok(Some(holder)) if entry.container.as_ref().is_none_or(|name| holder.is(name)) => holder,
            Ok(_) => {
                debug!(
                    "{}: the container does not have {} any more",
                    subject.resource, subject.unit
                );
                return self.finish(subject, entry.unsent, None);
            }
            // `pod_resources` logs this as a warning, once.
            Err(error) => {
                debug!(
                    "cannot list pod resources to find the holder of {}: {error}",
                    subject.unit
                );
                return sleep(REPEAT_INTERVAL).await;
            }
        };
        match self.send(subject, entry, holder).await {
            Ok(sent) => {
                if std::mem::take(&mut self.has_failed) {
                    info!("the API server accepts events again");
                }
                self.backoff.reset();
                self.finish(subject, entry.unsent, Some(sent));
                self.events.metrics.count_events("sent", entry.unsent);
                sleep(SEND_INTERVAL).await;
            }
            Err(error) => self.wait_after(&error, subject, entry).await,
        }
    }

    /// Drops or postpones an entry after a failure, and waits. Logs only the first failure until a
    /// request succeeds.
    async fn wait_after(&mut self, error: &RequestError, subject: &Subject, entry: &Entry) {
        self.connection = None;
        let pause = self.backoff.failed(MAX_BACKOFF);
        if !std::mem::replace(&mut self.has_failed, true) {
            warn!("cannot send an event to the API server: {error}{}", hint(error));
        } else {
            debug!("cannot send an event to the API server: {error}");
        }
        match (after_failure(error), error) {
            (AfterFailure::Drop, _) => {
                self.finish(subject, entry.unsent, None);
                self.events.metrics.count_events("failed", entry.unsent);
            }
            // Perhaps only the namespace of this pod has a problem.
            (AfterFailure::Retry, RequestError::Rejected { .. }) => {
                self.events.queue().postpone(subject, Instant::now() + pause);
            }
            (AfterFailure::Retry, _) => {}
        }
        sleep(pause).await;
    }

    fn finish(&self, subject: &Subject, count: u32, sent: Option<SentEvent>) {
        self.events.queue().finish(subject, count, sent, Instant::now());
    }

    /// The container that has a unit now, from kubelet.
    async fn holder(&self, subject: &Subject) -> Result<Option<Holder>, pod_resources::ListError> {
        let holders = pod_resources::list(&self.pod_resources).await?;
        let units = holders.get(&subject.resource);
        let parts = units.and_then(|units| {
            let mut parts = units.get(&subject.unit)?.splitn(3, '/').map(str::to_owned);
            Some((parts.next()?, parts.next()?, parts.next()?))
        });
        let Some((namespace, pod, container)) = parts else {
            return Ok(None);
        };
        let (resource, unit) = (&subject.resource, &subject.unit);
        let uid = checkpoint::pod_uid(&self.kubelet_dir, resource, unit, &container);
        Ok(Some(Holder {
            namespace,
            pod,
            container,
            uid,
        }))
    }

    /// Creates an event, or increases the count of the existing event, which the API server deletes
    /// after an hour.
    async fn send(
        &mut self,
        subject: &Subject,
        entry: &Entry,
        holder: Holder,
    ) -> Result<SentEvent, RequestError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.server.connect().await?),
        };
        let path = format!("/api/v1/namespaces/{}/events", holder.namespace);
        if let Some(sent) = entry.sent.as_ref().filter(|sent| sent.holder == holder) {
            let count = sent.count.saturating_add(entry.unsent);
            let change = json!({
                "count": count, "lastTimestamp": entry.last.1, "message": message(subject, &entry.place) });
            let path = format!("{path}/{}", sent.name);
            let merge = "application/merge-patch+json";
            match connection.send(Method::PATCH, &path, merge, &change).await {
                Err(RequestError::Rejected { status, .. }) if status == StatusCode::NOT_FOUND => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    return Ok(SentEvent {
                        count,
                        ..sent.clone()
                    });
                }
            }
        }
        let name = name(subject, entry, &holder.pod);
        let event = event(subject, entry, &holder, &name, &self.node);
        match connection
            .send(Method::POST, &path, "application/json", &event)
            .await
        {
            // The event exists: the response to an earlier attempt was lost.
            Err(RequestError::Rejected { status, .. }) if status == StatusCode::CONFLICT => {}
            other => other?,
        }
        Ok(SentEvent {
            holder,
            name,
            count: entry.unsent,
        })
    }
}

/// A retry helps if the server is away or busy, or the token is about to be renewed. A missing
/// right may be granted later, for later changes.
fn after_failure(error: &RequestError) -> AfterFailure {
    match error {
        RequestError::Rejected { status, .. } => match *status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => AfterFailure::Retry,
            status if status.is_server_error() => AfterFailure::Retry,
            _ => AfterFailure::Drop,
        },
        RequestError::Request(_) => AfterFailure::Drop,
        _ => AfterFailure::Retry,
    }
}

fn hint(error: &RequestError) -> &'static str {
    match error {
        RequestError::Rejected { status, .. } if *status == StatusCode::FORBIDDEN => {
            " (--events needs the right to create and patch events: packaging/kubernetes/events)"
        }
        _ => " (logged once)",
    }
}

/// The message of the event.
fn message(subject: &Subject, place: &str) -> String {
    let Subject {
        resource,
        unit,
        change,
    } = subject;
    match change {
        Change::Vanished => {
            format!("{resource}: device {unit} was unplugged while in use at {place}; the pod keeps running")
        }
        Change::Returned => format!("{resource}: device {unit} is back at {place}"),
    }
}

/// A unique name of at most 253 letters, the same at each attempt.
fn name(subject: &Subject, entry: &Entry, pod: &str) -> String {
    let pod: String = pod.chars().take(220).collect();
    let pod = pod.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
    format!("{pod}.{}", fingerprint(&format!("{subject:?} {}", entry.last.1)))
}

/// An event of Kubernetes' core API, version v1.
fn event(subject: &Subject, entry: &Entry, holder: &Holder, name: &str, node: &str) -> Value {
    let (reason, kind) = match subject.change {
        Change::Vanished => ("DeviceVanished", "Warning"),
        Change::Returned => ("DeviceReturned", "Normal"),
    };
    let mut about = json!({
        "apiVersion": "v1", "kind": "Pod", "namespace": holder.namespace, "name": holder.pod,
        "fieldPath": format!("spec.containers{{{}}}", holder.container) });
    if let Some(uid) = &holder.uid {
        about["uid"] = json!(uid);
    }
    let at = &entry.last.1;
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "name": name, "namespace": holder.namespace },
        "involvedObject": about,
        "reason": reason, "type": kind, "message": message(subject, &entry.place),
        "source": { "component": COMPONENT, "host": node },
        "reportingComponent": COMPONENT, "reportingInstance": node,
        "firstTimestamp": at, "lastTimestamp": at, "count": entry.unsent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_failures_are_retried_and_rejected_events_are_dropped() {
        let rejected = |status: u16| RequestError::Rejected {
            status: StatusCode::from_u16(status).unwrap(),
            message: String::new(),
        };
        for status in [401, 429, 500, 503] {
            assert_eq!(after_failure(&rejected(status)), AfterFailure::Retry, "{status}");
        }
        for status in [400, 403, 404, 422] {
            assert_eq!(after_failure(&rejected(status)), AfterFailure::Drop, "{status}");
        }
        assert_eq!(after_failure(&RequestError::Timeout), AfterFailure::Retry);
    }
}
