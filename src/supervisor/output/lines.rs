//! What a worker's text looks like in the log: `decorate_workers_output`, `log_limit`.

use glasspool_abi::Pid;

use super::Stream;
use super::cut::Cutter;
use super::owner::is_of_nobody;
use crate::config::{LogLevel, Pool};
use crate::logs::{ErrorLog, RequestIds};

/// What a line has for its text at least, however long its pool's name is.
const LEAST_TEXT_BYTES: usize = 64;
const CLOSED: &str = ", pipe is closed";

/// How lines are written.
#[derive(Debug)]
enum Form {
    /// Said whose they are.
    Decorated { pool: String },
    /// As they are.
    Plain,
}

/// What a worker has said and what of it is not in the log yet. The text of one stream
/// at a time is held: the other's flushes it.
#[derive(Debug)]
pub(in crate::supervisor) struct Lines {
    pub(super) log: ErrorLog,
    pub(super) pid: Pid,
    form: Form,
    cutter: Cutter,
    /// The request that wrote what the cutter holds, if that is certain of all of it.
    held_of: Option<RequestIds>,
    last: Stream,
}

impl Lines {
    pub(in crate::supervisor) fn new(log: &ErrorLog, pool: &Pool, pid: Pid) -> Lines {
        let form = match pool.decorate_workers_output {
            true => Form::Decorated {
                pool: pool.name.clone(),
            },
            false => Form::Plain,
        };
        Lines {
            log: log.clone(),
            pid,
            form,
            cutter: Cutter::default(),
            held_of: None,
            last: Stream::Stderr,
        }
    }

    /// More of a stream. `writer` tells the request of a line that has so many markers before
    /// it in these bytes, if that is certain.
    pub(super) fn take(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        mut writer: impl FnMut(u64) -> Option<RequestIds>,
    ) {
        if stream != self.last {
            self.finish("");
            self.last = stream;
        }
        let around = self.around("");
        let room = around.room(self.log.limit());
        let is_marked = stream == Stream::Stderr;
        // The next line may begin with what is held, which then has to be of the same request.
        let (mut is_whole, held_of) = (self.cutter.is_empty(), self.held_of);
        let markers = self.cutter.push(bytes, room, is_marked, |text, markers| {
            let known = std::mem::replace(&mut is_whole, true);
            let request = writer(markers).filter(|request| known || held_of == Some(*request));
            self.log
                .said(&around.line(text), request.filter(|_| !is_of_nobody(text)));
        });
        self.held_of = match self.cutter.is_empty() {
            true => None,
            false => writer(markers).filter(|request| is_whole || held_of == Some(*request)),
        };
    }

    /// Whether the bytes of a marker that were taken last are so many.
    pub(super) fn is_in_step(&self, matched: usize) -> bool {
        self.cutter.matched() == matched
    }

    /// The stream's end.
    pub(super) fn close(&mut self, stream: Stream) {
        if stream == self.last {
            self.finish(CLOSED);
        }
    }

    /// Nothing more will come to end the line that is held.
    pub(super) fn end(&mut self) {
        self.finish("");
    }

    /// Writes what is held, in two lines if it fills one without the suffix.
    fn finish(&mut self, suffix: &str) {
        let around = self.around(suffix);
        let room = around.room(self.log.limit());
        let inner = self.around("");
        let mut rest = self.cutter.finish();
        if rest.is_empty() {
            return;
        }
        if is_of_nobody(&rest) {
            self.held_of = None;
        }
        if rest.len() > room {
            let tail = rest.split_off(room);
            self.log.said(&inner.line(&rest), self.held_of);
            rest = tail;
        }
        self.log.said(&around.line(&rest), self.held_of);
    }

    /// What stands around text that is logged now. Like php-fpm, this does not ask whether
    /// warnings are logged: `catch_workers_output` alone decides.
    fn around(&self, suffix: &str) -> Around {
        let Form::Decorated { pool } = &self.form else {
            return Around::default();
        };
        let pid = self.pid;
        let mut before = self.log.head(LogLevel::Warning);
        let stream = self.last.name();
        before.extend(format!("[pool {pool}] child {pid} said into {stream}: \"").bytes());
        let after = format!("\"{suffix}").into_bytes();
        Around { before, after }
    }
}

#[derive(Debug, Default)]
struct Around {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Around {
    /// Bytes of text in a line; php-fpm counts its newline.
    fn room(&self, limit: usize) -> usize {
        limit
            .saturating_sub(self.before.len() + self.after.len() + 1)
            .max(LEAST_TEXT_BYTES)
    }

    fn line(&self, text: &[u8]) -> Vec<u8> {
        [&self.before, text, &self.after, b"\n"].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::path::PathBuf;

    use glasspool_abi::trace::{SpanId, TraceId};

    use super::*;
    use crate::config::{Global, ListenAddress, LogForm, LogTarget};
    use crate::logs::Standing;

    /// A worker of a pool whose output goes to a log of its own.
    struct Stage {
        folder: tempfile::TempDir,
        log: ErrorLog,
        pool: Pool,
    }

    const PID: Pid = Pid(4711);

    impl Stage {
        fn new(limit: usize, decorate: bool) -> Stage {
            Stage::at_level(limit, decorate, LogLevel::Notice)
        }

        fn at_level(limit: usize, decorate: bool, level: LogLevel) -> Stage {
            let folder = tempfile::tempdir().expect("a folder");
            let global = Global {
                error_log: Some(LogTarget::File(folder.path().join("log"))),
                log_limit: limit,
                log_level: level,
                ..Global::default()
            };
            let standing = Standing {
                foreground: false,
                force_stderr: false,
            };
            let log = ErrorLog::open(&global, standing).expect("opens");
            let mut pool = Pool::new("unconfined", ListenAddress::TcpPort(9000), NonZeroU32::MIN);
            pool.decorate_workers_output = decorate;
            Stage { folder, log, pool }
        }

        fn lines(&self) -> Lines {
            Lines::new(&self.log, &self.pool, PID)
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("log")
        }

        /// The log's lines, with their newlines and without what the time makes of them.
        fn logged(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.path()).expect("is text");
            text.split_inclusive('\n').map(str::to_owned).collect()
        }
    }

    fn said(line: &str) -> &str {
        let (before, text) = line
            .split_once("WARNING: [pool unconfined] child 4711 said into ")
            .expect("is decorated");
        assert!(before.starts_with('[') && before.ends_with("] "), "{before:?}");
        text
    }

    #[test]
    fn decorated_lines_fill_the_limit_and_their_newline_counts() {
        for (limit, length) in [(1050, 2048), (1050, 2900), (8000, 4096)] {
            let stage = Stage::new(limit, true);
            let text = "a".repeat(length) + "\n";
            stage.lines().take(Stream::Stderr, text.as_bytes(), |_| None);
            let logged = stage.logged();
            let mut found = 0;
            for (number, line) in logged.iter().enumerate() {
                if number + 1 < logged.len() {
                    assert_eq!(line.len(), limit);
                }
                let text = said(line).strip_prefix("stderr: \"").expect("names the stream");
                found += text.strip_suffix("\"\n").expect("is quoted").len();
            }
            assert_eq!(found, length);
        }
    }

    #[test]
    fn plain_lines_are_nothing_but_the_text() {
        let stage = Stage::new(1024, false);
        let mut lines = stage.lines();
        lines.take(Stream::Stderr, &[b'a'; 100], |_| None);
        lines.take(Stream::Stderr, &[&[b'b'; 2500][..], b"\n"].concat(), |_| None);
        let expected = [
            "a".repeat(100) + &"b".repeat(923) + "\n",
            "b".repeat(1023) + "\n",
            "b".repeat(554) + "\n",
        ];
        assert_eq!(stage.logged(), expected);
    }

    #[test]
    fn a_line_that_several_requests_wrote_is_of_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let global = Global {
            error_log: Some(LogTarget::File(path.clone())),
            error_form: LogForm::Json,
            ..Global::default()
        };
        let standing = Standing {
            foreground: false,
            force_stderr: false,
        };
        let log = ErrorLog::open(&global, standing).expect("opens");
        let pool = Pool::new("www", ListenAddress::TcpPort(9000), NonZeroU32::MIN);
        let mut lines = Lines::new(&log, &pool, PID);
        let request = |number| {
            Some(RequestIds {
                trace_id: TraceId([number; 16]),
                span_id: SpanId([number; 8]),
            })
        };
        for (text, writer) in [
            (&b"whole\nto "[..], request(1)),
            (b"its end\nhalf ", request(1)),
            (b"and half\nanother\nof ", request(2)),
            (b"nobody\nlast", None),
        ] {
            lines.take(Stream::Stderr, text, |_| writer);
        }
        lines.end();
        let said: Vec<_> = std::fs::read_to_string(path)
            .expect("is text")
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("is JSON");
                let ids = ["trace_id", "span_id"].map(|key| line[key].as_str().map(|id| id[..2].to_owned()));
                (line["message"].as_str().map(str::to_owned), ids)
            })
            .collect();
        let line =
            |text: &str, id: Option<&str>| (Some(text.to_owned()), [id, id].map(|id| id.map(str::to_owned)));
        let expected = [
            line("whole", Some("01")),
            line("to its end", Some("01")),
            line("half and half", None),
            line("another", Some("02")),
            line("of nobody", None),
            line("last", None),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn the_other_stream_ends_the_line() {
        let stage = Stage::new(1024, true);
        let mut lines = stage.lines();
        for (stream, text) in [
            (Stream::Stdout, "msg 1 - "),
            (Stream::Stderr, "msg 2 - "),
            (Stream::Stderr, "msg 3"),
            (Stream::Stdout, "msg 4"),
        ] {
            lines.take(stream, text.as_bytes(), |_| None);
        }
        // The other one's end is not the line's.
        lines.close(Stream::Stderr);
        lines.close(Stream::Stdout);
        let logged = stage.logged();
        let logged: Vec<&str> = logged.iter().map(|line| said(line)).collect();
        let expected = [
            "stdout: \"msg 1 - \"\n",
            "stderr: \"msg 2 - msg 3\"\n",
            "stdout: \"msg 4\", pipe is closed\n",
        ];
        assert_eq!(logged, expected);
    }

    #[test]
    fn a_last_line_is_never_longer_than_the_limit() {
        for length in (405..436).step_by(3) {
            let stage = Stage::new(512, true);
            let mut lines = stage.lines();
            lines.take(Stream::Stderr, &vec![b'a'; length], |_| None);
            lines.take(Stream::Stderr, b"\0fsc", |_| None);
            lines.close(Stream::Stderr);
            let logged = stage.logged();
            assert!(logged.iter().all(|line| line.len() <= 512), "{length}");
            let text: String = logged.concat().chars().filter(|c| matches!(c, 'a')).collect();
            let around = logged.len()
                * "WARNING: [pool unconfined] child 4711 said into"
                    .matches('a')
                    .count();
            assert!(text.len() >= length && text.len() <= length + around + 20);
            assert!(logged.last().expect("one").ends_with(", pipe is closed\n"));
        }
    }

    #[test]
    fn the_level_of_the_log_does_not_hide_what_workers_say() {
        let stage = Stage::at_level(1024, true, LogLevel::Alert);
        stage.lines().take(Stream::Stderr, b"help\n", |_| None);
        assert_eq!(said(&stage.logged()[0]), "stderr: \"help\"\n");
    }
}
