//! The engine that started a container, and the container's name: from the bundle's path and the
//! engine's annotations.
//!
//! For display only. The author of the annotations may have lied, so no decision depends on these
//! values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path};

use serde::Serialize;

/// An engine, recognized by the bundles that it creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    Podman,
    /// Docker (moby).
    Docker,
    /// containerd with a client other than Docker: CRI, nerdctl, ctr.
    Containerd,
    /// CRI-O.
    #[serde(rename = "cri-o")]
    CriO,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
        })
    }
}

/// The engine of the container with this bundle and these annotations.
///
/// Bundles are in `…/overlay-containers/ID/userdata` (podman and CRI-O, which share
/// containers/storage; CRI-O names itself in `io.container.manager`), in
/// `…/io.containerd.runtime.v2.task/moby/ID` (Docker), or in another namespace of containerd.
pub(crate) fn engine(bundle: &Path, annotations: &BTreeMap<String, String>) -> Option<Engine> {
    let parts: Vec<&str> = bundle
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let manager = annotations.get("io.container.manager").map(String::as_str);
    let task = parts
        .iter()
        .position(|part| part.starts_with("io.containerd.runtime.v"));
    match (task.and_then(|at| parts.get(at + 1)), parts.last()) {
        (Some(&"moby"), _) => Some(Engine::Docker),
        (Some(_), _) => Some(Engine::Containerd),
        (None, Some(&"userdata")) if manager == Some("cri-o") => Some(Engine::CriO),
        (None, Some(&"userdata")) => Some(Engine::Podman),
        _ => None,
    }
}

/// The annotations with namespace, pod and container of a Kubernetes pod; nerdctl has one
/// annotation for the name.
const NAMES: [&[&str]; 3] = [
    &[
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.container-name",
    ],
    &[
        "io.kubernetes.pod.namespace",
        "io.kubernetes.pod.name",
        "io.kubernetes.container.name",
    ],
    &["nerdctl/name"],
];

/// CRI-O's annotation for the name of a container: `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT`
/// (internal/factory/container, SetNameAndID). Names in Kubernetes contain no underscore.
const CRIO_NAME: &str = "io.kubernetes.cri-o.Name";

/// The name of the container in its annotations; `namespace/pod/container` in Kubernetes. `None` if
/// there is none.
pub(crate) fn name(annotations: &BTreeMap<String, String>) -> Option<String> {
    let said = NAMES.iter().find_map(|keys| {
        let parts: Option<Vec<&str>> = keys
            .iter()
            .map(|key| annotations.get(*key).map(String::as_str))
            .collect();
        Some(parts?.join("/")).filter(|name| !name.is_empty())
    });
    said.or_else(|| crio_name(annotations.get(CRIO_NAME)?))
        .map(|name| printable(&name))
}

/// CRI-O has the annotations above only from kubelet; other clients may omit them.
fn crio_name(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix("k8s_")?.split('_');
    let (container, pod, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{namespace}/{pod}/{container}"))
}

/// Whether a word of the command line is the pod of a container with this name: `POD` or
/// `NAMESPACE/POD` for `NAMESPACE/POD/CONTAINER`.
pub(crate) fn is_in_pod(name: &str, word: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [namespace, pod, _] => word == pod || word.split_once('/') == Some((namespace, pod)),
        _ => false,
    }
}

/// Whether a word of the command line means the container with this id and name: its name, its pod,
/// its id or the beginning of its id.
pub(crate) fn is_meant(id: &str, name: Option<&str>, word: &str) -> bool {
    let is_called = |name: &str| name == word || is_in_pod(name, word);
    !word.is_empty() && (name.is_some_and(is_called) || id.starts_with(word))
}

/// An id for display: the first twelve of an engine's 64 digits.
pub(crate) fn short_id(id: &str) -> &str {
    match id.len() {
        64 => id.get(..12).unwrap_or(id),
        _ => id,
    }
}

/// The longest name that is shown, in characters.
const MAX_NAME: usize = 80;

/// Untrusted text (an annotation, a string of a USB device) that is safe for a terminal: no control
/// characters, no direction marks, at most 80 characters.
pub(crate) fn printable(text: &str) -> String {
    let is_plain = |letter: &char| !letter.is_control() && !is_invisible(*letter);
    let mut shown: String = text.trim().chars().filter(is_plain).take(MAX_NAME + 1).collect();
    if let Some((at, _)) = shown.char_indices().nth(MAX_NAME) {
        shown.truncate(at);
        shown.push('…');
    }
    shown
}

/// Invisible characters that can reorder the text around them (Unicode's Bidi_Control, zero-width).
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_container_of_kubernetes_is_found_by_its_pod() {
        for word in ["bench", "lab/bench"] {
            assert!(is_in_pod("lab/bench/board", word), "{word}");
        }
        for word in [
            "",
            "lab",
            "board",
            "bench/board",
            "lab/",
            "/bench",
            "lab/bench/board",
        ] {
            assert!(!is_in_pod("lab/bench/board", word), "{word}");
        }
        assert!(!is_in_pod("lab/bench", "bench") && !is_in_pod("bench", "bench"));
    }

    #[test]
    fn a_container_is_meant_by_its_name_its_pod_and_the_beginning_of_its_id() {
        let pod = Some("lab/bench/board");
        for word in ["lab/bench/board", "bench", "lab/bench", "0a1b", "0"] {
            assert!(is_meant("0a1b", pod, word), "{word}");
        }
        for word in ["", "lab", "0a1b2", "a1b"] {
            assert!(!is_meant("0a1b", pod, word), "{word}");
        }
        assert!(is_meant("0a1b", None, "0a") && !is_meant("0a1b", None, "bench"));
        assert!(!is_meant("0a1b", None, "") && !is_meant("0a1b", Some(""), ""));
    }

    #[test]
    fn an_engine_is_recognized_by_its_bundles() {
        let none = annotations(&[]);
        let crio = annotations(&[("io.container.manager", "cri-o")]);
        let storage = Path::new("/var/lib/containers/storage/overlay-containers/0a1b/userdata");
        assert_eq!(engine(storage, &none), Some(Engine::Podman));
        assert_eq!(engine(storage, &crio), Some(Engine::CriO));
        let run = "/run/containerd/io.containerd.runtime.v2.task";
        assert_eq!(
            engine(Path::new(&format!("{run}/moby/0a1b")), &none),
            Some(Engine::Docker)
        );
        assert_eq!(
            engine(Path::new(&format!("{run}/k8s.io/0a1b")), &none),
            Some(Engine::Containerd)
        );
        assert_eq!(engine(Path::new("/tmp/bundle"), &crio), None);
        assert_eq!(Engine::CriO.to_string(), "cri-o");
    }

    #[test]
    fn a_container_of_a_pod_is_named_by_namespace_pod_and_container() {
        let cri = annotations(&[
            ("io.kubernetes.cri.sandbox-namespace", "lab"),
            ("io.kubernetes.cri.sandbox-name", "board-0"),
            ("io.kubernetes.cri.container-name", "flash"),
        ]);
        assert_eq!(name(&cri).as_deref(), Some("lab/board-0/flash"));
        let crio = annotations(&[
            ("io.kubernetes.pod.namespace", "lab"),
            ("io.kubernetes.pod.name", "board-0"),
            ("io.kubernetes.container.name", "flash"),
        ]);
        assert_eq!(name(&crio).as_deref(), Some("lab/board-0/flash"));
        let crictl = annotations(&[("io.kubernetes.cri-o.Name", "k8s_flash_board-0_lab_0815_0")]);
        assert_eq!(name(&crictl).as_deref(), Some("lab/board-0/flash"));
        assert_eq!(name(&annotations(&[("io.kubernetes.pod.name", "alone")])), None);
        assert_eq!(name(&annotations(&[("io.kubernetes.cri-o.Name", "k8s_x")])), None);
    }

    #[test]
    fn an_engines_id_is_shortened_to_twelve_digits_and_other_ids_are_not() {
        assert_eq!(short_id(&"0123456789abcdef".repeat(4)), "0123456789ab");
        for id in ["lab", "0123456789abcdef", ""] {
            assert_eq!(short_id(id), id);
        }
    }

    #[test]
    fn a_truncated_name_ends_in_dots() {
        let name = "x".repeat(MAX_NAME);
        assert_eq!(printable(&name), name);
        assert_eq!(printable(&format!("{name}x")), format!("{name}…"));
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(printable(" \u{1b}[31mred\u{202e}\n "), "[31mred");
    }

    proptest! {
        #[test]
        fn displayed_text_is_short_and_has_no_control_characters(text in "[\\PC\n\u{1b}\u{9b}]{0,100}") {
            let shown = printable(&text);
            prop_assert!(shown.chars().count() <= MAX_NAME + 1);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
