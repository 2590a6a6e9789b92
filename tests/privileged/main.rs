//! End-to-end tests as root: plain runc with our two hooks, on the real kernel, with devices that
//! are really added and removed. Each test runs once for each cgroup hierarchy: `tests/run.sh
//! --privileged`. The tests start executables and examine kernel and containers; nothing here calls
//! the library.

#[macro_use]
extern crate macro_rules_attribute;

/// `#[apply(on_both_hierarchies)]` creates the tests `NAME::v1` and `NAME::v2`, one for each cgroup
/// hierarchy.
macro_rules! on_both_hierarchies {
    ($(#[$attribute:meta])* fn $name:ident($machine:tt: &Machine $(,)?) $body:block) => {
        $(#[$attribute])*
        fn $name($machine: &Machine) $body

        mod $name {
            on_hierarchy!(v1, V1, $name);
            on_hierarchy!(v2, V2, $name);
        }
    };
}

/// `#[apply(on_cgroup_v2)]` is for tests of something that cgroup v1 does not have, and for tests
/// that wait ten seconds and do not depend on cgroups.
macro_rules! on_cgroup_v2 {
    ($(#[$attribute:meta])* fn $name:ident($machine:tt: &Machine $(,)?) $body:block) => {
        $(#[$attribute])*
        fn $name($machine: &Machine) $body

        mod $name {
            on_hierarchy!(v2, V2, $name);
        }
    };
}

macro_rules! on_hierarchy {
    ($test:ident, $hierarchy:ident, $name:ident) => {
        #[test]
        #[ignore = "needs root, runc and the real kernel: tests/run.sh --privileged"]
        fn $test() {
            crate::framework::Hierarchy::$hierarchy.run_test(super::$name);
        }
    };
}

mod framework;

mod announcing;
mod attach;
mod attacks;
mod attacks_callers;
mod attacks_containers;
mod cgroups;
mod engine;
mod events;
mod exclusive;
mod explain;
mod faults_events;
mod faults_filter;
mod faults_start;
mod faults_state;
mod framework_checks;
mod host_check;
mod identity;
mod lifecycle;
mod links;
mod metrics;
mod node_names;
mod nodeless;
mod obstacles;
mod operator;
mod options;
mod placement;
mod plugging;
mod policy;
mod recovery;
mod replaced_watchers;
mod requests;
mod rootless;
mod rootless_inside;
mod rootless_setups;
#[path = "../support/silent_server.rs"]
mod silent_server;
#[path = "../support/skipped.rs"]
mod skipped;
mod storm;
mod system_calls;
mod udev_database;
mod udev_database_crashes;
