//! The status of one container, for `oci-hotplug inspect` and other verbs.

use super::Watcher;
use super::holders::Holders;
use crate::host::state::control::Status;

impl Watcher {
    pub(super) fn status(&self) -> Status {
        let holders = Holders::new(&self.inside, self.world.inventory());
        Status {
            watcher: i32::try_from(std::process::id()).unwrap_or_default(),
            container: self.inside.facts().clone(),
            requests: self.planner.entries().to_vec(),
            attached: self.inside.attachments().clone(),
            problems: self
                .retries
                .problems()
                .chain(self.admission.problems(&self.planner, &holders))
                .chain(self.remote_problems())
                .chain(self.removals.problems(&self.planner))
                .chain(self.world.problems())
                .chain(self.retries.access_problems())
                .collect(),
            counters: self.inside.counters(),
            udev_database: Some(self.inside.database_state().clone()),
        }
    }
}
