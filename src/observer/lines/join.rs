//! Puts together the lines of one message: a stack trace is one log record, not twenty.
//! Pure.
//!
//! A worker writes a message at once, so its lines come together; one whose end does not
//! come is over after a moment.

use std::collections::BTreeMap;

use glasspool_abi::WorkerId;
use glasspool_abi::control::{OutputStream, WorkerLine};

use super::words::{Follow, Words, begins, ends_message, is_of_trace};

/// A message is over when nothing has come for so long.
const PAUSE_NS: u64 = 20_000_000;
/// Longest message, bytes; what is longer is told in parts.
const MOST_BYTES: usize = 16 * 1024;
/// Messages that are held at most; more workers in trouble at once tell theirs in parts.
const MOST_HELD: usize = 256;

/// Messages whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    held: BTreeMap<(WorkerId, u8), Held>,
}

#[derive(Debug)]
struct Held {
    line: WorkerLine,
    follow: Follow,
    since: u64,
}

impl Joiner {
    /// One more line, at `now`; hands on the messages that are complete.
    pub(super) fn push(&mut self, mut line: WorkerLine, now: u64, each: &mut impl FnMut(WorkerLine)) {
        let key = key(line.worker, line.stream);
        let text = String::from_utf8_lossy(&line.text).into_owned();
        if let Some(held) = self.held.get_mut(&key) {
            let fits = held.line.text.len() + line.text.len() < MOST_BYTES;
            let is_more = held.line.ended == line.ended && line.dropped == 0 && !begins(&text);
            let belongs = match held.follow {
                Follow::None => false,
                Follow::Trace => is_of_trace(&text),
                Follow::All => true,
            };
            if fits && is_more && belongs {
                held.line.text.push(b'\n');
                held.line.text.append(&mut line.text);
                held.line.cut += line.cut;
                held.since = now;
                if held.follow == Follow::All && ends_message(&text) {
                    held.follow = Follow::Trace;
                }
                return;
            }
            self.held
                .remove(&key)
                .map(|held| held.line)
                .into_iter()
                .for_each(&mut *each);
        }
        let follow = Words::of(&text, line.stream).follow;
        if follow == Follow::None || self.held.len() >= MOST_HELD {
            each(line);
        } else {
            let since = now;
            self.held.insert(key, Held { line, follow, since });
        }
    }

    /// Hands on messages of which nothing has come for a moment.
    pub(super) fn flush(&mut self, now: u64, each: impl FnMut(WorkerLine)) {
        let over = |held: &&Held| now.saturating_sub(held.since) >= PAUSE_NS;
        let keys: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| over(held))
            .map(|(key, _)| *key)
            .collect();
        let over = keys.into_iter().filter_map(|key| self.held.remove(&key));
        over.map(|held| held.line).for_each(each);
    }

    /// Hands on what a worker has said last.
    pub(super) fn end(&mut self, worker: WorkerId, each: impl FnMut(WorkerLine)) {
        let streams = [OutputStream::Stdout, OutputStream::Stderr];
        let held = streams.map(|stream| self.held.remove(&key(worker, stream)));
        held.into_iter().flatten().map(|held| held.line).for_each(each);
    }
}

fn key(worker: WorkerId, stream: OutputStream) -> (WorkerId, u8) {
    (worker, u8::from(stream == OutputStream::Stderr))
}

#[cfg(test)]
mod tests {
    use glasspool_abi::{Pid, PoolId};

    use super::*;

    fn line(worker: u64, ended: u64, text: &str) -> WorkerLine {
        WorkerLine {
            worker: WorkerId(worker),
            pool: PoolId(0),
            pid: Pid(4711),
            stream: OutputStream::Stderr,
            mono_ns: 1,
            ended,
            text: text.as_bytes().to_vec(),
            cut: 0,
            dropped: 0,
        }
    }

    /// What comes of these lines of one worker and its requests; all flushed at the end.
    fn joined(lines: &[(u64, &str)]) -> Vec<String> {
        let (mut joiner, mut told) = (Joiner::default(), Vec::new());
        let text = |line: WorkerLine| String::from_utf8(line.text).expect("text");
        for (ended, text_of) in lines {
            joiner.push(line(1, *ended, text_of), 5, &mut |line| told.push(text(line)));
        }
        joiner.flush(5 + PAUSE_NS, |line| told.push(text(line)));
        assert!(joiner.held.is_empty());
        told
    }

    #[test]
    fn an_uncaught_exception_is_one_message_and_so_is_each_after_it() {
        let told = joined(&[
            (
                0,
                "NOTICE: PHP message: PHP Fatal error:  Uncaught Exception: first",
            ),
            (0, "second line in /a.php:3"),
            (0, "Stack trace:"),
            (0, "#0 /a.php(9): f()"),
            (0, "#1 {main}"),
            (0, "  thrown in /a.php on line 3"),
            (0, "NOTICE: PHP message: PHP Warning:  x in /a.php on line 4"),
            (0, "a script's own line"),
        ]);
        assert_eq!(told.len(), 3);
        assert!(
            told[0].ends_with("{main}\n  thrown in /a.php on line 3"),
            "{}",
            told[0]
        );
        assert_eq!(told[0].lines().count(), 6);
        assert!(told[1].ends_with("on line 4"));
        assert_eq!(told[2], "a script's own line");
    }

    #[test]
    fn the_next_request_has_messages_of_its_own() {
        let unfinished = "NOTICE: PHP message: PHP Fatal error:  Uncaught E: x";
        assert_eq!(joined(&[(0, unfinished), (1, "#0 {main}")]).len(), 2);
        assert_eq!(joined(&[(0, unfinished), (0, "NOTICE: PHP message: y")]).len(), 2);
        assert_eq!(joined(&[(0, "plain"), (0, "#0 {main}")]).len(), 2);
    }

    #[test]
    fn a_trace_of_xdebug_belongs_to_its_warning() {
        let told = joined(&[
            (0, "NOTICE: PHP message: PHP Warning:  x in /a.php on line 4"),
            (0, "PHP Stack trace:"),
            (0, "PHP   1. {main}() /a.php:0"),
        ]);
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let (mut joiner, mut told) = (Joiner::default(), 0);
        let endless = "NOTICE: PHP message: PHP Fatal error:  Uncaught E: ".to_owned() + &"x".repeat(1000);
        for worker in 0..2000 {
            joiner.push(line(worker, 0, &endless), 5, &mut |_| told += 1);
        }
        assert_eq!((joiner.held.len(), told), (MOST_HELD, 2000 - MOST_HELD));
        for _ in 0..100 {
            joiner.push(line(1, 0, &"y".repeat(1000)), 5, &mut |line| {
                assert!(line.text.len() < 2 * MOST_BYTES)
            });
        }
        let bytes: usize = joiner.held.values().map(|held| held.line.text.len()).sum();
        assert!(bytes <= MOST_HELD * MOST_BYTES);
    }
}
