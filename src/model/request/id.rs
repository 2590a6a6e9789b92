//! The identity of a request inside the program. Its text appears only in messages, files and
//! responses.

/// Identifies a request of one container while its watcher runs. Entries of different origin with
/// the same request share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(u32);

impl RequestId {
    /// The id of a container's first request.
    pub const FIRST: Self = Self(0);

    /// The id after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
