//! The slow log file, in php-fpm's layout, with class names and a line that names the
//! trace. Pure.
//!
//! As in php-fpm (`sapi/fpm/fpm/fpm_trace.c`, `fpm_php_trace.c`), file and line beside
//! a function are where it was *called*: those of the nearest outer frame that is
//! written in PHP. The script itself, the outermost frame, is not listed.

use std::fmt::Write;

use glasspool_abi::Pid;
use glasspool_abi::record::{Begin, Text};
use glasspool_probes::{Frame, Kind};
use jiff::Zoned;

use super::text::Plain;

/// One entry. `frames` is what could be read, `None` if nothing could.
pub(super) fn entry(
    now: &Zoned,
    pool: &str,
    pid: Pid,
    begin: &Begin,
    frames: Option<&[Frame]>,
    depth: usize,
) -> String {
    let script = begin.texts.text(Text::Script).unwrap_or_default();
    let mut entry = format!(
        "\n[{}]  [pool {pool}] pid {pid}\nscript_filename = {}\ntrace_id = {}\n",
        now.strftime("%d-%b-%Y %H:%M:%S"),
        Plain(script),
        begin.trace_id,
    );
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
        writeln!(entry, "[0x{addr:016x}] {}() {}:{line}", Plain(name), Plain(file))
            .expect("writing to a string does not fail");
    }
    entry
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
    use super::super::testing::{begin, stack};
    use super::*;

    fn at() -> Zoned {
        "2026-03-01T04:05:06+01:00[+01:00]".parse().expect("a time")
    }

    #[test]
    fn an_entry_is_php_fpms_with_two_additions() {
        let entry = entry(&at(), "www", Pid(4711), &begin(3), Some(&stack()), 20);
        let expected = "
[01-Mar-2026 04:05:06]  [pool www] pid 4711
script_filename = /srv/index.php
trace_id = 01010101010101010101010101010101
[0x00007f0000001000] mysqli_query() /srv/db.php:42
[0x00007f0000000800] Db\\Repo->find() /srv/page.php:9
[0x00007f0000000400] [INCLUDE_OR_EVAL]() /srv/index.php:3
";
        assert_eq!(entry, expected);
    }

    #[test]
    fn the_depth_limits_and_a_caller_is_found_beyond_it() {
        let text = entry(&at(), "www", Pid(1), &begin(3), Some(&stack()), 1);
        let last = text.lines().last();
        assert_eq!(last, Some("[0x00007f0000001000] mysqli_query() /srv/db.php:42"));
    }

    #[test]
    fn without_a_caller_or_a_stack_the_entry_says_so() {
        let orphan = &stack()[..1];
        let text = entry(&at(), "www", Pid(1), &begin(3), Some(orphan), 20);
        assert!(text.ends_with("mysqli_query() unknown:0\n"), "{text}");
        let text = entry(&at(), "www", Pid(1), &begin(3), None, 20);
        assert!(text.ends_with("+++ dump failed\n"), "{text}");
    }
}
