//! What is said of requests that hang: by `glasspool dump` of any php-fpm, and by our own
//! slow log and events. The scripts hang in real things, so what must be said is known.

mod crowd;
mod rungs;
mod sink;
pub(crate) mod stand;
mod timed_receive;
mod waits;

use crate::harness::skipped;

/// Whether this is root; else that is noted.
fn is_root(why: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(&format!("looks: {why} needs root"));
    }
    root
}
