//! `oci-hotplug tree`

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};

use super::Enrolled;
use super::follow::{Screen, follow};
use super::table::{clipped, screen_width, width};
use crate::host::monitor::{DeviceMonitor, RECEIVE_BUFFER};
use crate::host::state::registry::Registry;
use crate::model::device::tree::{ATTRIBUTES, Branch, Holder, Holders, tree};
use crate::model::device::{Device, STATIC_NODE};
use crate::model::quoting::visible;
use crate::model::request::facts_needed::FactsNeeded;

/// How the tree is shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Options {
    /// Show the kernel's own nodes too (terminals, memory, loop devices ...).
    #[arg(long)]
    all: bool,
    /// Draw again whenever a device comes or goes, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// Prints the host's devices, and which container holds each.
pub(super) fn run(registry: &Registry, options: Options, as_json: bool) -> Result<()> {
    let mut wanted = FactsNeeded {
        udev: true,
        ..FactsNeeded::default()
    };
    wanted
        .attributes
        .extend(ATTRIBUTES.map(|name| (name.to_owned(), None)));
    let mut monitor = DeviceMonitor::open(wanted, RECEIVE_BUFFER).context("listing the host's devices")?;
    if !options.watch {
        let picture = picture(&monitor, registry, options.all, as_json)?;
        anstream::stdout().lock().write_all(picture.as_bytes())?;
        return Ok(());
    }
    let mut screen = Screen::default();
    follow(&mut monitor, |monitor| {
        screen.show(picture(monitor, registry, options.all, as_json)?)
    })
}

fn picture(monitor: &DeviceMonitor, registry: &Registry, all: bool, as_json: bool) -> Result<String> {
    let mut devices = monitor.enumerate().context("listing the host's devices")?;
    let holders = holders(&Enrolled::all(registry)?, &mut devices);
    let branches = tree(&devices, &holders, all);
    if as_json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&branches)?));
    }
    Ok(draw(&lines(&branches), screen_width()))
}

/// Who holds what. Nodes that sysfs does not know are added to the devices: only their holders know of them.
fn holders(containers: &[Enrolled], devices: &mut Vec<Device>) -> Holders {
    let mut holders = Holders::new();
    for container in containers {
        let attached = container.status.iter().flat_map(|status| status.attached.iter());
        for (path, attachment) in attached {
            let device = &attachment.device;
            let is_static = device.subsystem.as_deref() == Some(STATIC_NODE);
            if is_static && !devices.iter().any(|known| known.syspath == device.syspath) {
                devices.push(device.clone());
            }
            holders.entry(device.syspath.clone()).or_default().push(Holder {
                container: container.called(),
                path: path.clone(),
            });
        }
    }
    holders
}

/// One line of the drawing: what leads to it, and its three columns.
struct Line<'b> {
    lead: String,
    branch: &'b Branch,
    node: String,
    held: String,
}

fn lines(branches: &[Branch]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for bus in branches {
        lines.push(Line::new(String::new(), bus));
        add(&bus.branches, "", &mut lines);
    }
    lines
}

fn add<'b>(branches: &'b [Branch], indent: &str, lines: &mut Vec<Line<'b>>) {
    for (at, branch) in branches.iter().enumerate() {
        let is_last = at + 1 == branches.len();
        let (lead, deeper) = if is_last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        lines.push(Line::new(format!("{indent}{lead}"), branch));
        add(&branch.branches, &format!("{indent}{deeper}"), lines);
    }
}

impl<'b> Line<'b> {
    fn new(lead: String, branch: &'b Branch) -> Self {
        let plain = |text: &str| visible(text).into_owned();
        let node = branch.node.as_ref().map(|node| node.path.display().to_string());
        let held: Vec<String> = branch
            .holders
            .iter()
            .map(|holder| {
                let same = branch.node.as_ref().is_some_and(|node| node.path == holder.path);
                if same {
                    holder.container.clone()
                } else {
                    format!("{} as {}", holder.container, holder.path.display())
                }
            })
            .collect();
        Self {
            lead,
            branch,
            node: plain(&node.unwrap_or_default()),
            held: plain(&held.join(", ")),
        }
    }

    /// The name apart, as it is to stand out, and the rest.
    fn text(&self) -> (Cow<'_, str>, String) {
        let branch = self.branch;
        let mut rest = String::new();
        let parts = [
            Some(branch.description.clone()).filter(|text| !text.is_empty()),
            branch.id.clone(),
            branch.serial.clone(),
            branch.driver.clone().map(|driver| format!("[{driver}]")),
            (branch.hidden > 0).then(|| match branch.hidden {
                1 => "1 more node (--all)".to_owned(),
                count => format!("{count} more nodes (--all)"),
            }),
        ];
        for part in parts.into_iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(rest, " {part}");
        }
        (visible(&branch.name), visible(&rest).into_owned())
    }
}

const HEADER: [&str; 3] = ["DEVICE", "NODE", "CONTAINER"];
const NAME: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const HELD: Style = AnsiColor::Green.on_default().bold();

/// The least that the first column is cut to.
const MIN_DEVICE: usize = 24;

/// Draws the lines in three columns; where the terminal is too narrow, the first is cut.
fn draw(lines: &[Line<'_>], screen: Option<usize>) -> String {
    let widest = |column: &dyn Fn(&Line<'_>) -> usize, header: &str| {
        lines
            .iter()
            .map(column)
            .max()
            .unwrap_or_default()
            .max(header.len())
    };
    let text_width = |line: &Line<'_>| {
        let (name, rest) = line.text();
        width(&line.lead) + width(&name) + width(&rest)
    };
    let nodes = widest(&|line| width(&line.node), HEADER[1]);
    let held = widest(&|line| width(&line.held), HEADER[2]);
    let mut device = widest(&text_width, HEADER[0]);
    if let Some(screen) = screen {
        let left = screen.saturating_sub(nodes + held + 4);
        device = device.min(left.max(MIN_DEVICE));
    }
    let mut drawn = format!("{:device$}  {:nodes$}  {}\n", HEADER[0], HEADER[1], HEADER[2]);
    for line in lines {
        let (name, rest) = line.text();
        let lead = clipped(&line.lead, device);
        let name = clipped(&name, device.saturating_sub(width(&lead)));
        let rest = clipped(&rest, device.saturating_sub(width(&lead) + width(&name)));
        let gap = " ".repeat(device.saturating_sub(width(&lead) + width(&name) + width(&rest)));
        let mut text = format!(
            "{FAINT}{lead}{FAINT:#}{NAME}{name}{NAME:#}{rest}{gap}  {:nodes$}",
            line.node
        );
        if line.held.is_empty() {
            text.truncate(text.trim_end().len());
        } else {
            let _ = write!(text, "  {HELD}{}{HELD:#}", line.held);
        }
        drawn.push_str(&text);
        drawn.push('\n');
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::recorded;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn drawn(screen: Option<usize>) -> String {
        let devices = recorded::hub_with_two_adapters();
        let tty = recorded::with_node(&devices, "/dev/ttyUSB1").syspath.clone();
        let holder = Holder {
            container: "lab".into(),
            path: "/dev/board".into(),
        };
        let branches = tree(&devices, &[(tty, vec![holder])].into(), false);
        plain(&draw(&lines(&branches), screen))
    }

    #[test]
    fn the_tree_is_drawn_with_nodes_and_holders_in_columns() {
        assert_eq!(drawn(None), include_str!("../../tests/fixtures/tree.txt"));
    }

    #[test]
    fn in_a_narrow_terminal_the_first_column_is_cut() {
        let drawn = drawn(Some(72));
        assert!(drawn.lines().all(|line| width(line) <= 72), "{drawn}");
        assert!(drawn.contains('…'), "{drawn}");
        assert!(drawn.contains("lab as /dev/board"), "{drawn}");
    }
}
