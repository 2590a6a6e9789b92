//! The name that an engine gives a container, read from the engine's own files: podman and Docker
//! store it nowhere else.
//!
//! For display only.

use std::path::{Path, PathBuf};

use crate::host::container::ContainerFacts;
use crate::host::runtime_state::read_file;
use crate::model::oci::Annotations;
use crate::model::oci::engine::{self, Engine};
use crate::model::oci::engine_files;

/// Docker's default data directory.
const DOCKER: &str = "/var/lib/docker";

/// The name that the engine's files give the container; `None` if they have none or cannot be read.
pub(crate) fn name(engine: Engine, facts: &ContainerFacts) -> Option<String> {
    match engine {
        Engine::Podman => storage_name(facts),
        Engine::Docker => docker_name(facts),
        Engine::Containerd | Engine::CriO => None,
    }
}

/// The name to display for a container: the engine's name for it, or its id.
pub(crate) fn display_name(facts: &ContainerFacts, annotations: &Annotations) -> String {
    let by_engine = || name(engine::engine(&facts.bundle, annotations)?, facts);
    engine::name(annotations)
        .or_else(by_engine)
        .unwrap_or_else(|| engine::short_id(&facts.id).to_owned())
}

/// The bundle is `STORE/ID/userdata`; the index of the store has the names.
fn storage_name(facts: &ContainerFacts) -> Option<String> {
    let store = facts.bundle.ancestors().nth(2)?;
    ["containers.json", "volatile-containers.json"]
        .iter()
        .find_map(|index| engine_files::name_in_storage(&read_file(&store.join(index))?, &facts.id))
}

/// With the classic image store, the root file system is `ROOT/overlay2/LAYER/merged`. ROOT is
/// Docker's directory, also with `data-root` and with user namespace remapping.
fn docker_name(facts: &ContainerFacts) -> Option<String> {
    let beside = facts.rootfs.ancestors().nth(3).map(Path::to_owned);
    beside
        .into_iter()
        .chain([PathBuf::from(DOCKER)])
        .find_map(|root| {
            let path = root.join("containers").join(&facts.id).join("config.v2.json");
            engine_files::name_in_docker(&read_file(&path)?)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::oci::ProcessUser;
    use std::fs;

    fn facts(bundle: PathBuf, rootfs: PathBuf) -> ContainerFacts {
        ContainerFacts {
            id: "0a1b".into(),
            pid: 1,
            start_time: 1,
            bundle,
            rootfs,
            cgroups_path: None,
            user: ProcessUser { uid: 0, gid: 0 },
            read_only_sys: false,
        }
    }

    #[test]
    fn podmans_name_is_read_from_the_index_of_its_store() {
        let scratch = tempfile::tempdir().unwrap();
        let store = scratch.path().join("overlay-containers");
        fs::create_dir(&store).unwrap();
        let facts = facts(store.join("0a1b/userdata"), PathBuf::from("/rootfs"));
        assert_eq!(name(Engine::Podman, &facts), None);
        let index =
            r#"[{"id":"ffff","names":["other"]},{"id":"0a1b","names":["lab"],"layer":"x"},{"id":"eeee"}]"#;
        fs::write(store.join("containers.json"), index).unwrap();
        assert_eq!(name(Engine::Podman, &facts).as_deref(), Some("lab"));
        assert_eq!(name(Engine::CriO, &facts), None);
    }

    #[test]
    fn dockers_name_is_read_from_the_containers_config_file() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        fs::create_dir_all(root.join("containers/0a1b")).unwrap();
        fs::write(
            root.join("containers/0a1b/config.v2.json"),
            r#"{"Name":"/ro\u001bbot","ID":"0a1b"}"#,
        )
        .unwrap();
        let facts = facts(PathBuf::from("/run/x/moby/0a1b"), root.join("overlay2/77/merged"));
        assert_eq!(name(Engine::Docker, &facts).as_deref(), Some("robot"));
    }
}
