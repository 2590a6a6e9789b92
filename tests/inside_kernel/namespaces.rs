//! Work in other namespaces.

use std::env;
use std::process::Command;

use nix::unistd::{Gid, Uid, setresgid, setresuid};
use oci_hotplug::host::container::namespaces::{Namespace, OwnNamespace};

/// Set in the process that is to end.
const CANNOT_RETURN: &str = "OCI_HOTPLUG_TEST_CANNOT_RETURN";

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_process_that_cannot_return_to_its_namespace_ends() {
    if env::var_os(CANNOT_RETURN).is_some() {
        let own = OwnNamespace::open(Namespace::Network).expect("open our own namespace");
        own.run_and_return(|| {
            let nobody = (Uid::from_raw(65534), Gid::from_raw(65534));
            setresgid(nobody.1, nobody.1, nobody.1).expect("become another group");
            setresuid(nobody.0, nobody.0, nobody.0).expect("become another user");
        });
        return;
    }
    let output = Command::new(env::current_exe().expect("this test's path"))
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("namespaces::a_process_that_cannot_return_to_its_namespace_ends")
        .env(CANNOT_RETURN, "1")
        .output()
        .expect("run this test again");
    // The test harness would end with 101.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    let expected = "oci-hotplug: cannot return to the host's network namespace: EPERM";
    assert!(message.contains(expected), "{message}");
}
