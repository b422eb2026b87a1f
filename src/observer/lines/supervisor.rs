//! What the supervisor logs, for whoever reads along and as log records.

use std::time::{Duration, UNIX_EPOCH};

use glasspool_abi::control::{LoggedLine, Severity};
use glasspool_otel::line::{Line, Weight};

use crate::logs::{child_of, pool_of};
use crate::observer::state::Observer;

impl Observer {
    /// The supervisor has logged a line.
    pub(in crate::observer) fn on_logged(&mut self, line: LoggedLine) {
        self.report.logged(&told(line));
    }
}

/// The line with what it says of pool and worker taken out, where its words do.
pub(super) fn told(line: LoggedLine) -> Line {
    let text = String::from_utf8_lossy(&line.text);
    let (pool, message) = pool_of(&text).unwrap_or(("", &text));
    Line {
        time: UNIX_EPOCH + Duration::from_nanos(line.unix_ns),
        pool: pool.to_owned(),
        pid: child_of(message).map_or(0, |(pid, _)| pid),
        stream: None,
        weight: match line.severity {
            Severity::Debug => Weight::Debug,
            Severity::Notice => Weight::Info,
            Severity::Warning => Weight::Warn,
            Severity::Error | Severity::Alert => Weight::Error,
        },
        text: message.to_owned(),
        owner: None,
        cut: line.cut,
        dropped: line.dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whose_it_is_as_far_as_its_words_do() {
        let line = |text: &[u8]| LoggedLine {
            unix_ns: 5,
            severity: Severity::Warning,
            text: text.to_vec(),
            cut: 1,
            dropped: 2,
        };
        for (text, pool, pid, message) in [
            (
                &b"[pool www] child 12 exited on signal 9 (SIGKILL)"[..],
                "www",
                12,
                "child 12 exited on signal 9 (SIGKILL)",
            ),
            (b"[pool www] seems busy", "www", 0, "seems busy"),
            (b"fpm is running, pid 7", "", 0, "fpm is running, pid 7"),
            (b"child 99999999999 \xff", "", 0, "child 99999999999 \u{fffd}"),
            (b"[pool ", "", 0, "[pool "),
        ] {
            let told = told(line(text));
            assert_eq!(
                (told.pool.as_str(), told.pid, told.text.as_str()),
                (pool, pid, message)
            );
            assert_eq!((told.weight, told.cut, told.dropped), (Weight::Warn, 1, 2));
        }
    }
}
