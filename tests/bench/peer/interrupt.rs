//! An end of the comparison that removes everything. The script holds the writing end of standard
//! input; when it is interrupted, or even killed, that input ends. The interruption is an error
//! that each measurement returns, so that containers, devices and processes are removed by `Drop`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a pause checks for an interruption.
const STEP: Duration = Duration::from_millis(50);

/// The script has been interrupted.
pub struct Interrupted;

/// Begins to wait for the end of standard input.
pub fn watch() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
}

/// Fails after an interruption.
pub fn check() -> Result<(), Interrupted> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Interrupted);
    }
    Ok(())
}

/// Sleeps, unless an interruption comes first.
pub fn pause(duration: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        thread::sleep(rest.min(STEP));
    }
}
