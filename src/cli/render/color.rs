//! The colours of states. `anstream` removes them where the output is not a terminal, or NO_COLOR
//! is set.

use anstyle::{AnsiColor, Style};

/// All is well.
pub(in crate::cli) const GOOD: Style = AnsiColor::Green.on_default();

/// Worth a look, or waiting for something.
pub(in crate::cli) const CAUTION: Style = AnsiColor::Yellow.on_default();

/// Something is wrong.
pub(in crate::cli) const BAD: Style = AnsiColor::Red.on_default();

/// No state.
pub(in crate::cli) const PLAIN: Style = Style::new();
