//! The alert rules and the dashboard of packaging/monitoring: promtool accepts the rules and runs
//! their tests, a real Prometheus scrapes the metrics of `oci-hotplug` and of the plugin, and both
//! have every metric that rules and dashboard name.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::device_plugin::{Node, eventually, get};
use crate::kubelet::{Behaviour, PodResources};
use crate::port::Port;
use crate::record::write_record;
use crate::stdout_of;

const ALERTS: &str = include_str!("../../packaging/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../packaging/monitoring/dashboard.json");

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("start promtool (Debian package prometheus)");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn promtool_accepts_the_alert_rules_and_runs_their_tests() {
    promtool(&["check", "rules", "packaging/monitoring/alerts.yaml"]);
    promtool(&["test", "rules", "tests/monitoring/alerts-test.yaml"]);
}

#[test]
fn every_alert_has_a_test_that_it_fires() {
    let tests = include_str!("../monitoring/alerts-test.yaml");
    let alerts = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        let fires = tests.split("alertname: ").any(|test| {
            let rest = test.strip_prefix(alert).unwrap_or_default().trim_start();
            rest.strip_prefix("exp_alerts:")
                .is_some_and(|alerts| !alerts.starts_with(" []"))
        });
        assert!(fires, "{alert}");
    }
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    let ours = words.filter(|word| word.starts_with("oci_hotplug_"));
    ours.map(str::to_owned).collect()
}

/// All expressions of a dashboard.
fn expressions(value: &Value, into: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let ("expr" | "query", Some(text)) = (name.as_str(), field.as_str()) {
                    into.push_str(text);
                    into.push('\n');
                }
                expressions(field, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, into)),
        _ => {}
    }
}

/// The output of `oci-hotplug metrics` on a host with one container.
fn metrics_of_the_tool(scratch: &Path) -> String {
    write_record(&scratch.join("state"), "lab", |_| {});
    let mut tool = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"));
    tool.arg("metrics").arg("--state-dir").arg(scratch.join("state"));
    stdout_of(&mut tool)
}

/// Serves a text to every client, as node_exporter serves the file.
fn serve(text: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut request = BufReader::new(&stream);
            while request.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let length = text.len();
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{text}");
        }
    });
    address
}

/// A Prometheus. It is stopped when this is dropped.
struct Prometheus {
    process: Child,
    address: String,
    _scratch: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these addresses every second, with our alert rules.
    fn start(jobs: &[(&str, &str)]) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let mut config = String::from(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [alerts.yaml]\nscrape_configs:\n",
        );
        for (job, address) in jobs {
            config += &format!("- {{job_name: {job}, static_configs: [{{targets: [\"{address}\"]}}]}}\n");
        }
        fs::write(scratch.path().join("prometheus.yml"), config).expect("write a configuration");
        fs::write(scratch.path().join("alerts.yaml"), ALERTS).expect("write the rules");
        let port = Port::reserve();
        let address = port.address.to_string();
        let process = Command::new("prometheus")
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start prometheus (Debian package prometheus)");
        Self {
            process,
            address,
            _scratch: scratch,
        }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let (_, body) = get(&self.address, path)?;
        // The body may be chunked.
        let begin = body.find('{')?;
        let document = serde_json::Deserializer::from_str(body.get(begin..)?)
            .into_iter()
            .next()?;
        document.ok()
    }

    /// The names of all metrics that Prometheus has stored.
    fn metrics(&self) -> BTreeSet<String> {
        let names = self.ask("/api/v1/label/__name__/values");
        let names = names.as_ref().and_then(|names| names["data"].as_array());
        let texts = names.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// The jobs whose last scrape succeeded.
    fn good_jobs(&self) -> BTreeSet<String> {
        let targets = self.ask("/api/v1/targets");
        let targets = targets
            .as_ref()
            .and_then(|targets| targets["data"]["activeTargets"].as_array());
        let good = targets
            .into_iter()
            .flatten()
            .filter(|target| target["health"] == "up");
        let jobs = good.filter_map(|target| target["labels"]["job"].as_str());
        jobs.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn prometheus_scrapes_tool_and_plugin_and_has_all_that_rules_and_dashboard_name() {
    let node = Node::new();
    let port = Port::reserve();
    let plugin_address = port.address.to_string();
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let pods = node.path("pods.sock");
    let _pods = PodResources::start(&pods);
    let config = node.write(
        "config.yaml",
        "resources: [{name: example.com/serial, requests: ['usb:ffff:fffe']}]\n",
    );
    let _plugin = node.plugin_that_listens(&[
        "--listen",
        &plugin_address,
        "--pod-resources",
        pods.to_str().expect("UTF-8"),
        "--config",
        config.to_str().expect("UTF-8"),
    ]);
    let mut registered = kubelet.registered("example.com/serial").await;
    let list = registered.list().await;
    let allocation = registered.allocate(&[list[0].id.clone()]).await;
    allocation.expect("an allocation");
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let tool_address = serve(metrics_of_the_tool(scratch.path()));
    let prometheus = Prometheus::start(&[
        ("node", &tool_address),
        ("oci-hotplug-device-plugin", &plugin_address),
    ]);

    let jobs = BTreeSet::from(["node".to_owned(), "oci-hotplug-device-plugin".to_owned()]);
    eventually("both are scraped", || prometheus.good_jobs() == jobs).await;
    let mut named = String::new();
    expressions(
        &serde_json::from_str(DASHBOARD).expect("the dashboard is JSON"),
        &mut named,
    );
    let in_rules = ALERTS.lines().filter(|line| line.trim().starts_with("expr:"));
    named.extend(in_rules);
    let named = metrics_in(&named);
    assert!(named.len() > 15, "{named:?}");
    let all_are_there = || named.is_subset(&prometheus.metrics());
    eventually(&format!("these are there: {named:#?}"), all_are_there).await;
    eventually("the missing watcher is about to be an alert", || {
        let alerts = prometheus.ask("/api/v1/alerts").unwrap_or_default();
        alerts.to_string().contains("OciHotplugWatcherDown")
    })
    .await;
}
