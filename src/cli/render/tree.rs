//! Draws the tree of devices.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::table::{clipped, width};
use crate::model::device::tree::Branch;
use crate::model::quoting::visible;

/// One line of the drawing: the branch lines before the name, and the three columns.
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

    /// The name, which is drawn bold, and the rest.
    fn text(&self) -> (Cow<'_, str>, String) {
        let branch = self.branch;
        let mut rest = String::new();
        let parts = [
            branch.half.clone(),
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

/// The least that the last column is cut to.
const MIN_HELD: usize = 16;

/// Draws the devices in three columns. Where the terminal is too narrow, the first is cut, and then
/// the last.
pub(in crate::cli) fn draw(branches: &[Branch], screen: Option<usize>) -> String {
    let lines = lines(branches);
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
    let mut held = widest(&|line| width(&line.held), HEADER[2]);
    let mut device = widest(&text_width, HEADER[0]);
    if let Some(screen) = screen {
        let left = screen.saturating_sub(nodes + held + 4);
        device = device.min(left.max(screen * 2 / 5));
        let left = screen.saturating_sub(device + nodes + 4);
        held = held.min(left.max(MIN_HELD));
    }
    let mut drawn = format!("{:device$}  {:nodes$}  {}\n", HEADER[0], HEADER[1], HEADER[2]);
    for line in &lines {
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
            let _ = write!(text, "  {HELD}{}{HELD:#}", clipped(&line.held, held));
        }
        drawn.push_str(&text);
        drawn.push('\n');
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::pictures;
    use crate::model::device::Device;
    use crate::model::device::recorded;
    use crate::model::device::tree::{Holder, tree};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn drawn(screen: Option<usize>) -> String {
        drawn_of("lab", screen)
    }

    fn drawn_of(container: &str, screen: Option<usize>) -> String {
        let devices = recorded::hub_with_two_adapters();
        let tty = recorded::with_node(&devices, "/dev/ttyUSB1").syspath.clone();
        let holder = Holder {
            container: container.into(),
            path: "/dev/board".into(),
        };
        let branches = tree(&devices, &[(tty, vec![holder])].into(), false);
        plain(&draw(&branches, screen))
    }

    #[test]
    fn the_tree_is_drawn_with_nodes_and_holders_in_columns() {
        assert_eq!(drawn(None), include_str!("../../../tests/fixtures/tree.txt"));
    }

    #[test]
    fn in_a_narrow_terminal_the_first_column_is_cut() {
        let drawn = drawn(Some(72));
        assert!(drawn.lines().all(|line| width(line) <= 72), "{drawn}");
        assert!(drawn.contains('…'), "{drawn}");
        assert!(drawn.contains("lab as /dev/board"), "{drawn}");
    }

    #[test]
    fn containers_with_long_names_are_cut_last() {
        let drawn = drawn_of("shop/board-7d9f8b6c5-x2x4v/flasher", Some(80));
        assert!(drawn.lines().all(|line| width(line) <= 80), "{drawn}");
        assert!(drawn.contains("  shop/board-7d9f8b6c5-x2…\n"), "{drawn}");
    }

    #[test]
    fn the_tree_is_pictured() {
        let mut devices = recorded::documented_host();
        // Enough to see what a tree shows.
        let is_shown = |device: &Device| {
            let path = device.syspath.as_str();
            match path.split_once("/usb1/") {
                Some((_, port)) => ["1-1", "1-6"].contains(&port.split('/').next().unwrap_or_default()),
                None => path.contains("/0000:00:14.0"),
            }
        };
        devices.retain(is_shown);
        let holder = |container: &str, path: &str| {
            vec![Holder {
                container: container.into(),
                path: path.into(),
            }]
        };
        let syspath = |node: &str| recorded::with_node(&devices, node).syspath.clone();
        let holders = [
            (syspath("/dev/ttyUSB0"), holder("zigbee", "/dev/ttyUSB0")),
            (syspath("/dev/ttyUSB1"), holder("flasher", "/dev/board")),
        ];
        let branches = tree(&devices, &holders.into(), false);
        pictures::check(
            "tree",
            "oci-hotplug tree",
            &draw(&branches, Some(pictures::COLUMNS)),
        );
    }
}
