//! Draws the list of containers.

use std::path::{Path, PathBuf};

use anstyle::Style;

use crate::cli::render::color::{BAD, CAUTION, GOOD, PLAIN};
use crate::cli::render::table::{self, width};
use crate::cli::render::wrap::wrapped;
use crate::model::oci::engine::Engine;
use crate::model::quoting::visible;

/// A container as it is shown.
pub(super) struct Listed {
    /// The short id.
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) engine: Option<Engine>,
    pub(super) age: Option<String>,
    pub(super) health: &'static str,
    /// Nodes in the container; `None` when its watcher does not say.
    pub(super) attached: Option<Vec<PathBuf>>,
    pub(super) requests: Vec<String>,
    /// Why its health is not `ok`.
    pub(super) reasons: Vec<String>,
}

const EMPTY: &str = "No container has a watcher: either none requests devices by the annotation io.oci-hotplug.devices, or its engine \
     did not run our hooks (`oci-hotplug check`; Docker needs --device oci-hotplug.dev/device=annotated).";

const HEADER: [&str; 7] = [
    "CONTAINER",
    "NAME",
    "ENGINE",
    "SINCE",
    "HEALTH",
    "ATTACHED",
    "REQUESTS",
];
const HEALTH: usize = 4;

/// The most reasons that are shown of one container.
const MAX_REASONS: usize = 3;

/// The table, and below it a sentence for each reason and for each of `others`.
pub(super) fn draw(containers: &[Listed], others: &[String], screen: Option<usize>) -> String {
    let rows: Vec<[String; 7]> = containers.iter().map(row).collect();
    let style = |column, cell: &str| if column == HEALTH { style(cell) } else { PLAIN };
    let mut drawn = match rows.is_empty() {
        true => format!("{}\n", wrapped(EMPTY, 0, 0, screen)),
        false => table::draw(HEADER, &rows, screen, style),
    };
    let reasons: Vec<String> = containers.iter().flat_map(reasons).collect();
    let others = others.iter().map(|line| sentence(line));
    let below: Vec<String> = reasons.into_iter().chain(others).collect();
    if !rows.is_empty() && !below.is_empty() {
        drawn.push('\n');
    }
    for line in below {
        drawn += &format!("{}\n", wrapped(&visible(&line), 0, 2, screen));
    }
    drawn
}

fn row(container: &Listed) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        container.id.clone(),
        or_dash(container.name.clone()),
        or_dash(container.engine.map(|engine| engine.to_string())),
        or_dash(container.age.clone()),
        container.health.into(),
        or_dash(container.attached.as_deref().and_then(folded)),
        container.requests.join(", "),
    ]
}

fn style(health: &str) -> Style {
    match health {
        "ok" => GOOD,
        "waiting" => CAUTION,
        _ => BAD,
    }
}

/// The most columns of several nodes.
const MAX_NODES: usize = 20;

/// The names of nodes below /dev, as many as fit, and how many there are besides. USB devices'
/// own nodes come last: every USB device has one.
fn folded(paths: &[PathBuf]) -> Option<String> {
    let is_usb = |path: &&Path| path.starts_with("/dev/bus/usb");
    let paths = || paths.iter().map(PathBuf::as_path);
    let sorted = paths().filter(|path| !is_usb(path)).chain(paths().filter(is_usb));
    let names: Vec<String> = sorted
        .map(|path| path.strip_prefix("/dev").unwrap_or(path).display().to_string())
        .collect();
    let shown = |count: usize| {
        let first = names.get(..count).unwrap_or(&names).join(" ");
        match names.len() - count.min(names.len()) {
            0 => first,
            more => format!("{first} +{more}"),
        }
    };
    let fits = |count: &usize| *count == 1 || width(&shown(*count)) <= MAX_NODES;
    (1..=names.len()).rev().find(fits).map(shown)
}

/// Why the container's health is not `ok`, each with its name in front.
fn reasons(container: &Listed) -> Vec<String> {
    let name = container.name.as_deref().unwrap_or(&container.id);
    let mut reasons: Vec<String> = container
        .reasons
        .iter()
        .take(MAX_REASONS)
        .map(|reason| format!("{name}: {reason}"))
        .collect();
    match container.reasons.len().saturating_sub(MAX_REASONS) {
        0 => {}
        more => reasons.push(format!(
            "{name}: {more} more (`oci-hotplug inspect {}`)",
            container.id
        )),
    }
    reasons
}

/// The text with a capital letter at its beginning.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pictures;

    fn listed(name: &str, health: &'static str, attached: &[&str], reasons: &[&str]) -> Listed {
        Listed {
            id: "3f2a1b9c0d4e".into(),
            name: Some(name.into()),
            engine: Some(Engine::Podman),
            age: Some("3m".into()),
            health,
            attached: Some(attached.iter().map(PathBuf::from).collect()),
            requests: vec!["usb:0403:6001;link=/dev/ttyZIGBEE".into(), "class:lab".into()],
            reasons: reasons.iter().map(|reason| reason.to_string()).collect(),
        }
    }

    fn plain(drawn: &str) -> String {
        anstream::adapter::strip_str(drawn).to_string()
    }

    #[test]
    fn a_row_fits_80_columns_and_what_is_not_ok_is_explained() {
        let drawn = draw(
            &[
                listed("zigbee", "ok", &["/dev/bus/usb/001/004", "/dev/ttyUSB0"], &[]),
                listed("lab", "waiting", &[], &["/dev/sdb: another container has it"]),
                listed(
                    "desk",
                    "problems",
                    &[],
                    &["/dev/a: no", "/dev/b: no", "/dev/c: no", "/dev/d", "/dev/e"],
                ),
            ],
            &["container x was not started".into()],
            Some(80),
        );
        assert_eq!(
            plain(&drawn),
            "CONTAINER     NAME    ENGINE  SINCE  HEALTH    ATTACHED    REQUESTS
3f2a1b9c0d4e  zigbee  podman  3m     ok        ttyUSB0 +1  usb:0403:6001;link=/…
3f2a1b9c0d4e  lab     podman  3m     waiting   -           usb:0403:6001;link=/…
3f2a1b9c0d4e  desk    podman  3m     problems  -           usb:0403:6001;link=/…

lab: /dev/sdb: another container has it
desk: /dev/a: no
desk: /dev/b: no
desk: /dev/c: no
desk: 2 more (`oci-hotplug inspect 3f2a1b9c0d4e`)
Container x was not started
"
        );
        assert!(drawn.contains(&format!("{GOOD}ok{GOOD:#}")), "{drawn:?}");
        assert!(
            drawn.contains(&format!("{CAUTION}waiting{CAUTION:#}")),
            "{drawn:?}"
        );
        assert!(drawn.contains(&format!("{BAD}problems{BAD:#}")), "{drawn:?}");
    }

    #[test]
    fn nodes_are_shown_as_far_as_they_fit_and_those_of_usb_devices_last() {
        let shown = |paths: &[&str]| folded(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        for (paths, expected) in [
            (&["/dev/ttyUSB0"][..], "ttyUSB0"),
            (&["/dev/bus/usb/001/004"], "bus/usb/001/004"),
            (&["/dev/bus/usb/001/004", "/dev/ttyUSB0"], "ttyUSB0 +1"),
            (&["/dev/sda", "/dev/sda1", "/dev/sda2"], "sda sda1 sda2"),
            (
                &["/dev/input/event12", "/dev/input/mouse0", "/dev/x"],
                "input/event12 +2",
            ),
            (
                &["/dev/serial/by-id/usb-FTDI_Board-if00", "/srv/node"],
                "serial/by-id/usb-FTDI_Board-if00 +1",
            ),
        ] {
            assert_eq!(shown(paths).as_deref(), Some(expected));
        }
        assert_eq!(shown(&[]), None);
    }

    #[test]
    fn the_list_is_pictured() {
        let container =
            |id: &str, name: &str, engine, age: &str, health, attached: &[&str], request: &str| Listed {
                id: id.into(),
                engine: Some(engine),
                age: Some(age.into()),
                requests: vec![request.into()],
                ..listed(name, health, attached, &[])
            };
        let usb_and_tty = ["/dev/bus/usb/001/004", "/dev/ttyUSB0"];
        let board = ["/dev/bus/usb/001/007", "/dev/ttyACM0"];
        let mut all = [
            container(
                "3f2a1b9c0d4e",
                "zigbee",
                Engine::Podman,
                "5d",
                "ok",
                &usb_and_tty,
                "usb:0403:6001;link=/dev/zigbee",
            ),
            container(
                "be3354920b4b",
                "flasher",
                Engine::Docker,
                "2h",
                "ok",
                &board,
                "class:boards",
            ),
            container(
                "77d0c2f1a6e3",
                "backup",
                Engine::Podman,
                "7m",
                "waiting",
                &[],
                "usb:0781:5581;exclusive",
            ),
            container(
                "c51e0aa94d27",
                "desk",
                Engine::Docker,
                "32s",
                "problems",
                &[],
                "usb:0627:0001",
            ),
        ];
        all[2].reasons = vec![
            "/dev/sdb +1: another container has it exclusively (container 5ce37de0e8f0): waiting until the other container releases it".into(),
        ];
        all[3].reasons = vec![
            "/dev/input/event10: device request \"usb:0627:0001\": denied by the policy (protected: seat-input): keyboards, keypads, mice, touchpads, touch screens and tablets, by event, hidraw and USB node are protected, because reading them reveals passwords, and writing to them types on the host (to allow it, run `oci-hotplug allow 'usb:0627:0001'`)".into(),
        ];
        let drawn = draw(&all, &[], Some(pictures::COLUMNS));
        pictures::check("list", "oci-hotplug list", &drawn);
    }
}
