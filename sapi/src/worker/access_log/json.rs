//! A line of the access log as a JSON object (RFC 8259), for `access_format = "json"`.
//!
//! Every text has a bound, so that the line is whole whatever a client sends, and one
//! write(2) to a pipe is not divided (PIPE_BUF, pipe(7)).

use std::fmt::Write;

use glasspool_abi::times::Known;
use glasspool_abi::trace::{SpanId, TraceId};

use super::format::Fixed;
use super::times::{BLOCKED, Part, Seconds};
use super::{CpuShare, Facts, Spent};

/// Longest line: PIPE_BUF.
#[cfg(test)]
const LINE_BYTES: usize = 4096;

/// What stays the same for the life of a worker.
#[derive(Debug)]
pub(super) struct Json {
    pool: String,
    pid: i32,
}

impl Json {
    pub(super) fn new(fixed: Fixed<'_>) -> Json {
        Json {
            pool: fixed.pool.to_owned(),
            pid: fixed.pid,
        }
    }

    /// Puts the line together without its newline.
    pub(super) fn render(&self, line: &mut Vec<u8>, facts: &Facts<'_>, spent: &Spent) {
        let param = |name: &[u8]| facts.params.get(name).unwrap_or_default();
        let mut object = Object(line);
        object.raw("time", format_args!("\"{}\"", time(facts.began.0)));
        object.text("pool", self.pool.as_bytes(), 200);
        object.raw("pid", self.pid);
        object.text("method", param(b"REQUEST_METHOD"), 32);
        object.text("path", facts.uri.unwrap_or_default(), 1000);
        object.text("query", param(b"QUERY_STRING"), 1000);
        object.raw("status", facts.status);
        #[expect(clippy::cast_precision_loss, reason = "microseconds are shown")]
        let duration = spent.wall_ns as f64 / 1e9;
        object.raw("duration_s", format_args!("{duration:.6}"));
        object.raw(
            "cpu_percent",
            format_args!("{:.2}", spent.cpu_percent(CpuShare::Total)),
        );
        object.times(facts.queued_ns, &spent.times);
        object.raw("memory_bytes", facts.memory_peak);
        object.raw("content_length", facts.content_length);
        object.text("script", facts.script.unwrap_or_default(), 500);
        if let Some(peer) = facts.peer {
            object.raw("peer", format_args!("\"{peer}\""));
        }
        object.text("client", param(b"REMOTE_ADDR"), 64);
        object.text("user", facts.user, 100);
        if let Some((trace, span)) = ids(facts) {
            object.raw("trace_id", format_args!("\"{trace}\""));
            object.raw("span_id", format_args!("\"{span}\""));
        }
        line.push(b'}');
    }
}

/// The ids of a request that has some.
fn ids(facts: &Facts<'_>) -> Option<(TraceId, SpanId)> {
    facts.ids.filter(|(trace, _)| trace.0 != [0; 16])
}

/// An object that is being written: each member after the first has a comma before it.
struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        std::io::Write::write_fmt(self.0, format_args!("{value}")).expect("a vector takes everything");
    }

    /// Where the time went; what is not known is left out.
    fn times(&mut self, queued_ns: Option<u64>, times: &Known) {
        let mut part = |key: &str, part: Part| {
            if let Some(ns) = part.value(queued_ns, times) {
                self.raw(key, Seconds(ns));
            }
        };
        part("queue_time_s", Part::Queue);
        part("on_cpu_s", Part::OnCpu);
        part("runqueue_s", Part::RunQueue);
        part("blocked_s", Part::Blocked);
        for (cause, name) in BLOCKED.iter().enumerate() {
            part(&format!("{name}_s"), Part::BlockedFor(cause));
        }
        if let Some(waits) = Part::Waits.value(queued_ns, times) {
            self.raw("waits", waits);
        }
    }

    /// A text, left out if it is empty, and cut at so many bytes of the line.
    fn text(&mut self, key: &str, bytes: &[u8], most: usize) {
        if bytes.is_empty() {
            return;
        }
        self.key(key);
        self.0.push(b'"');
        let end = self.0.len() + most;
        // A longer one would be cut anyway.
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]);
        let mut piece = String::with_capacity(8);
        for c in text.chars() {
            piece.clear();
            match c {
                '"' => piece.push_str("\\\""),
                '\\' => piece.push_str("\\\\"),
                c if c.is_control() => {
                    write!(piece, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
                }
                c => piece.push(c),
            }
            if self.0.len() + piece.len() > end {
                break;
            }
            self.0.extend_from_slice(piece.as_bytes());
        }
        self.0.push(b'"');
    }

    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

/// RFC 3339 in UTC, with microseconds.
fn time(unix_ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use glasspool_abi::times::{CAUSES, Times};
    use glasspool_fastcgi::Params;

    use super::super::Account;
    use super::*;

    fn rendered(params: &Params, uri: &[u8], queued_ns: Option<u64>, times: Known) -> String {
        let account = Account::of(None, false, || false);
        let facts = Facts {
            params,
            script: Some(b"/srv/index.php"),
            uri: Some(uri),
            peer: None,
            user: b"",
            status: 200,
            content_length: 5,
            memory_peak: 2 << 20,
            began: (1_700_000_000_123_456_789, 0),
            began_cpu: (0, 0),
            ids: Some((TraceId([1; 16]), SpanId([2; 8]))),
            queued_ns,
            account: &account,
        };
        let spent = Spent {
            wall_ns: 12_345_678,
            cpu_user_ns: 0,
            cpu_system_ns: 0,
            now_unix_ns: 0,
            times,
        };
        let fixed = Fixed {
            pool: "www",
            pid: 7,
            supervisor: 1,
        };
        let mut line = Vec::new();
        Json::new(fixed).render(&mut line, &facts, &spent);
        String::from_utf8(line).expect("is text")
    }

    #[test]
    fn a_line_is_an_object() {
        let mut params = Params::new();
        params.push(b"REQUEST_METHOD", b"GET");
        params.push(b"QUERY_STRING", b"a=\"b\\\x01\xff");
        assert_eq!(
            rendered(&params, b"/index.php", None, Known::Nothing),
            "{\"time\":\"2023-11-14T22:13:20.123456Z\",\"pool\":\"www\",\"pid\":7,\"method\":\"GET\",\
             \"path\":\"/index.php\",\"query\":\"a=\\\"b\\\\\\u0001\u{fffd}\",\"status\":200,\"duration_s\":0.012346,\
             \"cpu_percent\":0.00,\"memory_bytes\":2097152,\"content_length\":5,\"script\":\"/srv/index.php\",\
             \"trace_id\":\"01010101010101010101010101010101\",\"span_id\":\"0202020202020202\"}"
        );
    }

    #[test]
    fn times_that_are_known_are_in_it() {
        let times = Times {
            on_cpu_ns: 2_000_000,
            blocked_ns: [0, 0, 0, 5_000_000, 0, 0],
            waits: 3,
            ..Times::default()
        };
        let line = rendered(&Params::new(), b"/a", Some(7_000_000), Known::All(times));
        let expected = "\"queue_time_s\":0.007000,\"on_cpu_s\":0.002000,\"runqueue_s\":0.000000,\
             \"blocked_s\":0.005000,\"blocked_network_s\":0.000000,\"blocked_disk_s\":0.000000,\
             \"blocked_lock_s\":0.000000,\"blocked_sleep_s\":0.005000,\"blocked_pipe_s\":0.000000,\
             \"blocked_other_s\":0.000000,\"waits\":3,";
        assert!(line.contains(expected), "{line}");
        let line = rendered(&Params::new(), b"/a", None, Known::RunQueue(1_000));
        assert!(
            line.contains("\"runqueue_s\":0.000001,") && !line.contains("on_cpu"),
            "{line}"
        );
    }

    #[test]
    fn the_longest_line_is_whole_and_short_enough() {
        let mut params = Params::new();
        for name in [&b"REQUEST_METHOD"[..], b"QUERY_STRING", b"REMOTE_ADDR"] {
            params.push(name, &[b'"'; 5000]);
        }
        let longest = Times {
            on_cpu_ns: u64::MAX,
            runqueue_ns: u64::MAX,
            blocked_ns: [u64::MAX; CAUSES],
            waits: u64::MAX,
            ..Times::default()
        };
        let line = rendered(&params, &[1; 5000], Some(u64::MAX), Known::All(longest));
        assert!(
            line.len() < LINE_BYTES && line.ends_with("\"}"),
            "{} bytes",
            line.len()
        );
        assert!(!line.contains(char::is_control));
    }
}
