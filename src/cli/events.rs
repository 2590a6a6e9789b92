//! `oci-hotplug events`: what watchers have logged of their containers' devices, read back from the journal or from the
//! log file.

mod journal;
mod log_file;
mod moment;

use std::io::Write;
use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use self::moment::Moment;
use super::enrolled::{Enrolled, check_access};
use super::render::table::print_line;
use crate::host::log;
use crate::host::state::refused_starts;
use crate::host::state::registry::Registry;
use crate::model::oci::engine::short_id;

/// Which events.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Go on with what happens from now on, until interrupted; what was before comes only with --since.
    #[arg(long, short)]
    follow: bool,
    /// Only what happened after this: so long ago (90s, 15m, 2h, 7d), or a date and time in UTC
    /// (2026-11-21, "2026-11-21 14:30", 2026-11-21T14:30:00Z).
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Moment::since(text, SystemTime::now()))]
    since: Option<Moment>,
    /// Only of this container: its id, the beginning of it, or its name.
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

/// One thing that happened to a container's devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Happening {
    time: Moment,
    container: String,
    event: String,
    /// Its path in sysfs; `None` where it is about all devices.
    device: Option<String>,
    /// Its path in the container.
    node: Option<String>,
    message: String,
}

/// Where events are shown, and whether somebody still reads.
type Show<'a> = &'a mut dyn FnMut(Happening) -> Result<()>;

/// Prints the events.
pub(super) fn run(registry: &Registry, options: &Options, as_json: bool) -> Result<()> {
    check_access(registry)?;
    let meant = options.container.as_deref().map(|text| Meant::by(text, registry));
    let mut has_shown = false;
    let mut show = |happening: Happening| {
        let is_meant = meant.as_ref().is_none_or(|meant| meant.has(&happening.container));
        let is_new = options.since.is_none_or(|since| happening.time >= since);
        if is_meant && is_new {
            has_shown = true;
            print(&happening, as_json)?;
        }
        Ok(())
    };
    if log::journal_is_there() {
        journal::read(options.since, options.follow, &mut show)?;
    } else {
        let with_past = !options.follow || options.since.is_some();
        log_file::read(registry.root(), with_past, options.follow, &mut show)?;
    }
    match (&meant, &options.container) {
        (Some(meant), Some(text)) if !has_shown && !meant.is_known => {
            bail!(
                "no container {text:?} is known here, and the log has no event of it (a container that has ended is known by its id)"
            )
        }
        _ => Ok(()),
    }
}

/// The containers that a word on the command line names.
struct Meant {
    /// Their ids; the beginning of one where none is known.
    ids: Vec<String>,
    /// Whether the state directory has one of them.
    is_known: bool,
}

impl Meant {
    fn by(text: &str, registry: &Registry) -> Self {
        let enrolled = Enrolled::search(registry, text).ok().flatten();
        let refused = refused_starts::read(registry.root());
        let refused = refused.into_iter().filter(|refused| refused.is_called(text));
        let mut ids: Vec<String> = enrolled
            .map(|enrolled| enrolled.id.to_string())
            .into_iter()
            .collect();
        ids.extend(refused.map(|refused| refused.id));
        let is_known = !ids.is_empty();
        if !is_known {
            // One that has ended is known by its id alone.
            ids.push(text.to_owned());
        }
        Self { ids, is_known }
    }

    fn has(&self, container: &str) -> bool {
        self.ids.iter().any(|id| match self.is_known {
            true => container == id,
            false => container.starts_with(id.as_str()),
        })
    }
}

fn print(happening: &Happening, as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", serde_json::to_string(happening)?)?;
    } else {
        let id = &happening.container;
        let short = short_id(id);
        // The two commonest messages begin with the word that stands before them.
        let message = happening.message.strip_prefix(&happening.event);
        print_line!(
            out,
            "{}  {}  {:8}  {}",
            happening.time,
            short,
            happening.event,
            message.unwrap_or(&happening.message).trim()
        )?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_is_known_is_not_another_one_whose_id_begins_alike() {
        let meant = |is_known| Meant {
            ids: vec!["web".into()],
            is_known,
        };
        assert!(meant(true).has("web") && !meant(true).has("web2"));
        assert!(
            meant(false).has("web2"),
            "the beginning of the id of a container that has ended"
        );
    }
}
