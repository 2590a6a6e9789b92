//! Single steps, applied one at a time.

use super::super::revoke;
use super::*;
use crate::model::device::DevNode;
use crate::model::plan::attachment::Attachment;

const TTY: &str = "/dev/ttyUSB0";
const LINK: &str = "/dev/board";

fn number(minor: u32) -> DevNum {
    DevNum {
        kind: DevKind::Char,
        major: 188,
        minor,
    }
}

/// A tty with this minor number at [`TTY`], as a plan adds it.
fn tty(minor: u32, access: Access) -> Attachment {
    let mut device = Device::new(SysPath::new("/sys/devices/hub/tty"));
    device.node = Some(DevNode {
        path: TTY.into(),
        num: number(minor),
    });
    Attachment {
        device,
        access,
        node: NodeSpec {
            num: number(minor),
            mode: 0o660,
            uid: 0,
            gid: 0,
        },
        node_creator: NodeCreator::Watcher,
        links: BTreeMap::new(),
        announced: None,
        since: 0,
    }
}

/// A container, and what its watcher knows of it.
#[derive(Default)]
struct World {
    container: FakeContainer,
    attachments: Attachments,
    granted: GrantSet,
}

impl World {
    fn carry_out(&mut self, steps: Vec<Step>) -> Vec<Failure> {
        apply(
            steps,
            &mut self.attachments,
            &mut self.granted,
            &mut self.container,
            7,
        )
    }

    /// The creator of the node at [`TTY`] in each note, the first one first.
    fn noted_makers(&self) -> Vec<Option<NodeCreator>> {
        let creator = |note: &Attachments| note.get(Path::new(TTY)).map(|noted| noted.node_creator);
        self.container.notes.iter().map(creator).collect()
    }
}

fn grants(minor: u32, access: Access) -> GrantSet {
    [(number(minor), access)].into()
}

/// The steps that attach a tty.
fn add(tty: &Attachment) -> Vec<Step> {
    vec![
        Step::SetGrants([(tty.node.num, tty.access)].into()),
        Step::AddNode {
            path: TTY.into(),
            attachment: Box::new(tty.clone()),
        },
    ]
}

fn add_link() -> Step {
    Step::AddLink {
        path: TTY.into(),
        link: LINK.into(),
    }
}

/// The steps that detach the tty and its link.
fn remove() -> Vec<Step> {
    vec![
        Step::Revoke(GrantSet::new()),
        Step::RemoveLink {
            path: TTY.into(),
            link: LINK.into(),
        },
        Step::RemoveNode { path: TTY.into() },
    ]
}

#[test]
fn revoke_leaves_in_force_what_is_kept_except_refused_numbers() {
    let mut world = World {
        granted: [(number(1), Access::ALL), (number(2), Access::ALL)].into(),
        ..World::default()
    };
    world.container.granted = world.granted.clone();
    assert_eq!(
        revoke(grants(1, Access::READ), &mut world.granted, &mut world.container),
        Ok(())
    );
    assert_eq!(world.granted, grants(1, Access::READ));
    assert_eq!(world.container.granted, grants(1, Access::READ));
    assert_eq!(world.container.notes.len(), 0, "no note is written");

    world.container.denied.insert(number(1));
    assert_eq!(
        revoke(grants(1, Access::READ), &mut world.granted, &mut world.container),
        Ok(())
    );
    assert_eq!(world.granted, GrantSet::new());
}

#[test]
fn access_that_cannot_be_revoked_stays_known_as_granted() {
    let mut world = World {
        granted: grants(1, Access::ALL),
        ..World::default()
    };
    world.container.granted = world.granted.clone();
    world.container.filter_is_broken = true;
    assert_eq!(
        revoke(GrantSet::new(), &mut world.granted, &mut world.container),
        Err("the filter refuses".to_owned())
    );
    assert_eq!(world.granted, grants(1, Access::ALL));
}

#[test]
fn our_node_is_in_the_notes_before_it_is_created() {
    let mut world = World::default();
    assert_eq!(world.carry_out(add(&tty(1, Access::ALL))), []);
    assert_eq!(
        world.noted_makers(),
        [Some(NodeCreator::Watcher), Some(NodeCreator::Watcher)]
    );
    assert_eq!(world.attachments.get(Path::new(TTY)).unwrap().since, 7);
}

#[test]
fn a_node_of_the_image_is_marked_as_theirs_before_it_is_adopted() {
    let mut world = World::default();
    world.container.theirs.insert(TTY.into(), number(1));
    assert_eq!(world.carry_out(add(&tty(1, Access::ALL))), []);
    assert_eq!(
        world.noted_makers(),
        [Some(NodeCreator::Other), Some(NodeCreator::Other)]
    );
}

#[test]
fn our_node_that_is_added_again_stays_ours_in_the_notes() {
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::ALL)));
    world.container.notes.clear();
    assert_eq!(world.carry_out(add(&tty(1, Access::ALL))), []);
    assert_eq!(
        world.noted_makers(),
        [Some(NodeCreator::Watcher), Some(NodeCreator::Watcher)]
    );
}

#[test]
fn without_a_written_note_no_node_is_created_and_nothing_is_granted() {
    let mut world = World::default();
    world.container.notes_fail = true;
    let mut steps = add(&tty(1, Access::ALL));
    steps.extend([add_link(), Step::Announce { path: TTY.into() }]);
    let failures = world.carry_out(steps);
    assert_eq!(failures.len(), 2, "before and after: {failures:?}");
    assert!(world.container.nodes.is_empty() && world.container.links.is_empty());
    assert!(world.container.granted.is_empty() && world.granted.is_empty());
    assert!(world.container.announced.is_empty());
}

/// The steps that give an attached tty this access instead of its current one.
fn change_access(access: Access) -> Vec<Step> {
    vec![
        Step::Refresh {
            path: TTY.into(),
            device: Box::new(tty(1, access).device),
            access,
        },
        Step::SetGrants(grants(1, access)),
    ]
}

#[test]
fn additional_access_is_in_the_notes_before_it_is_granted() {
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::READ)));
    world.container.notes.clear();
    // The fake container rejects access that is granted before its note was written.
    assert_eq!(world.carry_out(change_access(Access::ALL)), []);
    assert_eq!(world.container.notes.len(), 2);
    assert_eq!(world.container.may(number(1)), Access::ALL);
}

#[test]
fn removals_are_written_to_the_notes_afterwards() {
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::ALL)));
    world.container.notes.clear();
    assert_eq!(world.carry_out(change_access(Access::READ)), []);
    assert_eq!(world.container.notes.len(), 1);
    assert_eq!(world.container.may(number(1)), Access::READ);
}

#[test]
fn a_link_of_the_image_is_adopted_and_stays() {
    let mut world = World::default();
    world.container.their_links.insert(LINK.into(), TTY.into());
    let mut steps = add(&tty(1, Access::ALL));
    steps.push(add_link());
    assert_eq!(world.carry_out(steps), []);
    let noted = |note: &Attachments| {
        note.get(Path::new(TTY))
            .unwrap()
            .links
            .get(Path::new(LINK))
            .copied()
    };
    let notes: Vec<_> = world.container.notes.iter().map(noted).collect();
    assert_eq!(notes, [Some(NodeCreator::Other), Some(NodeCreator::Other)]);
    assert_eq!(world.carry_out(remove()), []);
    assert!(!world.container.log.contains(&format!("no link {LINK}")));
    assert!(world.attachments.is_empty());
}

#[test]
fn our_link_is_in_the_notes_before_it_is_created() {
    let mut world = World::default();
    let mut steps = add(&tty(1, Access::ALL));
    steps.push(add_link());
    assert_eq!(world.carry_out(steps), []);
    let noted = |note: &Attachments| {
        note.get(Path::new(TTY))
            .unwrap()
            .links
            .get(Path::new(LINK))
            .copied()
    };
    let notes: Vec<_> = world.container.notes.iter().map(noted).collect();
    assert_eq!(notes, [Some(NodeCreator::Watcher), Some(NodeCreator::Watcher)]);
}

#[test]
fn a_device_stays_in_the_notes_without_access_until_its_last_link_is_removed() {
    let mut world = World::default();
    let mut steps = add(&tty(1, Access::ALL));
    steps.push(add_link());
    world.carry_out(steps);
    world.container.broken.insert(LINK.into());
    // The link leads to the node. The node has to belong to the image, so that it is not removed.
    let attachment = world.attachments.get_mut(Path::new(TTY)).unwrap();
    attachment.node_creator = NodeCreator::Other;
    let failures = world.carry_out(remove());
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].path.as_deref(), Some(Path::new(LINK)));
    assert!(world.attachments.get(Path::new(TTY)).is_some());
    assert!(world.container.granted.is_empty());
    // Nor does another device get the path in the meantime.
    assert_eq!(world.carry_out(vec![Step::RemoveNode { path: TTY.into() }]), []);
    assert!(world.attachments.get(Path::new(TTY)).is_some());

    world.container.broken.clear();
    assert_eq!(world.carry_out(remove()), []);
    assert!(world.attachments.is_empty());
}

#[test]
fn no_other_device_gets_the_path_of_a_node_that_cannot_be_removed() {
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::ALL)));
    world.container.broken.insert(TTY.into());
    let mut steps = vec![
        Step::Revoke(GrantSet::new()),
        Step::RemoveNode { path: TTY.into() },
    ];
    steps.extend(add(&tty(2, Access::ALL)));
    steps.push(Step::Announce { path: TTY.into() });
    let failures = world.carry_out(steps);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(world.container.nodes[Path::new(TTY)].num, number(1));
    assert_eq!(world.attachments.get(Path::new(TTY)).unwrap().node.num, number(1));
    assert!(world.container.granted.is_empty() && world.granted.is_empty());
    assert!(world.container.announced.is_empty(), "nothing has come");
}

#[test]
fn a_failure_does_not_revoke_access_of_attached_devices() {
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::READ)));
    // A second node with the same number and other access.
    let mut second = tty(1, Access::WRITE);
    second.links.clear();
    world.attachments.insert("/dev/second".into(), second);
    world.carry_out(vec![Step::SetGrants(grants(1, Access::READ | Access::WRITE))]);
    world.container.broken.insert(LINK.into());
    let failures = world.carry_out(vec![add_link()]);
    assert_eq!(failures.len(), 1);
    assert_eq!(world.container.may(number(1)), Access::READ | Access::WRITE);
}

#[test]
fn after_a_failure_access_is_set_again_only_to_reduce_it() {
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::ALL)));
    world.container.log.clear();
    world.container.broken.insert(LINK.into());
    assert_eq!(world.carry_out(vec![add_link()]).len(), 1);
    assert_eq!(
        world.container.log, [""; 0],
        "access belongs to the node, not to the link"
    );
    // Without a failure nothing is set that no step demands.
    let attachment = world.attachments.get_mut(Path::new(TTY)).unwrap();
    attachment.access = Access::READ;
    world.container.broken.clear();
    assert_eq!(world.carry_out(vec![add_link()]), []);
    assert_eq!(world.container.log, [format!("link {LINK}")]);
}

#[test]
fn while_a_node_cannot_be_removed_other_devices_have_exactly_their_access_and_its_notes_stay() {
    let [unchanged, changed, new] = ["/dev/unchanged", "/dev/changed", "/dev/new"].map(Path::new);
    let mut world = World::default();
    world.carry_out(add(&tty(1, Access::ALL)));
    world.attachments.insert(changed.to_owned(), tty(2, Access::READ));
    world
        .attachments
        .insert(unchanged.to_owned(), tty(5, Access::READ));
    world.carry_out(vec![Step::SetGrants(
        [
            (number(1), Access::ALL),
            (number(2), Access::READ),
            (number(5), Access::READ),
        ]
        .into(),
    )]);
    world.container.broken.insert(TTY.into());
    world.container.notes.clear();
    let replacement = Box::new(tty(3, Access::ALL));
    let mut due: GrantSet = [2, 3, 4].map(|minor| (number(minor), Access::ALL)).into();
    due.insert(number(5), Access::READ);
    let failures = world.carry_out(vec![
        Step::Revoke([2, 5].map(|minor| (number(minor), Access::READ)).into()),
        Step::RemoveNode { path: TTY.into() },
        Step::SetGrants(due),
        Step::AddNode {
            path: TTY.into(),
            attachment: replacement,
        },
        Step::AddNode {
            path: new.to_owned(),
            attachment: Box::new(tty(4, Access::ALL)),
        },
        Step::Refresh {
            path: changed.to_owned(),
            device: Box::new(tty(2, Access::ALL).device),
            access: Access::ALL,
        },
        add_link(),
    ]);
    assert_eq!(failures.len(), 1, "{failures:?}");
    let mut expected: GrantSet = [2, 4].map(|minor| (number(minor), Access::ALL)).into();
    expected.insert(number(5), Access::READ);
    assert_eq!(world.container.granted, expected);
    assert_eq!(world.granted, expected);
    for note in &world.container.notes {
        let stuck = note.get(Path::new(TTY)).unwrap();
        assert_eq!((stuck.node.num, stuck.links.len()), (number(1), 0));
    }
    assert_eq!(world.container.notes.len(), 2);
}

#[test]
fn what_is_left_of_our_links_that_do_not_exist_is_removed_and_all_other_links_stay() {
    let (ours, theirs) = (PathBuf::from("/dev/ours"), PathBuf::from("/dev/theirs"));
    let mut world = World::default();
    let mut steps = add(&tty(1, Access::ALL));
    steps.push(add_link());
    world.carry_out(steps);
    world.container.log.clear();
    let attachment = world.attachments.get_mut(Path::new(TTY)).unwrap();
    attachment.links.insert(ours.clone(), NodeCreator::Watcher);
    attachment.links.insert(theirs.clone(), NodeCreator::Other);
    assert!(check(&mut world.attachments, &mut world.container).is_empty());
    let links: Vec<&PathBuf> = world
        .attachments
        .get(Path::new(TTY))
        .unwrap()
        .links
        .keys()
        .collect();
    assert_eq!(links, [Path::new(LINK)]);
    assert_eq!(world.container.log, ["no link /dev/ours"]);
    // The links of a node that does not exist go with it, but for those of the image.
    world.container.nodes.clear();
    world.container.their_links.insert(theirs.clone(), TTY.into());
    world.container.log.clear();
    let attachment = world.attachments.get_mut(Path::new(TTY)).unwrap();
    attachment.links.insert(theirs, NodeCreator::Other);
    assert!(check(&mut world.attachments, &mut world.container).is_empty());
    assert!(world.attachments.is_empty());
    assert_eq!(world.container.log, [format!("no link {LINK}")]);
}
