//! Lines of the error log as JSON objects (`error_format = "json"` of `[logs]` in
//! `glasspool.toml`). Made of finished lines, whoever has written them: our own, those of the
//! observer and of PHP's start, and what workers said. Pure.

use glasspool_abi::trace::{SpanId, TraceId};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Levels as lines name them.
const LEVELS: [&str; 5] = ["DEBUG", "NOTICE", "WARNING", "ERROR", "ALERT"];

/// The span of the request that wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestIds {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its span.
    pub span_id: SpanId,
}

/// One object a line; each line of `lines` ends in a newline. `writer` has written all of them.
pub(super) fn objects(lines: &[u8], writer: Option<RequestIds>, now: Timestamp) -> Vec<u8> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut objects = Vec::new();
    for line in lines {
        let mut object = object(&String::from_utf8_lossy(line), now);
        if let Some(RequestIds { trace_id, span_id }) = writer {
            object.insert("trace_id".to_owned(), trace_id.to_string().into());
            object.insert("span_id".to_owned(), span_id.to_string().into());
        }
        objects.extend(Value::Object(object).to_string().bytes());
        objects.push(b'\n');
    }
    objects
}

fn object(line: &str, now: Timestamp) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("time", format!("{now:.6}").into());
    // `[22-Nov-2026 19:58:33] WARNING: `
    let leveled = line.strip_prefix('[').and_then(|rest| {
        let (_, rest) = rest.split_once("] ")?;
        let (level, message) = rest.split_once(": ")?;
        LEVELS.contains(&level).then_some((level, message))
    });
    let mut message = line;
    if let Some((level, rest)) = leveled {
        put("level", level.into());
        message = rest;
    }
    if let Some((pool, rest)) = pool_of(message) {
        put("pool", pool.into());
        message = rest;
    }
    if let Some((pid, rest)) = child_of(message) {
        put("pid", pid.into());
        if let Some((stream, said)) = rest
            .strip_prefix("said into ")
            .and_then(|rest| rest.split_once(": \""))
        {
            put("stream", stream.into());
            message = said.strip_suffix('"').unwrap_or(said);
        }
    }
    put("message", message.into());
    object
}

/// The pool that a message names in front, and what comes after it.
pub(crate) fn pool_of(message: &str) -> Option<(&str, &str)> {
    message.strip_prefix("[pool ")?.split_once("] ")
}

/// The pid of `child 4711 …`, and what comes after it.
pub(crate) fn child_of(message: &str) -> Option<(u32, &str)> {
    let rest = message.strip_prefix("child ")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let (pid, rest) = rest.split_at(end);
    Some((pid.parse().ok()?, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Value {
        let objects = objects(line.as_bytes(), None, Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(objects).expect("is text");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).expect("is JSON")
    }

    #[test]
    fn a_line_is_taken_apart_as_far_as_it_is_understood() {
        let whole = parsed(
            "[22-Nov-2026 19:58:33] WARNING: [pool www] child 4711 said into stderr: \"a \"b\\\x1b\"\n",
        );
        assert_eq!(
            whole,
            serde_json::json!({
                "time": "1970-01-01T00:00:00.000000Z", "level": "WARNING", "pool": "www", "pid": 4711,
                "stream": "stderr", "message": "a \"b\\\u{1b}"
            })
        );
        let closed = parsed(
            "[22-Nov-2026 19:58:33] WARNING: [pool www] child 1 said into stdout: \"x\", pipe is closed\n",
        );
        assert_eq!(closed["message"], "x\", pipe is closed");
        let started = parsed("[22-Nov-2026 19:58:33] NOTICE: [pool www] child 12 started\n");
        assert_eq!(
            (&started["pid"], &started["message"]),
            (&12.into(), &"child 12 started".into())
        );
        for (line, message) in [
            ("undecorated\n", "undecorated"),
            ("[x] y: z\n", "[x] y: z"),
            (
                "[22-Nov-2026 19:58:33] NOTICE: exiting, bye-bye!\n",
                "exiting, bye-bye!",
            ),
        ] {
            assert_eq!(parsed(line)["message"], message);
        }
    }

    #[test]
    fn several_lines_are_several_objects() {
        let writer = RequestIds {
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([1; 8]),
        };
        let objects = objects(b"a\nb\xff\n", Some(writer), Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(objects).expect("is text");
        let values: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(values.len(), 2);
        assert_eq!(values[1]["message"], "b\u{fffd}");
        for value in &values {
            assert_eq!(value["trace_id"], "ab".repeat(16));
            assert_eq!(value["span_id"], "01".repeat(8));
        }
    }
}
