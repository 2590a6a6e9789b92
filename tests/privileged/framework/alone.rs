//! Stories run side by side, and share the kernel: its device numbers, and what it counts. A story
//! that needs them for itself says so. Must not know what they are.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static STORIES: RwLock<()> = RwLock::new(());

thread_local! {
    static THIS: RefCell<Place> = const { RefCell::new(Place::NoStory) };
}

/// How the story of this thread stands to the others.
enum Place {
    NoStory,
    Beside(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
}

/// A story begins on this thread; it may have others beside it until the thread ends, or until it
/// asks to be alone.
pub fn begin() {
    let beside = STORIES.read().unwrap_or_else(PoisonError::into_inner);
    THIS.set(Place::Beside(beside));
}

/// Waits until no other story runs, and keeps others from beginning until this thread ends.
pub fn alone() {
    THIS.with_borrow_mut(|place| match place {
        Place::NoStory => panic!("only the story's own thread can ask to be alone"),
        Place::Alone(_) => {}
        Place::Beside(_) => {
            // Two that wait for each other would wait for ever.
            *place = Place::NoStory;
            *place = Place::Alone(STORIES.write().unwrap_or_else(PoisonError::into_inner));
        }
    });
}
