//! The slow log file, in php-fpm's layout, with class names and further lines in its head:
//! the trace, what the worker waits for, and why an entry is not one of a slow request. Pure.
//!
//! As in php-fpm (`sapi/fpm/fpm/fpm_trace.c`, `fpm_php_trace.c`), file and line beside
//! a function are where it was *called*: those of the nearest outer frame that is
//! written in PHP. The script itself, the outermost frame, is not listed.

use std::fmt::{self, Write};

use glasspool_abi::Pid;
use glasspool_abi::record::{Begin, Text};
use glasspool_otel::slow::{Cause, SlowEvent};
use glasspool_probes::{Frame, Kind};
use jiff::Zoned;

use super::text::Plain;

/// What an entry says before the frames.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) pool: &'a str,
    pub(super) pid: Pid,
    pub(super) begin: &'a Begin,
    pub(super) event: &'a SlowEvent,
}

/// One entry. `frames` is what could be read, `None` if nothing could.
pub(super) fn entry(now: &Zoned, head: &Head<'_>, frames: Option<&[Frame]>, depth: usize) -> String {
    let Head {
        pool,
        pid,
        begin,
        event,
    } = head;
    let script = begin.texts.text(Text::Script).unwrap_or_default();
    let mut entry = format!(
        "\n[{}]  [pool {pool}] pid {pid}\nscript_filename = {}\ntrace_id = {}\n",
        now.strftime("%d-%b-%Y %H:%M:%S"),
        Plain(script),
        begin.trace_id,
    );
    match &event.cause {
        Cause::Slow => {}
        Cause::Terminated(reason) => add(&mut entry, format_args!("reason = killed: {}", Plain(reason))),
        Cause::Crashed(signal) => add(&mut entry, format_args!("reason = {}", Plain(signal))),
    }
    if let Some(wait) = &event.waiting.alike {
        match event.waiting.so_far {
            Some(so_far) => add(
                &mut entry,
                format_args!("waiting = {}, {:.1} s so far", Plain(wait), so_far.as_secs_f64()),
            ),
            None => add(&mut entry, format_args!("waiting = {}", Plain(wait))),
        }
    }
    let Some(frames) = frames else {
        entry.push_str("+++ dump failed\n");
        return entry;
    };
    let listed = frames
        .iter()
        .enumerate()
        .filter(|(_, frame)| frame.kind != Kind::Main);
    for (index, frame) in listed.take(depth) {
        let (file, line) = called_at(&frames[index + 1..]);
        let (addr, name) = (frame.addr.0, function(frame));
        add(
            &mut entry,
            format_args!("[0x{addr:016x}] {}() {}:{line}", Plain(name), Plain(file)),
        );
    }
    entry
}

/// The same as one JSON object in a line. Frames are what they are in the text.
pub(super) fn json(now: &Zoned, head: &Head<'_>, frames: Option<&[Frame]>, depth: usize) -> String {
    let Head {
        pool,
        pid,
        begin,
        event,
    } = head;
    let text = |text| begin.texts.text(text);
    let (kind, reason) = match &event.cause {
        Cause::Slow => ("slow", None),
        Cause::Terminated(reason) => ("terminated", Some(reason)),
        Cause::Crashed(signal) => ("crashed", Some(signal)),
    };
    let stack = frames.map(|frames| {
        let listed = frames.iter().enumerate();
        let listed = listed.filter(|(_, frame)| frame.kind != Kind::Main).take(depth);
        let listed = listed.map(|(index, frame)| {
            let (file, line) = called_at(&frames[index + 1..]);
            serde_json::json!({"function": function(frame), "called_at_file": file, "called_at_line": line})
        });
        listed.collect::<Vec<_>>()
    });
    let mut entry = serde_json::json!({
        "time": now.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string(),
        "kind": kind,
        "pool": pool,
        "pid": pid.0,
        "script": text(Text::Script),
        "method": text(Text::Method),
        "path": text(Text::Path),
        "elapsed_s": event.elapsed.as_secs_f64(),
        "reason": reason,
        "trace_id": begin.trace_id.to_string(),
        "span_id": begin.span_id.to_string(),
        "wait": event.waiting.alike,
        "wait_elapsed_s": event.waiting.so_far.map(|so_far| so_far.as_secs_f64()),
        "stack": stack,
    })
    .to_string();
    entry.push('\n');
    entry
}

fn add(entry: &mut String, line: fmt::Arguments<'_>) {
    writeln!(entry, "{line}").expect("writing to a string does not fail");
}

/// The nearest position in PHP code among the callers.
fn called_at(callers: &[Frame]) -> (&str, u32) {
    let caller = callers.iter().find(|frame| !frame.internal);
    let file = caller
        .and_then(|frame| frame.file.as_deref())
        .unwrap_or("unknown");
    (file, caller.and_then(|frame| frame.line).unwrap_or(0))
}

fn function(frame: &Frame) -> String {
    match frame.kind {
        Kind::Include | Kind::Eval => "[INCLUDE_OR_EVAL]".to_owned(),
        Kind::Function | Kind::Main | Kind::Fiber | Kind::Internal => frame.php_name(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use glasspool_otel::slow::Waiting;

    use super::super::testing::{begin, event, stack};
    use super::*;

    fn at() -> Zoned {
        "2026-03-01T04:05:06+01:00[+01:00]".parse().expect("a time")
    }

    fn written(event: &SlowEvent, pid: i32, frames: Option<&[Frame]>, depth: usize) -> String {
        let head = Head {
            pool: "www",
            pid: Pid(pid),
            begin: &begin(3),
            event,
        };
        entry(&at(), &head, frames, depth)
    }

    #[test]
    fn an_entry_is_php_fpms_with_more_in_its_head() {
        let waiting = SlowEvent {
            waiting: Waiting {
                alike: Some("poll on tcp 10.0.3.7:3306".to_owned()),
                so_far: Some(Duration::from_millis(1234)),
                ..Waiting::default()
            },
            ..event()
        };
        let expected = "
[01-Mar-2026 04:05:06]  [pool www] pid 4711
script_filename = /srv/index.php
trace_id = 01010101010101010101010101010101
waiting = poll on tcp 10.0.3.7:3306, 1.2 s so far
[0x00007f0000001000] mysqli_query() /srv/db.php:42
[0x00007f0000000800] Db\\Repo->find() /srv/page.php:9
[0x00007f0000000400] [INCLUDE_OR_EVAL]() /srv/index.php:3
";
        assert_eq!(written(&waiting, 4711, Some(&stack()), 20), expected);
        let running = written(&event(), 4711, Some(&stack()), 20);
        assert!(!running.contains("waiting"), "{running}");
    }

    #[test]
    fn json_is_one_line_with_the_same_in_it() {
        let head = Head {
            pool: "www",
            pid: Pid(4711),
            begin: &begin(3),
            event: &event(),
        };
        let line = json(&at(), &head, Some(&stack()), 20);
        assert_eq!(line.lines().count(), 1);
        let entry: serde_json::Value = serde_json::from_str(&line).expect("is JSON");
        assert_eq!(entry["time"], "2026-03-01T04:05:06.000000+01:00");
        assert_eq!((&entry["kind"], &entry["pid"]), (&"slow".into(), &4711.into()));
        assert_eq!(entry["trace_id"], "01".repeat(16));
        let frames = entry["stack"].as_array().expect("frames");
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[1]["function"], "Db\\Repo->find");
        assert_eq!(
            (&frames[0]["called_at_file"], &frames[0]["called_at_line"]),
            (&"/srv/db.php".into(), &42.into())
        );
        let unread: serde_json::Value = serde_json::from_str(&json(&at(), &head, None, 20)).expect("is JSON");
        assert!(unread["stack"].is_null() && unread["reason"].is_null());
    }

    #[test]
    fn a_kill_and_a_crash_say_so() {
        let with = |cause| {
            let event = SlowEvent { cause, ..event() };
            written(&event, 1, Some(&stack()), 1)
        };
        let killed = with(Cause::Terminated("request_terminate_timeout".to_owned()));
        let line = "\nreason = killed: request_terminate_timeout\n[0x";
        assert!(killed.contains(line), "{killed}");
        let crashed = with(Cause::Crashed("SIGSEGV".to_owned()));
        assert!(crashed.contains("\nreason = SIGSEGV\n[0x"), "{crashed}");
    }

    #[test]
    fn the_depth_limits_and_a_caller_is_found_beyond_it() {
        let text = written(&event(), 1, Some(&stack()), 1);
        let last = text.lines().last();
        assert_eq!(last, Some("[0x00007f0000001000] mysqli_query() /srv/db.php:42"));
    }

    #[test]
    fn without_a_caller_or_a_stack_the_entry_says_so() {
        let text = written(&event(), 1, Some(&stack()[..1]), 20);
        assert!(text.ends_with("mysqli_query() unknown:0\n"), "{text}");
        let text = written(&event(), 1, None, 20);
        assert!(text.ends_with("+++ dump failed\n"), "{text}");
    }
}
