//! The product as the world sees it: plain runc with our two hooks, on the real kernel, with devices that really come
//! and go. Every story is told twice, once for each cgroup hierarchy, and needs root: `tests/run.sh --privileged`.
//! The stories start executables and look at the kernel and into containers; nothing here calls the library.

/// Tells each of the stories on cgroup v1 and on cgroup v2.
macro_rules! on_both_hierarchies {
    ($($story:ident),+ $(,)?) => {
        mod v1 {
            $(
                #[test]
                #[ignore = "needs root, runc and the real kernel: tests/run.sh --privileged"]
                fn $story() {
                    crate::framework::Hierarchy::V1.tell(super::$story);
                }
            )+
        }
        mod v2 {
            $(
                #[test]
                #[ignore = "needs root, runc and the real kernel: tests/run.sh --privileged"]
                fn $story() {
                    crate::framework::Hierarchy::V2.tell(super::$story);
                }
            )+
        }
    };
}

mod framework;

mod announcing;
mod attach;
mod engine;
mod events;
mod explain;
mod faults_events;
mod faults_filter;
mod faults_start;
mod faults_state;
mod hostile;
mod identity;
mod lifecycle;
mod links;
mod malice;
mod metrics;
mod operator;
mod options;
mod placement;
mod plugging;
mod policy;
mod readiness;
mod recovery;
mod requests;
#[path = "../support/silent_server.rs"]
mod silent_server;
mod stage;
mod storm;
