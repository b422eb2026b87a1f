//! What workers say, on its way to the observer: beside the error log, whose lines stay
//! php-fpm's whatever happens here.
//!
//! A line is sent whole, or cut once at `log_limit`; what is beyond the bounds of a worker or
//! of the way to the observer is counted, and the count goes with the next line. Nothing
//! waits here.

use glasspool_abi::control::{MAX_LINE_BYTES, OutputStream, ToObserver, WorkerLine};
use glasspool_abi::{Pid, PoolId, WorkerId};

use super::cut::MARKER;
use super::wire::{MOST_WAITING, Wire};
use crate::supervisor::monotonic_ns;

/// Lines of one worker per second.
const LINES_PER_SECOND: u32 = 500;
const SECOND_NS: u64 = 1_000_000_000;
/// Least text of a line, however small `log_limit` is.
const LEAST_LINE_BYTES: usize = 256;

/// Tells the observer what one worker writes.
#[derive(Debug)]
pub(in crate::supervisor) struct Teller {
    wire: Wire,
    worker: WorkerId,
    pool: PoolId,
    pid: Pid,
    limit: usize,
    stdout: Part,
    stderr: Part,
    /// Bytes of a marker that the last bytes of standard error are.
    matched: usize,
    /// Markers seen.
    ended: u64,
    dropped: u64,
    /// Start of the present second, and lines sent in it.
    second: (u64, u32),
    /// When a count of dropped lines was last sent without a line.
    told: u64,
}

/// The start of a line whose end has not come yet.
#[derive(Debug, Default)]
struct Part {
    text: Vec<u8>,
    cut: u64,
}

impl Teller {
    /// For one worker; lines are cut at `limit` bytes.
    pub(in crate::supervisor) fn new(
        wire: &Wire,
        (worker, pool, pid): (WorkerId, PoolId, Pid),
        limit: usize,
    ) -> Teller {
        Teller {
            wire: wire.clone(),
            worker,
            pool,
            pid,
            limit: limit.clamp(LEAST_LINE_BYTES, MAX_LINE_BYTES),
            stdout: Part::default(),
            stderr: Part::default(),
            matched: 0,
            ended: 0,
            dropped: 0,
            second: (0, 0),
            told: 0,
        }
    }

    /// Marks seen, and bytes of another that the last bytes of standard error are.
    pub(super) fn marks(&self) -> (u64, usize) {
        (self.ended, self.matched)
    }

    /// More of a stream.
    pub(super) fn take(&mut self, stream: OutputStream, bytes: &[u8]) {
        let now = monotonic_ns();
        let wanted = self.wire.is_wanted();
        let is_marked = stream == OutputStream::Stderr;
        let mut rest = bytes;
        while let Some((first, tail)) = rest.split_first() {
            if is_marked && self.matched > 0 {
                if *first == MARKER[self.matched] {
                    rest = tail;
                    self.matched += 1;
                    if self.matched == MARKER.len() {
                        self.matched = 0;
                        self.end_request(now);
                    }
                } else {
                    let text = std::mem::take(&mut self.matched);
                    self.add(stream, &MARKER[..text], wanted);
                }
                continue;
            }
            let special = |byte: &u8| *byte == b'\n' || (is_marked && *byte == MARKER[0]);
            let at = rest.iter().position(special);
            self.add(stream, &rest[..at.unwrap_or(rest.len())], wanted);
            let Some(at) = at else { return };
            if rest[at] == b'\n' {
                self.end_line(stream, now);
            } else {
                self.matched = 1;
            }
            rest = &rest[at + 1..];
        }
    }

    /// Nothing more will come to end the lines that are held, nor to tell what was dropped.
    pub(super) fn end(&mut self) {
        let now = monotonic_ns();
        let text = std::mem::take(&mut self.matched);
        self.add(OutputStream::Stderr, &MARKER[..text], self.wire.is_wanted());
        self.end_line(OutputStream::Stdout, now);
        self.end_line(OutputStream::Stderr, now);
        self.tell_dropped(now);
    }

    fn end_request(&mut self, now: u64) {
        self.end_line(OutputStream::Stdout, now);
        self.end_line(OutputStream::Stderr, now);
        // Not each time: a worker can end a thousand requests a second.
        if now.saturating_sub(self.told) >= SECOND_NS {
            self.tell_dropped(now);
        }
        self.ended = self.ended.saturating_add(1);
    }

    fn add(&mut self, stream: OutputStream, text: &[u8], wanted: bool) {
        if !wanted {
            return;
        }
        let limit = self.limit;
        let part = self.part(stream);
        let (kept, cut) = text.split_at(text.len().min(limit.saturating_sub(part.text.len())));
        part.text.extend(kept);
        part.cut += cut.len() as u64;
    }

    fn end_line(&mut self, stream: OutputStream, now: u64) {
        let Part { text, cut } = std::mem::take(self.part(stream));
        if text.is_empty() || !self.wire.is_wanted() {
            return;
        }
        if now.saturating_sub(self.second.0) >= SECOND_NS {
            self.second = (now, 0);
        }
        if self.second.1 >= LINES_PER_SECOND {
            self.dropped += 1;
            return;
        }
        self.second.1 += 1;
        self.send(stream, now, text, cut);
    }

    fn tell_dropped(&mut self, now: u64) {
        if self.dropped > 0 {
            self.told = now;
            self.send(OutputStream::Stderr, now, Vec::new(), 0);
        }
    }

    fn send(&mut self, stream: OutputStream, mono_ns: u64, text: Vec<u8>, cut: u64) {
        let lines = u64::from(!text.is_empty());
        let line = WorkerLine {
            worker: self.worker,
            pool: self.pool,
            pid: self.pid,
            stream,
            mono_ns,
            ended: self.ended,
            text,
            cut,
            dropped: self.dropped,
        };
        self.dropped = if self.wire.send(ToObserver::Line(Box::new(line)), MOST_WAITING) {
            0
        } else {
            self.dropped.saturating_add(lines)
        };
    }

    fn part(&mut self, stream: OutputStream) -> &mut Part {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use glasspool_abi::control::Channel;
    use tokio::sync::mpsc;

    use super::*;
    use crate::supervisor::link::{Delivery, Link};

    /// What a teller sends while it is given this.
    fn told(limit: usize, give: impl FnOnce(&mut Teller)) -> Vec<WorkerLine> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (ours, theirs) = Channel::pair().expect("a pair");
            let (events, _inbox) = mpsc::channel::<Delivery<u32>>(4);
            let link = Link::<ToObserver>::start(ours, 4096, events, |delivery| delivery).expect("starts");
            let wire = Wire::default();
            wire.connect(link.downgrade());
            let mut teller = Teller::new(&wire, (WorkerId(7), PoolId(1), Pid(4711)), limit);
            give(&mut teller);
            drop(link);
            let mut lines = Vec::new();
            theirs.set_nonblocking().expect("sets");
            loop {
                match theirs.receive::<ToObserver>() {
                    Ok((ToObserver::Line(line), _)) => lines.push(*line),
                    Ok((other, _)) => panic!("{other:?}"),
                    Err(glasspool_abi::control::ChannelError::WouldBlock) => tokio::task::yield_now().await,
                    Err(_) => return lines,
                }
            }
        })
    }

    fn texts(lines: &[WorkerLine]) -> Vec<(&str, u64, u64)> {
        let text = |line: &'_ WorkerLine| std::str::from_utf8(&line.text).expect("text").to_owned();
        lines
            .iter()
            .map(|line| (&*text(line).leak(), line.ended, line.cut))
            .collect()
    }

    #[test]
    fn lines_are_whole_however_they_are_read_and_know_their_request() {
        let text = b"one\ntwo\n\n\0fscf\0three\nfo\0fsur\0\0fscf\0\0fscf\0five";
        let expected = [
            ("one", 0, 0),
            ("two", 0, 0),
            ("three", 1, 0),
            ("fo\0fsur\0", 1, 0),
            ("five", 3, 0),
        ];
        for at in 0..text.len() {
            let lines = told(1024, |teller| {
                teller.take(OutputStream::Stderr, &text[..at]);
                teller.take(OutputStream::Stderr, &text[at..]);
                teller.end();
            });
            assert_eq!(texts(&lines), expected, "{at}");
        }
    }

    #[test]
    fn standard_output_has_no_markers_and_ends_with_the_request() {
        let lines = told(1024, |teller| {
            teller.take(OutputStream::Stdout, b"a\0fscf\0b\nhalf");
            teller.take(OutputStream::Stderr, MARKER);
            teller.take(OutputStream::Stdout, b"next\n");
        });
        assert_eq!(
            texts(&lines),
            [("a\0fscf\0b", 0, 0), ("half", 0, 0), ("next", 1, 0)]
        );
        assert!(lines.iter().all(|line| line.stream == OutputStream::Stdout));
    }

    #[test]
    fn a_megabyte_without_a_newline_is_one_line_that_says_what_is_missing() {
        let lines = told(1024, |teller| {
            (0..64).for_each(|_| teller.take(OutputStream::Stderr, &[b'x'; 16 * 1024]));
            assert!(teller.stderr.text.len() <= 1024);
            teller.take(OutputStream::Stderr, b"\nshort\n");
        });
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].text.len(), lines[0].cut), (1024, (1 << 20) - 1024));
        assert_eq!(lines[1].text, b"short");
    }

    #[test]
    fn a_flood_is_dropped_and_its_length_told() {
        let lines = told(1024, |teller| {
            (0..2000).for_each(|n| teller.take(OutputStream::Stderr, format!("line {n}\n").as_bytes()));
            teller.end();
        });
        let (last, sent) = lines.split_last().expect("some");
        assert_eq!(sent.len(), 500);
        assert!(last.text.is_empty());
        let dropped: u64 = lines.iter().map(|line| line.dropped).sum();
        assert_eq!(dropped + sent.len() as u64, 2000);
    }

    #[test]
    fn without_an_observer_lines_are_counted_and_unwanted_ones_are_not() {
        let wire = Wire::default();
        let mut teller = Teller::new(&wire, (WorkerId(7), PoolId(1), Pid(1)), 1024);
        teller.take(OutputStream::Stderr, b"a\n\0fscf\0");
        assert_eq!((teller.dropped, teller.ended), (0, 1));
        wire.disconnect(true);
        teller.take(OutputStream::Stderr, b"a\nb\n\0fscf\0");
        assert_eq!((teller.dropped, teller.ended), (2, 2));
    }
}
