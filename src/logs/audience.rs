//! Whoever is told what the log says, beside those who read the log: a bounded queue in front
//! of somebody who may not be there yet, and who never makes the log wait.

use std::collections::VecDeque;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use glasspool_abi::control::{LoggedLine, Severity};

use crate::config::LogLevel;

/// What waits at most, bytes: some hundred lines, more than a start says.
const MOST_BYTES: usize = 128 * 1024;
/// What a line takes beside its text.
const LINE_BYTES: usize = size_of::<Told>();
/// Longest text of a line, bytes.
pub const MAX_TOLD_BYTES: usize = 8 * 1024;

/// A line of the log, as somebody else is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When it was logged.
    pub time: SystemTime,
    /// Its level.
    pub level: LogLevel,
    /// Its message, at most [`MAX_TOLD_BYTES`]; `log_limit` does not cut it.
    pub text: Vec<u8>,
    /// Bytes at its end that are left out.
    pub cut: u64,
    /// Lines before it that are left out, since the last that was taken.
    pub dropped: u64,
}

impl From<Told> for LoggedLine {
    fn from(line: Told) -> LoggedLine {
        let since = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        LoggedLine {
            unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            severity: line.level.into(),
            text: line.text,
            cut: line.cut,
            dropped: line.dropped,
        }
    }
}

/// The level as other processes are told it.
impl From<LogLevel> for Severity {
    fn from(level: LogLevel) -> Severity {
        match level {
            LogLevel::Debug => Severity::Debug,
            LogLevel::Notice => Severity::Notice,
            LogLevel::Warning => Severity::Warning,
            LogLevel::Error => Severity::Error,
            LogLevel::Alert => Severity::Alert,
        }
    }
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It has it.
    Taken,
    /// Nobody can take it at the moment.
    NotNow,
    /// Nobody wants lines.
    Unwanted,
}

/// Who is told. Called while the log is locked: it must not wait, and must not log.
pub trait Listener: fmt::Debug + Send {
    /// A line.
    fn hear(&mut self, line: &Told) -> Heard;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Audience {
    listener: Box<dyn Listener>,
    waiting: VecDeque<Told>,
    bytes: usize,
}

impl Audience {
    pub(super) fn new(listener: Box<dyn Listener>) -> Audience {
        Audience {
            listener,
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    /// One more line, at once or as soon as somebody can take it. What is too much is left
    /// out, the oldest first, and counted on the next.
    pub(super) fn tell(&mut self, level: LogLevel, message: &[u8]) {
        let text = &message[..message.len().min(MAX_TOLD_BYTES)];
        self.bytes += text.len() + LINE_BYTES;
        self.waiting.push_back(Told {
            time: SystemTime::now(),
            level,
            text: text.to_vec(),
            cut: (message.len() - text.len()) as u64,
            dropped: 0,
        });
        self.hand_on();
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.take_first()
            && let Some(next) = self.waiting.front_mut()
        {
            next.dropped = next.dropped.saturating_add(oldest.dropped).saturating_add(1);
        }
    }

    /// Tells what waits, as far as it is taken.
    pub(super) fn hand_on(&mut self) {
        while let Some(first) = self.waiting.front() {
            match self.listener.hear(first) {
                Heard::Taken => drop(self.take_first()),
                Heard::NotNow => return,
                Heard::Unwanted => {
                    self.waiting.clear();
                    self.bytes = 0;
                }
            }
        }
    }

    fn take_first(&mut self) -> Option<Told> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.text.len() + LINE_BYTES;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Somebody who takes so many lines, and what he has.
    #[derive(Debug, Clone, Default)]
    struct Ear(Arc<Mutex<(usize, Vec<Told>)>>);

    impl Listener for Ear {
        fn hear(&mut self, line: &Told) -> Heard {
            let (room, heard) = &mut *self.0.lock().expect("is whole");
            if *room == 0 {
                return Heard::NotNow;
            }
            *room -= 1;
            heard.push(line.clone());
            Heard::Taken
        }
    }

    impl Ear {
        fn make_room(&self, lines: usize) {
            self.0.lock().expect("is whole").0 = lines;
        }

        fn heard(&self) -> Vec<Told> {
            std::mem::take(&mut self.0.lock().expect("is whole").1)
        }
    }

    fn texts(lines: &[Told]) -> Vec<String> {
        let text = |line: &Told| String::from_utf8_lossy(&line.text).into_owned();
        lines.iter().map(text).collect()
    }

    #[test]
    fn lines_wait_in_their_order_until_somebody_takes_them() {
        let ear = Ear::default();
        let mut audience = Audience::new(Box::new(ear.clone()));
        for text in [b"one", b"two"] {
            audience.tell(LogLevel::Notice, text);
        }
        assert!(ear.heard().is_empty());
        ear.make_room(1);
        audience.hand_on();
        assert_eq!(texts(&ear.heard()), ["one"]);
        ear.make_room(9);
        audience.tell(LogLevel::Error, &[b'x'; MAX_TOLD_BYTES + 5]);
        let heard = ear.heard();
        assert_eq!(heard[0].text, b"two");
        assert_eq!((heard[1].text.len(), heard[1].cut), (MAX_TOLD_BYTES, 5));
        assert_eq!((heard[1].level, heard[1].dropped), (LogLevel::Error, 0));
        assert_eq!(audience.bytes, 0);
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_counted_to_the_line() {
        let ear = Ear::default();
        let mut audience = Audience::new(Box::new(ear.clone()));
        for number in 0..10_000 {
            audience.tell(LogLevel::Notice, format!("line {number}").as_bytes());
            assert!(audience.bytes <= MOST_BYTES);
        }
        ear.make_room(usize::MAX);
        audience.hand_on();
        let heard = ear.heard();
        assert!(heard.len() > 500 && heard.len() < 2000, "{}", heard.len());
        assert_eq!(texts(&heard).last().map(String::as_str), Some("line 9999"));
        let dropped: u64 = heard.iter().map(|line| line.dropped).sum();
        assert_eq!(dropped + heard.len() as u64, 10_000);
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        #[derive(Debug)]
        struct Deaf;
        impl Listener for Deaf {
            fn hear(&mut self, _line: &Told) -> Heard {
                Heard::Unwanted
            }
        }
        let mut audience = Audience::new(Box::new(Deaf));
        audience.tell(LogLevel::Notice, b"one");
        assert_eq!((audience.waiting.len(), audience.bytes), (0, 0));
    }
}
