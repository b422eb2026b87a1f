//! Source lines of code, from debug information, with addr2line.
//!
//! Read when the first line of a file is asked for, and only by a reader that wants lines:
//! the debug information of PHP takes some tens of MiB and as many milliseconds. A reader
//! stays within [`Budget`]; what does not fit has no lines.

use std::fmt;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::debug_file::{self, Bytes};
use super::maps::printable;

/// Debug information of one file, unpacked.
const MAX_FILE: u64 = 128 * 1024 * 1024;
/// Debug information of all files of one reader.
const MAX_ALL: u64 = 256 * 1024 * 1024;
/// Longest path that is shown, in characters.
const MAX_PATH: usize = 1_024;

/// Where code was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file, as its compiler named it. Bounded, without control characters.
    pub file: String,
    /// The line.
    pub line: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How much more debug information a reader may keep.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Budget {
        Budget(AtomicU64::new(MAX_ALL))
    }
}

/// The lines of one object file.
pub(super) struct Lines(Mutex<State>);

enum State {
    /// The file that has them.
    Unread(File),
    Read(Box<addr2line::Context<Bytes>>),
    /// They cannot be read.
    None,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// Of a file with debug information. Reads nothing yet.
    pub(super) fn of(file: File) -> Lines {
        Lines(Mutex::new(State::Unread(file)))
    }

    /// Where the code at an address of the file was written.
    pub(super) fn at(&self, address: u64, budget: &Budget) -> Option<Source> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Unread(file) = &*state {
            let context = read(file, budget);
            *state = context.map_or(State::None, |context| State::Read(Box::new(context)));
        }
        let State::Read(context) = &*state else {
            return None;
        };
        source(context, address)
    }
}

/// What debug information says of an address.
pub(super) fn source(context: &addr2line::Context<Bytes>, address: u64) -> Option<Source> {
    let location = context.find_location(address).ok()??;
    let file = location.file?;
    Some(Source {
        file: printable(&file.chars().take(MAX_PATH).collect::<String>()),
        line: location.line?,
    })
}

fn read(file: &File, budget: &Budget) -> Option<addr2line::Context<Bytes>> {
    let left = budget.0.load(Ordering::Relaxed);
    let dwarf = debug_file::load(file, left.min(MAX_FILE))?;
    let used = debug_file::size(&dwarf);
    budget.0.store(left.saturating_sub(used), Ordering::Relaxed);
    addr2line::Context::from_dwarf(dwarf).ok()
}
