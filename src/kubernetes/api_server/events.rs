//! Events at the API server (`--events`): the device of a container's unit was unplugged, or is back.
//!
//! Never delays the plugin: changes are noted in a queue of bounded length, in which the same change of the same unit has
//! one entry with a count, and one task sends them slowly. kubelet knows the pod: the plugin has no right to read
//! anything at the API server. Must not know how changes are detected.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::client::{ApiServer, Connection, RequestError};
use crate::host::backoff::Backoff;
use crate::kubernetes::kubelet::pod_resources;
use crate::kubernetes::metrics::Metrics;
use crate::kubernetes::resources::names::fingerprint;

/// The component that reports the events.
const COMPONENT: &str = "oci-hotplug-device-plugin";

/// The most changes that are remembered, sent or not. Further changes are counted and not sent.
const MAX_ENTRIES: usize = 256;

/// The same change of the same unit is sent once in this interval, with a count.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The interval between two requests.
const SEND_INTERVAL: Duration = Duration::from_millis(200);

/// The backoff after requests that failed: each is twice the one before.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// kubelet's record of which pod has which devices, in its directory of device plugins (its devicemanager/checkpoint). The only
/// source of a pod's uid that needs no right at the API server; `kubectl describe` finds events by the uid.
const CHECKPOINT: &str = "kubelet_internal_checkpoint";

/// A change of a unit that a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Its device was unplugged.
    Vanished,
    /// Its device is back.
    Returned,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    resource: String,
    unit: String,
    change: Change,
}

/// An entry of the queue.
#[derive(Debug, Clone)]
struct Entry {
    /// The place of the device in sysfs, or its path.
    place: String,
    /// The container that had the unit then (`namespace/pod/container`), if known: a later holder gets no event.
    container: Option<String>,
    /// How often it happened since the last event was sent.
    unsent: u32,
    last: Timestamp,
    not_before: Instant,
    sent: Option<SentEvent>,
}

/// One time, for comparing and as text (RFC 3339).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Timestamp(Instant, String);

impl Timestamp {
    fn now() -> Self {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut text));
        Self(Instant::now(), text)
    }
}

/// An event that the API server has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SentEvent {
    holder: Holder,
    name: String,
    count: u32,
}

/// The container that has a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    namespace: String,
    pod: String,
    container: String,
    uid: Option<String>,
}

impl Holder {
    /// Whether it is the container `namespace/pod/container`.
    fn is(&self, container: &str) -> bool {
        format!("{}/{}/{}", self.namespace, self.pod, self.container) == container
    }
}

/// Changes to send, and those that were sent lately.
#[derive(Debug, Default)]
struct Queue(BTreeMap<Subject, Entry>);

impl Queue {
    /// Adds a change; false if the queue is full.
    fn note(&mut self, subject: Subject, place: &str, container: Option<&str>, now: Timestamp) -> bool {
        if let Some(entry) = self.0.get_mut(&subject) {
            entry.unsent += 1;
            entry.last = now;
            place.clone_into(&mut entry.place);
            entry.container = container.map(str::to_owned);
            return true;
        }
        if self.0.len() >= MAX_ENTRIES {
            let sent = self.0.iter().filter(|(_, entry)| entry.unsent == 0);
            let Some(oldest) = sent.min_by_key(|(_, entry)| &entry.last) else {
                return false;
            };
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        let entry = Entry {
            place: place.to_owned(),
            container: container.map(str::to_owned),
            unsent: 1,
            not_before: now.0,
            last: now,
            sent: None,
        };
        self.0.insert(subject, entry);
        true
    }

    /// The next change to send, and when: the one that has been due longest.
    fn next(&self) -> Option<(Instant, Subject, Entry)> {
        let unsent = self.0.iter().filter(|(_, entry)| entry.unsent > 0);
        let (subject, entry) = unsent.min_by_key(|(_, entry)| (entry.not_before, &entry.last))?;
        Some((entry.not_before, subject.clone(), entry.clone()))
    }

    /// Postpones the changes of a unit that can't be sent now, in their order, behind those of others.
    fn postpone(&mut self, subject: &Subject, to: Instant) {
        let is_of_unit =
            |other: &Subject| (&other.resource, &other.unit) == (&subject.resource, &subject.unit);
        for (_, entry) in self.0.iter_mut().filter(|(other, _)| is_of_unit(other)) {
            entry.not_before = entry.not_before.max(to);
        }
    }

    /// Notes that an event for `count` changes was sent, or (`sent` is `None`) will not be.
    fn finish(&mut self, subject: &Subject, count: u32, sent: Option<SentEvent>, now: Instant) {
        if let Some(entry) = self.0.get_mut(subject) {
            entry.unsent = entry.unsent.saturating_sub(count);
            entry.not_before = now + REPEAT_INTERVAL;
            entry.sent = sent;
        }
    }
}

/// Where changes are noted.
pub struct Events {
    queue: Mutex<Queue>,
    noted: Notify,
    metrics: Arc<Metrics>,
}

impl Events {
    /// No changes yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            queue: Mutex::default(),
            noted: Notify::new(),
            metrics,
        }
    }

    /// Notes a change of a unit that a container has (`namespace/pod/container`, if known); `place` is that of its device.
    pub fn note(&self, resource: &str, unit: &str, place: &str, container: Option<&str>, change: Change) {
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

    /// Whether the queue has that the device of a unit was unplugged.
    pub fn has_vanished(&self, resource: &str, unit: &str) -> bool {
        let subject = Subject {
            resource: resource.to_owned(),
            unit: unit.to_owned(),
            change: Change::Vanished,
        };
        self.queue().0.contains_key(&subject)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the changes to the API server.
pub struct Reporter {
    /// The changes.
    pub events: Arc<Events>,
    /// The API server.
    pub server: ApiServer,
    /// kubelet's pod-resources socket.
    pub pod_resources: PathBuf,
    /// kubelet's directory of device plugins.
    pub kubelet_dir: PathBuf,
    /// The host's name, which usually is that of the node.
    pub node: String,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterFailure {
    Retry,
    /// The server will never accept it.
    Drop,
}

impl Reporter {
    /// Sends the changes one after the other, forever. A failure is logged once until a request succeeds.
    pub async fn run(self) {
        // Open while there are changes to send.
        let mut connection = None;
        let mut backoff = Backoff::new(MIN_BACKOFF);
        let mut has_failed = false;
        loop {
            let next = self.events.queue().next();
            let Some((at, subject, entry)) = next else {
                connection = None;
                self.events.noted.notified().await;
                continue;
            };
            if at > Instant::now() {
                connection = None;
                tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.events.noted.notified() => {}
                }
                continue;
            }
            let holder = match self.holder(&subject).await {
                Ok(Some(holder)) if entry.container.as_ref().is_none_or(|name| holder.is(name)) => holder,
                Ok(_) => {
                    debug!(
                        "{}: the container does not have {} any more",
                        subject.resource, subject.unit
                    );
                    self.finish(&subject, entry.unsent, None);
                    continue;
                }
                // `pod_resources` logs it as a warning, once.
                Err(error) => {
                    debug!(
                        "cannot list pod resources to find the holder of {}: {error}",
                        subject.unit
                    );
                    sleep(REPEAT_INTERVAL).await;
                    continue;
                }
            };
            match self.send(&mut connection, &subject, &entry, holder).await {
                Ok(sent) => {
                    if std::mem::take(&mut has_failed) {
                        info!("the API server accepts events again");
                    }
                    backoff.reset();
                    self.finish(&subject, entry.unsent, Some(sent));
                    self.events.metrics.count_events("sent", entry.unsent);
                    sleep(SEND_INTERVAL).await;
                }
                Err(error) => {
                    connection = None;
                    let pause = backoff.failed(MAX_BACKOFF);
                    if !std::mem::replace(&mut has_failed, true) {
                        warn!("cannot send an event to the API server: {error}{}", hint(&error));
                    } else {
                        debug!("cannot send an event to the API server: {error}");
                    }
                    match (after_failure(&error), &error) {
                        (AfterFailure::Drop, _) => {
                            self.finish(&subject, entry.unsent, None);
                            self.events.metrics.count_events("failed", entry.unsent);
                        }
                        // Perhaps only the namespace of this pod has a problem.
                        (AfterFailure::Retry, RequestError::Rejected { .. }) => {
                            self.events.queue().postpone(&subject, Instant::now() + pause);
                        }
                        (AfterFailure::Retry, _) => {}
                    }
                    sleep(pause).await;
                }
            }
        }
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
        let text = std::fs::read_to_string(self.kubelet_dir.join(CHECKPOINT));
        let uid = text.ok().and_then(|text| uid(&text, subject, &container));
        Ok(Some(Holder {
            namespace,
            pod,
            container,
            uid,
        }))
    }

    /// Creates an event, or raises the count of the event that was created before, which the API server deletes after an hour.
    async fn send(
        &self,
        connection: &mut Option<Connection>,
        subject: &Subject,
        entry: &Entry,
        holder: Holder,
    ) -> Result<SentEvent, RequestError> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.server.connect().await?),
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

/// A retry helps if the server is away or busy, or the token is about to be renewed. A missing right may be granted later, for later
/// changes.
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

/// The uid of the pod that has a unit, from kubelet's checkpoint.
fn uid(checkpoint: &str, subject: &Subject, container: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Checkpoint {
        #[serde(rename = "Data")]
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "PodDeviceEntries")]
        entries: Option<Vec<Assignment>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Assignment {
        #[serde(rename = "PodUID")]
        pod_uid: String,
        container_name: String,
        resource_name: String,
        #[serde(rename = "DeviceIDs")]
        devices: BTreeMap<String, Vec<String>>,
    }
    let checkpoint: Checkpoint = serde_json::from_str(checkpoint).ok()?;
    let is_of_unit = |assignment: &&Assignment| {
        assignment.resource_name == subject.resource
            && assignment.container_name == container
            && assignment
                .devices
                .values()
                .flatten()
                .any(|id| *id == subject.unit)
    };
    let entries = checkpoint.data.entries?;
    let mut uids = entries
        .iter()
        .filter(is_of_unit)
        .map(|assignment| &assignment.pod_uid);
    // Of two pods one has ended: no uid is better than the wrong one.
    let uid = uids.next()?;
    uids.all(|other| other == uid).then(|| uid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(unit: &str, change: Change) -> Subject {
        Subject {
            resource: "example.com/serial".to_owned(),
            unit: unit.to_owned(),
            change,
        }
    }

    fn sent(count: u32) -> Option<SentEvent> {
        let holder = Holder {
            namespace: "default".to_owned(),
            pod: "lab".to_owned(),
            container: "app".to_owned(),
            uid: None,
        };
        let name = "lab.1".to_owned();
        Some(SentEvent { holder, name, count })
    }

    #[test]
    fn a_flapping_unit_has_one_event_per_interval_with_a_count() {
        let (mut queue, flapping) = (Queue::default(), subject("a", Change::Vanished));
        for _ in 0..1000 {
            assert!(queue.note(flapping.clone(), "/sys/a", None, Timestamp::now()));
        }
        let (at, next, entry) = queue.next().unwrap();
        assert!(at <= Instant::now() && next == flapping && entry.unsent == 1000);
        assert!(queue.note(flapping.clone(), "/sys/b", None, Timestamp::now()));
        let now = Instant::now();
        queue.finish(&flapping, entry.unsent, sent(1000), now);
        let (at, _, entry) = queue.next().unwrap();
        assert_eq!(
            (at, entry.unsent, entry.place.as_str()),
            (now + REPEAT_INTERVAL, 1, "/sys/b")
        );
        assert_eq!(entry.sent, sent(1000));
        queue.finish(&flapping, 1, sent(1001), now);
        assert!(queue.next().is_none());
    }

    #[test]
    fn the_change_that_waits_longest_is_next() {
        let mut queue = Queue::default();
        let (first, second) = (subject("b", Change::Vanished), subject("a", Change::Vanished));
        queue.note(first.clone(), "", None, Timestamp::now());
        queue.note(second.clone(), "", None, Timestamp::now());
        assert_eq!(queue.next().unwrap().1, first);
        queue.finish(&first, 1, None, Instant::now());
        queue.note(first, "", None, Timestamp::now());
        assert_eq!(queue.next().unwrap().1, second);
    }

    #[tokio::test]
    async fn a_postponed_change_delays_no_other() {
        let mut queue = Queue::default();
        let (first, second) = (subject("1", Change::Vanished), subject("2", Change::Vanished));
        queue.note(first.clone(), "", None, Timestamp::now());
        queue.note(second.clone(), "", None, Timestamp::now());
        let later = Instant::now() + MAX_BACKOFF;
        queue.postpone(&first, later);
        assert_eq!(queue.next().unwrap().1, second);
        queue.finish(&second, 1, None, Instant::now());
        assert_eq!(queue.next().map(|(at, next, _)| (at, next)), Some((later, first)));
    }

    #[test]
    fn a_holder_is_compared_by_its_full_name() {
        let holder = sent(1).unwrap().holder;
        assert!(holder.is("default/lab/app") && !holder.is("default/lab-2/app"));
    }

    #[test]
    fn the_queue_is_bounded_and_sent_changes_make_room() {
        let mut queue = Queue::default();
        let unit = |number: usize| subject(&number.to_string(), Change::Returned);
        for number in 0..MAX_ENTRIES {
            assert!(queue.note(unit(number), "", None, Timestamp::now()));
        }
        assert!(!queue.note(unit(MAX_ENTRIES), "", None, Timestamp::now()));
        assert!(queue.note(unit(0), "", None, Timestamp::now()), "it has an entry");
        queue.finish(&unit(7), 1, sent(1), Instant::now());
        assert!(queue.note(unit(MAX_ENTRIES), "", None, Timestamp::now()));
        assert_eq!(queue.0.len(), MAX_ENTRIES);
        assert!(!queue.0.contains_key(&unit(7)));
    }

    /// As kubelet 1.36 writes it.
    const CHECKPOINT: &str = r#"{"Data":{"PodDeviceEntries":[
        {"PodUID":"11-22","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"-1":["a","b"]},"AllocResp":"KgA="},
        {"PodUID":"33-44","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"0":["c"],"1":["d"]},"AllocResp":""},
        {"PodUID":"55-66","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"0":["d"]},"AllocResp":""}],
        "RegisteredDevices":{"example.com/serial":["a","b","c","d"]}},"Checksum":1}"#;

    #[test]
    fn the_checkpoint_has_a_pods_uid_if_only_one_pod_has_the_unit() {
        let of = |unit: &str, container: &str| uid(CHECKPOINT, &subject(unit, Change::Vanished), container);
        assert_eq!(of("b", "app").as_deref(), Some("11-22"));
        assert_eq!(of("c", "app").as_deref(), Some("33-44"));
        assert_eq!(of("d", "app"), None);
        assert_eq!(of("b", "other"), None);
        assert_eq!(uid("{}", &subject("b", Change::Vanished), "app"), None);
        let empty = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}"#;
        assert_eq!(uid(empty, &subject("b", Change::Vanished), "app"), None);
    }

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
