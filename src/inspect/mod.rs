//! Looking at running PHP from the command line: `dump`, `record`, `top` and `waits`, for
//! Glasspool's own pools, a stock php-fpm's, and any other PHP process of this machine.
//!
//! - [`args`]: what can be asked for;
//! - `targets`: from what was asked to process ids;
//! - `crew`, `member`: those processes, open to be looked at;
//! - `look`: one look at one of them, in the words that all commands use;
//! - `dump`: stacks as text or JSON, alike ones as one;
//! - `record`: a wall-clock profile over some seconds;
//! - `top`: a live table;
//! - `tail`: what happens, as it happens, told by the observer of a running supervisor;
//! - `waits`: which lines of PHP wait, as the kernel tells it.
//!
//! The commands but `tail` need no running supervisor: a pool is found by the titles of its
//! processes. They only look: nothing here stops a process, writes to one, or sends it a
//! signal.
//!
//! Nothing here exits, and nothing prints but through [`Console`].

pub mod args;
mod console;
mod crew;
mod dump;
mod look;
mod member;
mod paint;
mod record;
mod tail;
mod targets;
#[cfg(test)]
mod testing;
mod top;
mod waits;

pub use args::{DumpArguments, RecordArguments, TopArguments, WaitsArguments};
pub use console::Console;
pub use dump::run_dump;
pub use record::run_record;
pub use tail::TailArguments;
pub(crate) use tail::run_tail;
pub use top::run_top;
pub use waits::run_waits;

/// Exit status: everything that was asked for was done.
const DONE: u8 = 0;
/// Exit status: something could not be read or written; standard error says what.
const INCOMPLETE: u8 = 1;
/// Exit status for arguments that make no sense together (EX_USAGE).
const USAGE: u8 = 64;
