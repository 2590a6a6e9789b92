//! The exit codes of all our programs.

/// Done, or none of our business.
pub const DONE: u8 = 0;
/// It failed.
pub const FAILED: u8 = 1;
/// Wrong usage, or a malformed request.
pub const USAGE: u8 = 2;
/// Refused by the policy.
pub const REFUSED: u8 = 3;
