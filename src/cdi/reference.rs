//! The CNCF's library `container-device-interface` as a second check of a spec.
//!
//! It is not used to read directories: unlike the Go library of the engines, it descends into
//! subdirectories, stops at the first invalid file and keeps devices in conflict (1.1.1,
//! spec_dirs.rs and cache.rs). Without the feature `cncf-cdi`, every spec passes.

use std::path::Path;

use super::document::Document;

/// The library's error about a spec.
#[cfg(feature = "cncf-cdi")]
pub(super) fn objection(document: &Document, path: &Path) -> Option<String> {
    let judged = serde_json::to_value(document)
        .and_then(serde_json::from_value)
        .map_err(anyhow::Error::from)
        .and_then(|raw| container_device_interface::spec::new_spec(&raw, &path.to_path_buf(), 0));
    judged.err().map(|error| format!("{error:#}"))
}

/// The library's error about a spec.
#[cfg(not(feature = "cncf-cdi"))]
pub(super) fn objection(_document: &Document, _path: &Path) -> Option<String> {
    None
}

#[cfg(all(test, feature = "cncf-cdi"))]
mod tests {
    use super::*;
    use crate::cdi::rules::faults;
    use crate::model::yaml;
    use proptest::prelude::*;

    /// Specs made of valid and invalid parts.
    fn spec() -> impl Strategy<Value = String> {
        let version = prop::sample::select(vec![
            "0.3.0", "v0.5.0", "0.7.0", "1.0.0", "1.1.0", "0.9.0", "2", "",
        ]);
        let kind = prop::sample::select(vec!["a.b/c", "a/b.c", "_a/b", "a", "a/b/c"]);
        let name = prop::sample::select(vec!["x", "0", "x:y", "x y", "", "-x"]);
        let edits = prop::sample::select(vec![
            r#"{"env":["A=1"]}"#,
            r#"{"env":["A"]}"#,
            "{}",
            r#"{"hooks":[{"hookName":"createRuntime","path":"/bin/true"}]}"#,
            r#"{"hooks":[{"hookName":"creatRuntime","path":"/bin/true"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y","permissions":"rw"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rwx"}]}"#,
            r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind"}]}"#,
            r#"{"additionalGids":[5]}"#,
            r#"{"netDevices":[{"hostInterfaceName":"eth1","name":"eth0"}]}"#,
        ]);
        (version, kind, name, edits).prop_map(|(version, kind, name, edits)| {
            format!(
                r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"{name}","containerEdits":{edits}}}]}}"#
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn the_rules_and_the_library_agree(text in spec()) {
            let root = yaml::parse(&text).unwrap();
            let document = Document::decode(&root).unwrap();
            let ours = faults(&document, &root);
            // The library panics on unknown versions.
            prop_assume!(!ours.iter().any(|fault| fault.field == "cdiVersion" && fault.message.contains("no version")));
            let theirs = objection(&document, Path::new("/etc/cdi/x.json"));
            prop_assert_eq!(ours.is_empty(), theirs.is_none(), "{}: {:?} {:?}", text, ours, theirs);
        }
    }
}
