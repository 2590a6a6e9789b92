use super::*;
use proptest::prelude::*;

fn device(name: &str) -> SysPath {
    SysPath::new(format!("/sys/devices/{name}"))
}

impl Leases {
    /// Takes a device that has no bytes in common with any other.
    fn get(&mut self, device: &SysPath, hold: Hold) -> Result<Option<Hold>, LeaseError> {
        self.take(device, &[Extent::whole(device.clone())], hold)
    }
}

fn files_of(dir: &Path) -> usize {
    fs::read_dir(dir.join("leases")).map_or(0, Iterator::count)
}

#[test]
fn a_device_is_held_exclusively_or_shared() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    let tty = device("tty");
    assert_eq!(one.get(&tty, Hold::Exclusive).unwrap(), Some(Hold::Exclusive));
    assert_eq!(other.get(&tty, Hold::Shared).unwrap(), None);
    assert_eq!(other.get(&tty, Hold::Exclusive).unwrap(), None);
    assert_eq!(
        other.get(&device("tty2"), Hold::Exclusive).unwrap(),
        Some(Hold::Exclusive)
    );
    one.keep(|_| false);
    assert_eq!(other.get(&tty, Hold::Shared).unwrap(), Some(Hold::Shared));
    assert_eq!(one.get(&tty, Hold::Shared).unwrap(), Some(Hold::Shared));
    assert_eq!(
        one.get(&tty, Hold::Exclusive).unwrap(),
        Some(Hold::Shared),
        "it keeps what it had"
    );
    assert_eq!(one.held(&tty), Some(Hold::Shared));
    other.keep(|_| false);
    assert_eq!(one.get(&tty, Hold::Exclusive).unwrap(), Some(Hold::Exclusive));
    assert_eq!(one.get(&tty, Hold::Shared).unwrap(), Some(Hold::Exclusive));
}

#[test]
fn a_device_is_shared_while_another_container_holds_a_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    let disk = device("disk");
    let part = |first, last| Extent {
        medium: disk.clone(),
        first,
        last,
    };
    let [first, second] = ["disk/first", "disk/second"].map(device);
    assert!(one.is_shared(&disk), "unknown");
    one.get(&disk, Hold::Shared).unwrap();
    assert!(!one.is_shared(&disk));
    other.take(&first, &[part(512, 1023)], Hold::Shared).unwrap();
    assert!(one.is_shared(&disk) && other.is_shared(&first));
    other.take(&second, &[part(1024, 1535)], Hold::Shared).unwrap();
    one.keep(|_| false);
    assert!(!other.is_shared(&first));
    one.take(&first, &[part(512, 1023)], Hold::Shared).unwrap();
    assert!(other.is_shared(&first) && !other.is_shared(&second));
}

#[test]
fn no_file_is_left_when_all_leases_are_released() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    for leases in [&mut one, &mut other] {
        leases.get(&device("a"), Hold::Shared).unwrap();
    }
    one.get(&device("b"), Hold::Exclusive).unwrap();
    assert_eq!(files_of(dir.path()), 2);
    drop(one);
    assert_eq!(files_of(dir.path()), 1);
    drop(other);
    assert_eq!(files_of(dir.path()), 0);
}

#[test]
fn a_lease_stays_held_during_a_handover() {
    let dir = tempfile::tempdir().unwrap();
    let [mut first, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    first.get(&device("a"), Hold::Exclusive).unwrap();
    first.get(&device("b"), Hold::Shared).unwrap();
    let files = first.files().map(|file| file.try_clone().unwrap()).collect();
    let mut second = Leases::inherit(dir.path(), files);
    first.forget();
    drop(first);
    assert_eq!(files_of(dir.path()), 2);
    assert_eq!(other.get(&device("a"), Hold::Shared).unwrap(), None);
    assert_eq!(other.get(&device("b"), Hold::Exclusive).unwrap(), None);
    assert_eq!(
        second.get(&device("a"), Hold::Exclusive).unwrap(),
        Some(Hold::Exclusive)
    );
    // What is not wanted any more is free; what is still wanted stays locked.
    second.keep(|_| true);
    assert_eq!(other.get(&device("a"), Hold::Shared).unwrap(), None);
    assert_eq!(
        other.get(&device("b"), Hold::Exclusive).unwrap(),
        Some(Hold::Exclusive)
    );
    drop(second);
    drop(other);
    assert_eq!(files_of(dir.path()), 0);
}

#[test]
fn a_crash_releases_leases_and_the_files_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let mut dead = Leases::new(dir.path());
    dead.get(&device("a"), Hold::Exclusive).unwrap();
    sweep(dir.path());
    assert_eq!(files_of(dir.path()), 1, "what is held stays");
    // As if the process had died: the kernel closes the descriptor, and the file stays.
    dead.forget();
    assert_eq!(files_of(dir.path()), 1);
    let mut next = Leases::new(dir.path());
    assert_eq!(
        next.get(&device("a"), Hold::Exclusive).unwrap(),
        Some(Hold::Exclusive)
    );
    next.forget();
    sweep(dir.path());
    assert_eq!(files_of(dir.path()), 0);
}

fn whole(name: &str) -> Extent {
    Extent::whole(device(name))
}

fn part(name: &str, part: &str) -> Extent {
    whole(name).part(part)
}

/// Case security 8.
#[test]
fn disk_and_partition_exclude_each_other_and_two_partitions_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    let (disk, first, second) = (device("sda"), device("sda1"), device("sda2"));
    let (of_disk, of_first, of_second) = (whole("sda"), part("sda", "sda1"), part("sda", "sda2"));
    let get = |leases: &mut Leases, device: &SysPath, extent: &Extent, hold| {
        leases.take(device, std::slice::from_ref(extent), hold).unwrap()
    };
    assert_eq!(
        get(&mut one, &first, &of_first, Hold::Exclusive),
        Some(Hold::Exclusive)
    );
    assert_eq!(get(&mut other, &disk, &of_disk, Hold::Shared), None);
    assert_eq!(get(&mut other, &disk, &of_disk, Hold::Exclusive), None);
    assert_eq!(
        get(&mut other, &second, &of_second, Hold::Exclusive),
        Some(Hold::Exclusive)
    );
    assert_eq!(
        get(&mut one, &disk, &of_disk, Hold::Shared),
        None,
        "the other part is taken"
    );
    assert_eq!(
        one.held(&first),
        Some(Hold::Exclusive),
        "what it had it has still"
    );
    other.keep(|_| false);
    assert_eq!(get(&mut one, &disk, &of_disk, Hold::Shared), Some(Hold::Shared));
    // A partition that is created later belongs to the whole disk.
    let later = part("sda", "sda3");
    assert_eq!(get(&mut other, &device("sda3"), &later, Hold::Exclusive), None);
    assert_eq!(
        get(&mut other, &device("sda3"), &later, Hold::Shared),
        Some(Hold::Shared)
    );
    assert_eq!(
        get(&mut other, &first, &of_first, Hold::Shared),
        None,
        "the part is still exclusive"
    );
    // Releasing the disk does not release its partition, nor the other way round.
    one.keep(|kept| *kept == first);
    assert_eq!(get(&mut other, &first, &of_first, Hold::Shared), None);
    assert_eq!(
        get(&mut other, &second, &of_second, Hold::Exclusive),
        Some(Hold::Exclusive)
    );
    drop(one);
    assert_eq!(
        get(&mut other, &first, &of_first, Hold::Shared),
        Some(Hold::Shared)
    );
    drop(other);
    assert_eq!(files_of(dir.path()), 0);
}

/// Case security 8.
#[test]
fn a_device_on_several_media_is_leased_on_all_of_them_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    let mirror = [whole("md0"), part("sda", "md0"), part("sdb", "md0")];
    other
        .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
        .unwrap();
    assert_eq!(one.take(&device("md0"), &mirror, Hold::Shared).unwrap(), None);
    // The failed attempt leaves nothing locked.
    assert_eq!(
        other
            .take(&device("sda"), &[whole("sda")], Hold::Exclusive)
            .unwrap(),
        Some(Hold::Exclusive)
    );
    other.keep(|_| false);
    assert_eq!(
        one.take(&device("md0"), &mirror, Hold::Exclusive).unwrap(),
        Some(Hold::Exclusive)
    );
    assert_eq!(
        other.take(&device("sda"), &[whole("sda")], Hold::Shared).unwrap(),
        None
    );
    // A device that moves to another medium is held there, and no longer on the old one.
    assert_eq!(
        one.take(&device("md0"), &mirror[..2], Hold::Shared).unwrap(),
        Some(Hold::Exclusive)
    );
    assert_eq!(
        other
            .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
            .unwrap(),
        Some(Hold::Exclusive)
    );
    assert_eq!(
        one.take(&device("md0"), &mirror, Hold::Shared).unwrap(),
        None,
        "and is not had where it can't be"
    );
    drop(one);
    drop(other);
    assert_eq!(files_of(dir.path()), 0);
}

/// Case security 8: the next watcher holds the same ranges.
#[test]
fn leases_of_disk_and_partition_stay_held_during_a_handover() {
    let dir = tempfile::tempdir().unwrap();
    let [mut first, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
    first
        .take(&device("sda1"), &[part("sda", "sda1")], Hold::Exclusive)
        .unwrap();
    first.take(&device("sda"), &[whole("sda")], Hold::Shared).unwrap();
    first
        .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
        .unwrap();
    let files = first.files().map(|file| file.try_clone().unwrap()).collect();
    let mut second = Leases::inherit(dir.path(), files);
    first.forget();
    drop(first);
    let is_kept_out = |other: &mut Leases| {
        assert_eq!(
            other
                .take(&device("sda1"), &[part("sda", "sda1")], Hold::Shared)
                .unwrap(),
            None
        );
        assert_eq!(
            other
                .take(&device("sda"), &[whole("sda")], Hold::Exclusive)
                .unwrap(),
            None
        );
    };
    is_kept_out(&mut other);
    assert_eq!(
        other.take(&device("sdb"), &[whole("sdb")], Hold::Shared).unwrap(),
        None
    );
    second
        .take(&device("sda"), &[whole("sda")], Hold::Shared)
        .unwrap();
    is_kept_out(&mut other);
    second
        .take(&device("sda1"), &[part("sda", "sda1")], Hold::Exclusive)
        .unwrap();
    is_kept_out(&mut other);
    second.keep(|_| true);
    is_kept_out(&mut other);
    // What the next watcher does not take, and what was held beyond what it takes, is free.
    assert_eq!(
        other
            .take(&device("sda2"), &[part("sda", "sda2")], Hold::Shared)
            .unwrap(),
        Some(Hold::Shared)
    );
    assert_eq!(
        other
            .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
            .unwrap(),
        Some(Hold::Exclusive)
    );
    drop(second);
    drop(other);
    sweep(dir.path());
    assert_eq!(files_of(dir.path()), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Three containers take and release devices in any order: no byte is ever held exclusively by
    /// one and at all by another, and in the end no file is left.
    #[test]
    fn no_byte_of_an_exclusive_lease_is_held_by_another_container(steps in prop::collection::vec((0..3usize, 0..6usize, any::<bool>(), 0..4u8), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut all = [(), (), ()].map(|()| Leases::new(dir.path()));
        let devices: [(&str, Vec<Extent>); 6] = [
            ("sda", vec![whole("sda")]),
            ("sda1", vec![part("sda", "sda1")]),
            ("sda2", vec![part("sda", "sda2")]),
            ("dm-0", vec![part("sda", "sda1").part("dm-0"), part("sdb", "dm-0")]),
            ("sdb", vec![whole("sdb")]),
            ("loop0", vec![part("sda", "sda2"), whole("loop0")]),
        ];
        for (whose, which, alone, what) in steps {
            let (name, extents) = &devices[which];
            let hold = if alone { Hold::Exclusive } else { Hold::Shared };
            if what == 0 {
                all[whose].keep(|kept| *kept != device(name));
            } else {
                let had = all[whose].take(&device(name), extents, hold).unwrap();
                prop_assert_eq!(had, all[whose].held(&device(name)));
                // Only another container can keep it out.
                let stands_in_the_way = |other: &Leases| other.held.values().any(|lease| {
                    (lease.hold == Hold::Exclusive || alone)
                        && lease.extents.iter().any(|one| extents.iter().any(|other| one.overlaps(other)))
                });
                let is_free = (0..3).filter(|other| *other != whose).all(|other| !stands_in_the_way(&all[other]));
                prop_assert_eq!(had.is_some_and(|had| had >= hold), is_free || had == Some(Hold::Exclusive));
            }
            for (index, one) in all.iter().enumerate() {
                for lease in one.held.values().filter(|lease| lease.hold == Hold::Exclusive) {
                    let others = all.iter().enumerate().filter(|(other, _)| *other != index);
                    let mut others = others.flat_map(|(_, other)| other.held.values());
                    let is_shared = others.any(|other| {
                        lease.extents.iter().any(|one| other.extents.iter().any(|other| one.overlaps(other)))
                    });
                    prop_assert!(!is_shared);
                }
            }
        }
        drop(all);
        prop_assert_eq!(files_of(dir.path()), 0);
    }
}

proptest! {
    #[test]
    fn the_name_of_a_lease_is_one_path_component(path in "/sys/devices/.{1,300}") {
        let name = name_of(&SysPath::new(path));
        prop_assert!(name.len() <= 255 && !name.contains('/') && !name.starts_with('.') && name.is_ascii());
    }

    #[test]
    fn two_devices_have_different_lease_names(one in "[a-z/]{1,20}", other in "[a-z/+]{1,20}") {
        prop_assume!(device(&one) != device(&other));
        prop_assert_ne!(name_of(&device(&one)), name_of(&device(&other)));
    }
}
