use super::*;
use crate::host::process::start_time;
use crate::model::oci::ProcessUser;

#[path = "../../../../tests/support/owners.rs"]
mod owners;

use owners::Owners;

fn owner_files(owners: &Owners) -> usize {
    fs::read_dir(dir_of(owners.state.path())).map_or(0, Iterator::count)
}

fn cgroup(inode: u64) -> Cgroup {
    Cgroup {
        path: "/sys/fs/cgroup/a".into(),
        inode,
    }
}

/// Case security 7.
#[test]
fn a_cgroup_has_one_owner_and_inodes_are_distinguished_by_hierarchy() {
    let mut owners = Owners::new();
    let [first, second] = ["first", "second"].map(|id| owners.container(id));
    assert_eq!(first.acquire(Version::V2, &cgroup(7)).unwrap(), None);
    assert_eq!(first.acquire(Version::V2, &cgroup(7)).unwrap(), None, "again");
    let owner = second.acquire(Version::V2, &cgroup(7)).unwrap().unwrap();
    assert_eq!(
        (owner.container.as_str(), owner.pid),
        ("first", first.container.pid)
    );
    assert_eq!(second.acquire(Version::V1, &cgroup(7)).unwrap(), None);
    assert_eq!(second.acquire(Version::V2, &cgroup(8)).unwrap(), None);
    second.release(Version::V2, &cgroup(7));
    assert!(second.acquire(Version::V2, &cgroup(7)).unwrap().is_some());
    first.release(Version::V2, &cgroup(7));
    assert_eq!(second.acquire(Version::V2, &cgroup(7)).unwrap(), None);
}

/// Case security 7.
#[test]
fn a_container_that_has_ended_or_lost_its_record_owns_nothing() {
    let mut owners = Owners::new();
    let [ended, removed, running] = ["ended", "removed", "running"].map(|id| owners.container(id));
    for (inode, owner) in [(1, &ended), (2, &removed), (3, &running)] {
        assert_eq!(owner.acquire(Version::V2, &cgroup(inode)).unwrap(), None);
    }
    fs::write(dir_of(owners.state.path()).join("v2-4"), "{\"conta").unwrap();
    owners.end(0);
    fs::remove_dir_all(owners.state.path().join("containers/removed")).unwrap();
    let next = owners.container("next");
    for inode in [1, 2, 4] {
        assert_eq!(
            next.acquire(Version::V2, &cgroup(inode)).unwrap(),
            None,
            "{inode}"
        );
    }
    assert!(next.acquire(Version::V2, &cgroup(3)).unwrap().is_some());
    owners.end(3);
    // Child processes of other tests have copies of the descriptors, and with them of the
    // locks, until they call exec.
    let swept_down_to = |owners: &Owners, count| {
        (0..1000).any(|_| {
            sweep(owners.state.path());
            std::thread::sleep(Duration::from_millis(1));
            owner_files(owners) == count
        })
    };
    assert!(
        swept_down_to(&owners, 1),
        "what ended containers owned is removed"
    );
    sweep(owners.state.path());
    assert_eq!(owner_files(&owners), 1, "what a running container owns stays");
    owners.end(2);
    assert!(swept_down_to(&owners, 0));
}

/// Case security 7.
#[test]
fn only_one_of_many_simultaneous_callers_becomes_the_owner() {
    let mut containers = Owners::new();
    let owners: Vec<Owner> = (0..8)
        .map(|index| containers.container(&format!("c{index}")))
        .collect();
    for inode in 0..20 {
        let owned = std::thread::scope(|scope| {
            let attempts: Vec<_> = owners
                .iter()
                .map(|owner| scope.spawn(move || owner.acquire(Version::V1, &cgroup(inode)).unwrap()))
                .collect();
            attempts
                .into_iter()
                .map(|attempt| attempt.join().unwrap())
                .filter(Option::is_none)
                .count()
        });
        assert_eq!(owned, 1);
    }
}
