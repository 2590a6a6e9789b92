//! How the verbs draw and format what they print.

pub(super) mod color;
pub(super) mod json;
pub(super) mod prometheus;
pub(super) mod table;
pub(super) mod time;
pub(super) mod tree;
pub(super) mod wrap;
