//! What PHP writes to its log, for the observer: only that which does not pass the pipe that
//! the supervisor reads, so that nothing is told twice.
//!
//! It goes into the ring as the requests do, with their ids and without a system call. So
//! that a script which complains all the time costs no request its record, there is a
//! bound for each request and each second; what is left out is counted.

use glasspool_abi::record::{self, EndScalars, Text};

use super::Recorder;
use crate::worker::clock;

/// Lines of one request.
const PER_REQUEST: u32 = 8;
/// Lines of this worker per second: 100 of the longest are 250 KiB.
const PER_SECOND: u32 = 100;
const SECOND_NS: u64 = 1_000_000_000;

/// What is told, and how much of it was.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether anybody wants to know.
    wanted: bool,
    /// Whether the supervisor reads standard error.
    caught: bool,
    /// The last request that has ended: without one under way nothing is told.
    pub(super) ended: u64,
    /// The last request that told something, and how much.
    of_request: (u64, u32),
    /// Start of the present second, and lines told in it.
    second: (u64, u32),
    dropped: u64,
}

/// Where PHP sends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// To us, hence to standard error.
    Server,
    /// Where `error_log` says.
    Named(&'a [u8]),
}

impl Target<'_> {
    fn is_standard_error(self) -> bool {
        match self {
            Target::Server => true,
            Target::Named(name) => {
                matches!(name, b"/dev/stderr" | b"/proc/self/fd/2" | b"/dev/fd/2")
            }
        }
    }
}

impl Recorder {
    /// Sets whether lines are told, and whether the supervisor reads standard error.
    pub(crate) fn tell_lines(&mut self, wanted: bool, caught: bool) {
        self.lines.wanted = wanted;
        self.lines.caught = caught;
    }

    /// Whether a line for there is to be told.
    pub(crate) fn wants_line(&self, target: Target<'_>) -> bool {
        let lines = &self.lines;
        lines.wanted
            && lines.ended < self.number
            && !(lines.caught && target.is_standard_error())
            && !self.is_copy()
    }

    /// PHP logs this in the request under way, the beginning of so many bytes; `level` is its
    /// number of the error's level, or 0.
    pub(crate) fn line(&mut self, level: i32, text: &[u8], whole: usize) {
        let now = clock::monotonic_ns();
        if !self.lines.pass(self.number, now) {
            self.slot.count_dropped_line();
            return;
        }
        let scalars = EndScalars {
            end_mono_ns: now,
            flags: record::LINE,
            bytes_in: std::mem::take(&mut self.lines.dropped),
            bytes_out: whole as u64,
            error_level: u32::try_from(level).unwrap_or(0),
            ..EndScalars::default()
        };
        self.end.end(&scalars, self.begin.bytes());
        self.end.text(Text::Line, text);
        if self.slot.publish_end(self.lines.ended, self.end.bytes()) {
            self.ring_bell();
        }
    }
}

impl Lines {
    fn pass(&mut self, number: u64, now: u64) -> bool {
        if self.of_request.0 != number {
            self.of_request = (number, 0);
        }
        if now.saturating_sub(self.second.0) >= SECOND_NS {
            self.second = (now, 0);
        }
        let passes = self.of_request.1 < PER_REQUEST && self.second.1 < PER_SECOND;
        if passes {
            self.of_request.1 += 1;
            self.second.1 += 1;
        } else {
            self.dropped += 1;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_a_second_have_their_bounds() {
        let mut lines = Lines::default();
        let passed = (0..20).filter(|_| lines.pass(1, 5)).count();
        assert_eq!((passed, lines.dropped), (8, 12));
        let passed = (2..100)
            .flat_map(|number| [number; 4])
            .filter(|number| lines.pass(*number, 6));
        assert_eq!(passed.count(), 92);
        assert!(lines.pass(200, 5 + SECOND_NS));
    }

    #[test]
    fn what_the_pipe_brings_is_not_told_again() {
        for (target, is_there) in [
            (Target::Server, true),
            (Target::Named(b"/dev/stderr"), true),
            (Target::Named(b"/var/log/php.log"), false),
            (Target::Named(b"syslog"), false),
        ] {
            assert_eq!(target.is_standard_error(), is_there, "{target:?}");
        }
    }
}
