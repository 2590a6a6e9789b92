//! Tests run in parallel and share the kernel: its device numbers and its counters. A test that
//! needs these for itself calls [`alone`]. Does not know what they are.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static STORIES: RwLock<()> = RwLock::new(());

thread_local! {
    static THIS: RefCell<Place> = const { RefCell::new(Place::NoTest) };
}

/// How the test of this thread relates to the other tests.
enum Place {
    NoTest,
    Beside(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

/// Begins a test on this thread. Other tests may run until the thread ends, or until it calls
/// [`alone`].
pub fn begin() {
    let beside = STORIES.read().unwrap_or_else(PoisonError::into_inner);
    THIS.set(Place::Beside(beside));
}

/// Whether this test has called [`alone`].
pub fn is_alone() -> bool {
    THIS.with_borrow(|place| matches!(place, Place::Alone(_)))
}

/// Call this before anything is plugged in: while this waits, other tests that are alone may need a
/// number that this test has.
///
/// Waits until no other test runs, and prevents others from beginning until this thread ends.
pub fn alone() {
    THIS.with_borrow_mut(|place| match place {
        Place::NoTest => panic!("only the test's own thread can call alone"),
        Place::Alone(_) => {}
        Place::Beside(_) => {
            // Two tests that waited for each other would wait for ever.
            *place = Place::NoTest;
            *place = Place::Alone(STORIES.write().unwrap_or_else(PoisonError::into_inner));
        }
    });
}
