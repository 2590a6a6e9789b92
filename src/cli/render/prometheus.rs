//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! prometheus-client, which the device plugin uses, is not used here: it has no summaries, and its
//! registry is for values that one process counts, while these are read from the state directory.

use serde::{Serialize, Serializer};

use crate::model::quoting::visible_lines;

/// The beginning of every metric's name.
const PREFIX: &str = "oci_hotplug_";

/// One metric with its samples.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Family {
    pub(in crate::cli) name: &'static str,
    #[serde(rename = "type")]
    pub(in crate::cli) kind: &'static str,
    pub(in crate::cli) help: &'static str,
    pub(in crate::cli) samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
pub(in crate::cli) struct Sample {
    /// The end of the metric's name: a summary has `_sum` and `_count`.
    pub(in crate::cli) suffix: &'static str,
    #[serde(serialize_with = "as_map")]
    pub(in crate::cli) labels: Vec<(&'static str, String)>,
    pub(in crate::cli) value: f64,
}

fn as_map<S: Serializer>(labels: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

/// The families in the text format. Every line ends in a line feed, also the last one.
pub(in crate::cli) fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for Family {
        name,
        kind,
        help,
        samples,
    } in families
    {
        text += &format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
        for sample in samples {
            let labels: Vec<String> = sample
                .labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(&visible_lines(value))))
                .collect();
            let labels = match labels[..] {
                [] => String::new(),
                _ => format!("{{{}}}", labels.join(",")),
            };
            text += &format!("{PREFIX}{name}{}{labels} {}\n", sample.suffix, sample.value);
        }
    }
    text
}

/// A label's value with the three escapes of the format.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_labels_value_cannot_leave_its_quotes() {
        let family = Family {
            name: "container_info",
            kind: "gauge",
            help: "A container.",
            samples: vec![Sample {
                suffix: "",
                labels: vec![("container", "c".into()), ("name", "a\"} 1\n# TYPE \\x".into())],
                value: 1.0,
            }],
        };
        assert_eq!(
            text(&[family]),
            "# HELP oci_hotplug_container_info A container.\n# TYPE oci_hotplug_container_info gauge\n\
             oci_hotplug_container_info{container=\"c\",name=\"a\\\"} 1\\n# TYPE \\\\x\"} 1\n"
        );
    }
}
