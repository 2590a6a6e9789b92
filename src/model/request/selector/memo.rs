//! A cache for the verdicts of one pattern.
//!
//! A verdict depends only on pattern and text, so it never becomes outdated. Must not know what a
//! pattern is.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

/// How many verdicts are kept: more than a host has nodes and links. Each takes about 10 bytes.
const MAX_VERDICTS: usize = 4096;

/// The known verdicts of one pattern. Copies share them.
#[derive(Clone, Default)]
pub(super) struct Memo(Arc<Mutex<Verdicts>>);

#[derive(Default)]
struct Verdicts {
    /// The hash has a random key, so that nobody can choose two device names with the same hash.
    hasher: RandomState,
    /// The hash of each text, with the verdict in its last bit.
    known: HashSet<u64>,
    #[cfg(test)]
    evaluations: u64,
}

impl Memo {
    /// The verdict on a text, computed if it is not known.
    pub(super) fn verdict(&self, text: &str, compute: impl FnOnce() -> bool) -> bool {
        let mut verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = verdicts.hasher.hash_one(text);
        for verdict in [false, true] {
            if verdicts.known.contains(&(hash & !1 | u64::from(verdict))) {
                return verdict;
            }
        }
        let verdict = compute();
        #[cfg(test)]
        {
            verdicts.evaluations += 1;
        }
        if verdicts.known.len() >= MAX_VERDICTS {
            verdicts.known.clear();
        }
        verdicts.known.insert(hash & !1 | u64::from(verdict));
        verdict
    }

    /// How many verdicts were computed.
    #[cfg(test)]
    pub(super) fn evaluations(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).evaluations
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}
