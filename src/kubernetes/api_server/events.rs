//! Events at the API server (`--events`): a device that a container has went, or is back.
//!
//! Never in the way of the plugin: what happens is noted in a list of bounded length, in which the same thing of the same
//! unit stands once with a count, and one task tells it, slowly. Which pod it is about is asked of kubelet: there is no
//! right to read anything at the API server. Must not know how a device is found to have gone.

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
use crate::kubernetes::kubelet::pod_resources;
use crate::kubernetes::resources::names::fingerprint;
use crate::kubernetes::status::Counters;

/// Who tells.
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

/// kubelet's memory of which pod has what, in its directory of device plugins (its devicemanager/checkpoint). The one
/// place without a right at the API server that tells a pod's uid, by which `kubectl describe` finds its events.
const CHECKPOINT: &str = "kubelet_internal_checkpoint";

/// What happened to a unit that a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Its device went.
    Vanished,
    /// Its device is there again.
    Returned,
}

/// A thing that is told: a change of one unit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    resource: String,
    unit: String,
    change: Change,
}

/// How it stands with one of them.
#[derive(Debug, Clone)]
struct Entry {
    /// Where the device is or was.
    place: String,
    /// The container that had the unit then, as kubelet names it, if that was known: whoever has it since is not meant.
    about: Option<String>,
    /// How often it happened since it was told last.
    untold: u32,
    last: Moment,
    not_before: Instant,
    told: Option<Told>,
}

/// The same moment for comparing, and for people (RFC 3339).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Instant, String);

impl Moment {
    fn now() -> Self {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut text));
        Self(Instant::now(), text)
    }
}

/// An event that the API server has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    about: Holder,
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
    /// Whether it is the one that kubelet names so.
    fn is(&self, named: &str) -> bool {
        format!("{}/{}/{}", self.namespace, self.pod, self.container) == named
    }
}

/// What is to be told, and what was.
#[derive(Debug, Default)]
struct Ledger(BTreeMap<Subject, Entry>);

impl Ledger {
    /// Takes one more in; false when there is no room.
    fn note(&mut self, subject: Subject, place: &str, about: Option<&str>, now: Moment) -> bool {
        if let Some(entry) = self.0.get_mut(&subject) {
            entry.untold += 1;
            entry.last = now;
            place.clone_into(&mut entry.place);
            entry.about = about.map(str::to_owned);
            return true;
        }
        if self.0.len() >= MAX_ENTRIES {
            let told = self.0.iter().filter(|(_, entry)| entry.untold == 0);
            let Some(oldest) = told.min_by_key(|(_, entry)| &entry.last) else {
                return false;
            };
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        let entry = Entry {
            place: place.to_owned(),
            about: about.map(str::to_owned),
            untold: 1,
            not_before: now.0,
            last: now,
            told: None,
        };
        self.0.insert(subject, entry);
        true
    }

    /// What is to be told next, and when: the longest due.
    fn next(&self) -> Option<(Instant, Subject, Entry)> {
        let untold = self.0.iter().filter(|(_, entry)| entry.untold > 0);
        let (subject, entry) = untold.min_by_key(|(_, entry)| (entry.not_before, &entry.last))?;
        Some((entry.not_before, subject.clone(), entry.clone()))
    }

    /// What can't be told of a unit now gives way to what is of others, in the order in which it happened.
    fn postpone(&mut self, subject: &Subject, to: Instant) {
        let of_it = |other: &Subject| (&other.resource, &other.unit) == (&subject.resource, &subject.unit);
        for (_, entry) in self.0.iter_mut().filter(|(other, _)| of_it(other)) {
            entry.not_before = entry.not_before.max(to);
        }
    }

    /// Takes in that `count` times of it were told, or are not to be (`told` is nothing then).
    fn settle(&mut self, subject: &Subject, count: u32, told: Option<Told>, now: Instant) {
        if let Some(entry) = self.0.get_mut(subject) {
            entry.untold = entry.untold.saturating_sub(count);
            entry.not_before = now + REPEAT_INTERVAL;
            entry.told = told;
        }
    }
}

/// Where changes are noted.
#[derive(Debug)]
pub struct Events {
    ledger: Mutex<Ledger>,
    noted: Notify,
    counters: Arc<Counters>,
}

impl Events {
    /// An empty list.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            ledger: Mutex::default(),
            noted: Notify::new(),
            counters,
        }
    }

    /// Notes that something happened to a unit that a container has, `about` if that is known (`namespace/pod/container`);
    /// `place` is where its device is or was.
    pub fn note(&self, resource: &str, unit: &str, place: &str, about: Option<&str>, change: Change) {
        let subject = Subject {
            resource: resource.to_owned(),
            unit: unit.to_owned(),
            change,
        };
        if self.ledger().note(subject, place, about, Moment::now()) {
            self.noted.notify_one();
        } else {
            self.count("dropped", 1);
        }
    }

    /// Whether it was noted, and is remembered, that the device of a unit went.
    pub fn has_vanished(&self, resource: &str, unit: &str) -> bool {
        let subject = Subject {
            resource: resource.to_owned(),
            unit: unit.to_owned(),
            change: Change::Vanished,
        };
        self.ledger().0.contains_key(&subject)
    }

    fn count(&self, result: &str, more: u32) {
        let label = format!("result=\"{result}\"");
        self.counters.add_labelled("events_total", label, u64::from(more));
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What tells the API server.
pub struct Reporter {
    /// What there is to tell.
    pub events: Arc<Events>,
    /// Whom.
    pub server: ApiServer,
    /// kubelet's socket of pod-resources.
    pub pod_resources: PathBuf,
    /// kubelet's directory of device plugins.
    pub kubelet_dir: PathBuf,
    /// This node's name, as far as the host's tells it.
    pub node: String,
}

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The same again, later.
    Again,
    /// Nothing: it will not be taken.
    Forget,
}

impl Reporter {
    /// Tells what is noted, one after the other, for ever. A failure is said once, until something succeeds.
    pub async fn run(self) {
        // Kept while there is something to tell.
        let mut connection = None;
        let mut backoff = MIN_BACKOFF;
        let mut said = false;
        loop {
            let next = self.events.ledger().next();
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
                Ok(Some(holder)) if entry.about.as_ref().is_none_or(|about| holder.is(about)) => holder,
                Ok(_) => {
                    debug!("{}: who had {} has it no more", subject.resource, subject.unit);
                    self.settle(&subject, entry.untold, None);
                    continue;
                }
                // `pods` says so as well, once.
                Err(error) => {
                    debug!("asking kubelet who has {}: {error}", subject.unit);
                    sleep(REPEAT_INTERVAL).await;
                    continue;
                }
            };
            match self.tell(&mut connection, &subject, &entry, holder).await {
                Ok(told) => {
                    if std::mem::take(&mut said) {
                        info!("the API server takes events again");
                    }
                    backoff = MIN_BACKOFF;
                    self.settle(&subject, entry.untold, Some(told));
                    self.events.count("sent", entry.untold);
                    sleep(SEND_INTERVAL).await;
                }
                Err(error) => {
                    connection = None;
                    if !std::mem::replace(&mut said, true) {
                        warn!(
                            "telling the API server of a pod's device: {error}{}",
                            cure(&error)
                        );
                    } else {
                        debug!("telling the API server of a pod's device: {error}");
                    }
                    match (remedy(&error), &error) {
                        (Remedy::Forget, _) => {
                            self.settle(&subject, entry.untold, None);
                            self.events.count("failed", entry.untold);
                        }
                        // It may be this one's namespace alone that is in trouble.
                        (Remedy::Again, RequestError::Refused { .. }) => {
                            self.events.ledger().postpone(&subject, Instant::now() + backoff);
                        }
                        (Remedy::Again, _) => {}
                    }
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    fn settle(&self, subject: &Subject, count: u32, told: Option<Told>) {
        self.events.ledger().settle(subject, count, told, Instant::now());
    }

    /// Who has a unit now, as kubelet says.
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

    /// Makes an event, or counts on in the one that was made of the same before: that may have gone by now, after an hour.
    async fn tell(
        &self,
        connection: &mut Option<Connection>,
        subject: &Subject,
        entry: &Entry,
        holder: Holder,
    ) -> Result<Told, RequestError> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.server.connect().await?),
        };
        let path = format!("/api/v1/namespaces/{}/events", holder.namespace);
        if let Some(told) = entry.told.as_ref().filter(|told| told.about == holder) {
            let count = told.count.saturating_add(entry.untold);
            let change = json!({
                "count": count, "lastTimestamp": entry.last.1, "message": message(subject, &entry.place) });
            let path = format!("{path}/{}", told.name);
            let merge = "application/merge-patch+json";
            match connection.send(Method::PATCH, &path, merge, &change).await {
                Err(RequestError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    return Ok(Told {
                        count,
                        ..told.clone()
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
            // The first answer was lost on its way.
            Err(RequestError::Refused { status, .. }) if status == StatusCode::CONFLICT => {}
            other => other?,
        }
        Ok(Told {
            about: holder,
            name,
            count: entry.untold,
        })
    }
}

/// Whether another attempt could help: a server that is away or busy, or a token that is renewed in a moment. A right that
/// is missing may be given later, for what happens then.
fn remedy(error: &RequestError) -> Remedy {
    match error {
        RequestError::Refused { status, .. } => match *status {
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => Remedy::Again,
            status if status.is_server_error() => Remedy::Again,
            _ => Remedy::Forget,
        },
        RequestError::Request(_) => Remedy::Forget,
        _ => Remedy::Again,
    }
}

fn cure(error: &RequestError) -> &'static str {
    match error {
        RequestError::Refused { status, .. } if *status == StatusCode::FORBIDDEN => {
            "; --events takes the right to create and patch events (packaging/kubernetes/events)"
        }
        _ => "; said once",
    }
}

/// What the event says.
fn message(subject: &Subject, place: &str) -> String {
    let Subject {
        resource,
        unit,
        change,
    } = subject;
    match change {
        Change::Vanished => format!(
            "{resource}: the device of {unit} went while the container has it ({place}); the pod is left alone"
        ),
        Change::Returned => format!("{resource}: the device of {unit} is there again ({place})"),
    }
}

/// A name that no other event has, the same at each attempt; at most 253 letters.
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
        "firstTimestamp": at, "lastTimestamp": at, "count": entry.untold })
}

/// The pod that has a unit, by its uid, as kubelet's checkpoint says.
fn uid(checkpoint: &str, subject: &Subject, container: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Checkpoint {
        #[serde(rename = "Data")]
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "PodDeviceEntries")]
        entries: Option<Vec<Given>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Given {
        #[serde(rename = "PodUID")]
        pod_uid: String,
        container_name: String,
        resource_name: String,
        #[serde(rename = "DeviceIDs")]
        devices: BTreeMap<String, Vec<String>>,
    }
    let checkpoint: Checkpoint = serde_json::from_str(checkpoint).ok()?;
    let is_it = |given: &&Given| {
        given.resource_name == subject.resource
            && given.container_name == container
            && given.devices.values().flatten().any(|id| *id == subject.unit)
    };
    let entries = checkpoint.data.entries?;
    let mut uids = entries.iter().filter(is_it).map(|given| &given.pod_uid);
    // Two would mean that one is a pod that has ended: better none than the wrong one.
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

    fn told(count: u32) -> Option<Told> {
        let about = Holder {
            namespace: "default".to_owned(),
            pod: "lab".to_owned(),
            container: "app".to_owned(),
            uid: None,
        };
        let name = "lab.1".to_owned();
        Some(Told { about, name, count })
    }

    #[test]
    fn a_flapping_unit_is_told_once_in_a_while_with_how_often_it_happened() {
        let (mut ledger, flapping) = (Ledger::default(), subject("a", Change::Vanished));
        for _ in 0..1000 {
            assert!(ledger.note(flapping.clone(), "/sys/a", None, Moment::now()));
        }
        let (at, next, entry) = ledger.next().unwrap();
        assert!(at <= Instant::now() && next == flapping && entry.untold == 1000);
        assert!(ledger.note(flapping.clone(), "/sys/b", None, Moment::now()));
        let now = Instant::now();
        ledger.settle(&flapping, entry.untold, told(1000), now);
        let (at, _, entry) = ledger.next().unwrap();
        assert_eq!(
            (at, entry.untold, entry.place.as_str()),
            (now + REPEAT_INTERVAL, 1, "/sys/b")
        );
        assert_eq!(entry.told, told(1000));
        ledger.settle(&flapping, 1, told(1001), now);
        assert!(ledger.next().is_none());
    }

    #[test]
    fn who_waits_longest_is_next() {
        let mut ledger = Ledger::default();
        let (first, second) = (subject("b", Change::Vanished), subject("a", Change::Vanished));
        ledger.note(first.clone(), "", None, Moment::now());
        ledger.note(second.clone(), "", None, Moment::now());
        assert_eq!(ledger.next().unwrap().1, first);
        ledger.settle(&first, 1, None, Instant::now());
        ledger.note(first, "", None, Moment::now());
        assert_eq!(ledger.next().unwrap().1, second);
    }

    #[tokio::test]
    async fn what_is_not_taken_now_holds_up_no_other() {
        let mut ledger = Ledger::default();
        let (first, second) = (subject("1", Change::Vanished), subject("2", Change::Vanished));
        ledger.note(first.clone(), "", None, Moment::now());
        ledger.note(second.clone(), "", None, Moment::now());
        let later = Instant::now() + MAX_BACKOFF;
        ledger.postpone(&first, later);
        assert_eq!(ledger.next().unwrap().1, second);
        ledger.settle(&second, 1, None, Instant::now());
        assert_eq!(
            ledger.next().map(|(at, next, _)| (at, next)),
            Some((later, first))
        );
    }

    #[test]
    fn a_holder_is_the_container_that_kubelet_names_so() {
        let holder = told(1).unwrap().about;
        assert!(holder.is("default/lab/app") && !holder.is("default/lab-2/app"));
    }

    #[test]
    fn a_flood_of_units_has_a_bound_and_what_was_told_makes_room() {
        let mut ledger = Ledger::default();
        let unit = |number: usize| subject(&number.to_string(), Change::Returned);
        for number in 0..MAX_ENTRIES {
            assert!(ledger.note(unit(number), "", None, Moment::now()));
        }
        assert!(!ledger.note(unit(MAX_ENTRIES), "", None, Moment::now()));
        assert!(ledger.note(unit(0), "", None, Moment::now()), "it has its place");
        ledger.settle(&unit(7), 1, told(1), Instant::now());
        assert!(ledger.note(unit(MAX_ENTRIES), "", None, Moment::now()));
        assert_eq!(ledger.0.len(), MAX_ENTRIES);
        assert!(!ledger.0.contains_key(&unit(7)));
    }

    /// As kubelet 1.36 writes it.
    const CHECKPOINT: &str = r#"{"Data":{"PodDeviceEntries":[
        {"PodUID":"11-22","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"-1":["a","b"]},"AllocResp":"KgA="},
        {"PodUID":"33-44","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"0":["c"],"1":["d"]},"AllocResp":""},
        {"PodUID":"55-66","ContainerName":"app","ResourceName":"example.com/serial","DeviceIDs":{"0":["d"]},"AllocResp":""}],
        "RegisteredDevices":{"example.com/serial":["a","b","c","d"]}},"Checksum":1}"#;

    #[test]
    fn kubelets_checkpoint_tells_a_pods_uid_where_only_one_has_the_unit() {
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
    fn what_can_help_later_is_tried_again_and_what_is_refused_is_not() {
        let refused = |status: u16| RequestError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            message: String::new(),
        };
        for status in [401, 429, 500, 503] {
            assert_eq!(remedy(&refused(status)), Remedy::Again, "{status}");
        }
        for status in [400, 403, 404, 422] {
            assert_eq!(remedy(&refused(status)), Remedy::Forget, "{status}");
        }
        assert_eq!(remedy(&RequestError::NoAnswer), Remedy::Again);
    }
}
