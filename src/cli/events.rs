//! `oci-hotplug events`: the events that watchers and hooks logged, read from the journal or from
//! the log file.

mod journal;
mod log_file;
mod logged_event;
mod repeated;
mod timestamp;

use std::io::Write;
use std::time::SystemTime;

use anstyle::Style;
use anyhow::{Result, bail};
use clap::Args;

use self::logged_event::LoggedEvent;
use self::repeated::{Repeated, grouped};
use self::timestamp::Timestamp;
use super::enrolled::{Enrolled, check_access};
use super::render::color::{BAD, CAUTION, GOOD, PLAIN};
use super::render::json::write_json_line;
use super::render::table::{screen_width, width};
use super::render::wrap::wrapped;
use crate::host::log;
use crate::host::state::refused_starts;
use crate::host::state::registry::Registry;
use crate::model::oci::engine::short_id;
use crate::model::quoting::visible;

/// The options.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print events as they happen, until interrupted; earlier events only with --since.
    #[arg(long, short)]
    follow: bool,
    /// Only events after this time: an age (90s, 15m, 2h, 7d), or a date and time in UTC
    /// (2026-11-21, "2026-11-21 14:30", 2026-11-21T14:30:00Z).
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Timestamp::since(text, SystemTime::now()))]
    since: Option<Timestamp>,
    /// Only events of this container: its id, the beginning of it, its name, or the name of its
    /// pod.
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

/// Prints the events.
pub(super) fn run(registry: &Registry, options: &Options, as_json: bool) -> Result<()> {
    check_access(registry)?;
    let filter = options
        .container
        .as_deref()
        .map(|text| ContainerFilter::new(text, registry));
    let mut has_shown = false;
    let mut past = Vec::new();
    let mut show = |event: LoggedEvent| {
        let matches = filter
            .as_ref()
            .is_none_or(|filter| filter.matches(&event.container));
        let is_new = options.since.is_none_or(|since| event.time >= since);
        if matches && is_new {
            has_shown = true;
            match (as_json, options.follow) {
                (true, _) => write_json_line(&mut std::io::stdout().lock(), &event)?,
                (false, true) => print(&Repeated::once(event))?,
                (false, false) => past.push(event),
            }
        }
        Ok(())
    };
    if log::has_journal() {
        journal::read(options.since, options.follow, &mut show)?;
    } else {
        let with_past = !options.follow || options.since.is_some();
        log_file::read(registry.root(), with_past, options.follow, &mut show)?;
    }
    grouped(past).iter().try_for_each(print)?;
    match (&filter, &options.container) {
        (Some(filter), Some(text)) if !has_shown && !filter.is_known => {
            bail!(
                "no container {text:?} is known here, and the log has no event of it (`oci-hotplug list` shows those that are known; name a container that has ended by its id)"
            )
        }
        _ => Ok(()),
    }
}

/// The containers whose events are printed.
struct ContainerFilter {
    /// Their ids; the beginning of an id where no container is known.
    ids: Vec<String>,
    /// Whether the state directory has a record of one of them.
    is_known: bool,
}

impl ContainerFilter {
    fn new(text: &str, registry: &Registry) -> Self {
        let enrolled = Enrolled::search(registry, text).ok().flatten();
        let refused = refused_starts::read(registry.root());
        let refused = refused.into_iter().filter(|refused| refused.matches(text));
        let mut ids: Vec<String> = enrolled
            .map(|enrolled| enrolled.id.to_string())
            .into_iter()
            .collect();
        ids.extend(refused.map(|refused| refused.id));
        let is_known = !ids.is_empty();
        if !is_known {
            // The name of a container that has ended is not recorded.
            ids.push(text.to_owned());
        }
        Self { ids, is_known }
    }

    fn matches(&self, container: &str) -> bool {
        self.ids.iter().any(|id| match self.is_known {
            true => container == id,
            false => container.starts_with(id.as_str()),
        })
    }
}

fn print(repeated: &Repeated) -> Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", line(repeated, screen_width()))?;
    out.flush()?;
    Ok(())
}

/// The event in columns. On a terminal of `screen` columns a long message goes on below the column
/// of containers.
fn line(repeated: &Repeated, screen: Option<usize>) -> String {
    let event = &repeated.event;
    // The messages "attached …" and "detached …" begin with the word of the column before.
    let message = event.message.strip_prefix(&event.event).unwrap_or(&event.message);
    let again = match repeated.count {
        1 => String::new(),
        count => format!(" ({count} times since {})", repeated.first),
    };
    let style = style(&event.event);
    let time = event.time.to_string();
    let container = visible(short_id(&event.container));
    let word = format!("{:8}", visible(&event.event));
    let before_message: usize = [&time, &*container, &word]
        .map(|column| width(column) + 2)
        .iter()
        .sum();
    let message = wrapped(
        &format!("{}{again}", visible(message.trim())),
        before_message,
        width(&time) + 2,
        screen,
    );
    format!("{time}  {container}  {style}{word}{style:#}  {message}")
}

fn style(event: &str) -> Style {
    match event {
        log::event::ATTACHED => GOOD,
        log::event::DENIED | log::event::FAILED | log::event::REFUSED_START => BAD,
        log::event::WAITING | log::event::SHARED => CAUTION,
        _ => PLAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_goes_on_below_the_column_of_containers_on_a_terminal() {
        let refused = Repeated::once(LoggedEvent {
            time: Timestamp::from_micros(1_795_763_618_000_000).unwrap(),
            container: "lab".into(),
            event: "shared".into(),
            device: None,
            node: None,
            message:
                "/dev/sda is in another container as well (container robot); add `;exclusive` to the request"
                    .into(),
        });
        let first = "2026-11-27T07:13:38Z  lab  shared    /dev/sda is in another container as well";
        let rest = "(container robot); add `;exclusive` to the request";
        assert_eq!(
            anstream::adapter::strip_str(&line(&refused, Some(80))).to_string(),
            format!("{first}\n                      {rest}")
        );
        assert_eq!(
            anstream::adapter::strip_str(&line(&refused, None)).to_string(),
            format!("{first} {rest}")
        );
    }

    #[test]
    fn a_known_container_is_not_another_container_whose_id_begins_with_its_id() {
        let filter = |is_known| ContainerFilter {
            ids: vec!["web".into()],
            is_known,
        };
        assert!(filter(true).matches("web") && !filter(true).matches("web2"));
        assert!(
            filter(false).matches("web2"),
            "the beginning of the id of a container that has ended"
        );
    }
}
