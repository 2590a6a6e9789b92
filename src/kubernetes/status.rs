//! How the plugin is doing, over HTTP: `/metrics` (Prometheus' text format), `/healthz`, `/readyz`.
//!
//! Must not know how it came to be so: others count here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::warn;

/// The timeout for a client to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What stands in front of each metric's name.
const PREFIX: &str = "oci_hotplug_device_plugin_";

/// The metrics: name (behind [`PREFIX`], but for [`THEIRS`]), kind, what they tell.
const METRICS: [(&str, &str, &str); 16] = [
    ("devices", "gauge", "Units that kubelet is told of, by health."),
    (
        "registered",
        "gauge",
        "1 while kubelet listens to the resource's list.",
    ),
    (
        "registrations_total",
        "counter",
        "Registrations that kubelet took.",
    ),
    ("lists_total", "counter", "Lists sent to kubelet."),
    (
        "held",
        "gauge",
        "Units that containers have, as kubelet's pod-resources tell.",
    ),
    ("allocations_total", "counter", "Answers to Allocate."),
    (
        "vanished_total",
        "counter",
        "Devices that went while a container had them.",
    ),
    (
        "events_total",
        "counter",
        "Changes told to the API server as events, by result.",
    ),
    (
        "reloads_total",
        "counter",
        "Configuration files read anew, by result.",
    ),
    (
        "usbip_device_plugin_available_devices",
        "gauge",
        "Devices of USB/IP servers that can be had.",
    ),
    (
        "usbip_device_plugin_attached_devices",
        "gauge",
        "Devices of USB/IP servers that are attached for containers.",
    ),
    (
        "usbip_device_plugin_allocations_total",
        "counter",
        "Answers to Allocate for devices of USB/IP servers.",
    ),
    (
        "usbip_device_plugin_restarts_total",
        "counter",
        "Registrations of such resources beyond the first.",
    ),
    (
        "generic_device_plugin_devices",
        "gauge",
        "Units of resources in generic-device-plugin's format.",
    ),
    (
        "generic_device_plugin_allocations_total",
        "counter",
        "Answers to Allocate for such resources.",
    ),
    (
        "generic_device_plugin_restarts_total",
        "counter",
        "Registrations of such resources beyond the first.",
    ),
];

/// What the names of other programs' metrics begin with, which are their own.
const THEIRS: [&str; 2] = ["usbip_device_plugin_", "generic_device_plugin_"];

/// Values by metric and labels.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Counters {
    /// Counts one more of a resource.
    pub fn add(&self, metric: &'static str, resource: &str) {
        self.add_labelled(metric, format!("resource=\"{resource}\""), 1);
    }

    /// Counts more, with labels as they are written.
    pub fn add_labelled(&self, metric: &'static str, labels: String, more: u64) {
        *self.lock().entry((metric, labels)).or_default() += more;
    }

    /// Says how much there is of a resource now; `more` are further labels as they are written.
    pub fn set(&self, metric: &'static str, resource: &str, more: &str, value: u64) {
        self.lock()
            .insert((metric, format!("resource=\"{resource}\"{more}")), value);
    }

    /// Forgets what a resource has now; what was counted of it stays.
    pub fn forget(&self, resource: &str) {
        let label = format!("resource=\"{resource}\"");
        self.lock()
            .retain(|(metric, labels), _| metric.ends_with("_total") || !labels.starts_with(&label));
    }

    /// The resources that kubelet does not listen to.
    fn unregistered(&self) -> Vec<String> {
        let values = self.lock();
        let missing = values
            .iter()
            .filter(|((metric, _), value)| *metric == "registered" && **value == 0);
        missing.map(|((_, labels), _)| labels.clone()).collect()
    }

    /// All of it, in Prometheus' text format.
    pub fn text(&self) -> String {
        let values = self.lock();
        let mut text = String::new();
        for (metric, kind, help) in METRICS {
            let is_theirs = THEIRS.iter().any(|prefix| metric.starts_with(prefix));
            let prefix = if is_theirs { "" } else { PREFIX };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {prefix}{metric} {help}\n# TYPE {prefix}{metric} {kind}"
            );
            for ((_, labels), value) in values.iter().filter(|((name, _), _)| *name == metric) {
                let _ = writeln!(text, "{prefix}{metric}{{{labels}}} {value}");
            }
        }
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, String), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens on `ADDRESS:PORT`; `:PORT` is all addresses, as in Go.
///
/// # Errors
/// When the address can't be listened on.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    match address.strip_prefix(':') {
        // Where the kernel has no IPv6, IPv4 is all.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    }
}

/// Answers requests on a listener until it fails.
pub async fn serve(listener: TcpListener, counters: Arc<Counters>) {
    let Err(error) = answer_all(listener, counters).await;
    warn!("serving /metrics: {error}");
}

async fn answer_all(listener: TcpListener, counters: Arc<Counters>) -> io::Result<Infallible> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let counters = Arc::clone(&counters);
        let service =
            service_fn(move |request| std::future::ready(Ok::<_, Infallible>(answer(&counters, &request))));
        connections.spawn(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service),
        );
        while connections.try_join_next().is_some() {}
    }
}

/// The answer to one request.
fn answer(counters: &Counters, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, counters.text()),
        // It answers: nothing that blocks the one thread would let it.
        // The second is usbip-device-plugin's.
        "/healthz" | "/health" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match &counters.unregistered()[..] {
            [] => (StatusCode::OK, "ok\n".to_owned()),
            missing => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("kubelet does not listen to {}\n", missing.join(", ")),
            ),
        },
        _ => (
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}
