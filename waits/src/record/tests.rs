use std::mem::offset_of;

use super::decode::{AF_INET, AF_INET6, AF_UNIX, FRAME, HEAD};
use super::*;
use crate::types::{self, RawFrame, RawWait};

/// A record with these frames, innermost first: kind, line, class, name, file, and what was cut off each.
fn record(frames: &[(u8, u32, &str, &str, &str, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    put(&mut bytes, offset_of!(RawWait, fd), &(-1_i32).to_ne_bytes());
    let count = u32::try_from(frames.len()).unwrap();
    put(&mut bytes, offset_of!(RawWait, frame_count), &count.to_ne_bytes());
    for (kind, line, class, name, file, cut) in frames.iter().rev() {
        // What was there before is left over behind each string.
        let mut frame = [b'~'; FRAME];
        put(&mut frame, offset_of!(RawFrame, line), &line.to_ne_bytes());
        frame[offset_of!(RawFrame, kind)] = *kind;
        for (at, text) in [
            (offset_of!(RawFrame, class_length), class),
            (offset_of!(RawFrame, name_length), name),
            (offset_of!(RawFrame, file_length), file),
        ] {
            put(&mut frame, at, &(text.len() as u64 + cut).to_ne_bytes());
            put(&mut frame, at + 8, text.as_bytes());
        }
        bytes.extend(frame);
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

#[test]
fn a_stack_is_told_innermost_first_with_names_for_code_that_has_none() {
    let bytes = record(&[
        (1, 0, "PDO", "query", "", 0),
        (2, 42, "App\\Repo", "find", "/srv/Repo.php", 0),
        (0, 7, "", "", "", 0),
        (2, 3, "", "", "/srv/inc.php", 0),
        (
            4,
            1,
            "class@anonymous\0/srv/a.php:7$0",
            "",
            "/srv/main.php(9) : eval()'d code",
            0,
        ),
        (2, 9, "", "", "/srv/main.php", 0),
    ]);
    let wait = Wait::parse(&bytes).unwrap();
    let lines: Vec<_> = wait.frames.iter().map(Frame::to_string).collect();
    assert_eq!(
        lines,
        [
            "PDO::query",
            "App\\Repo::find /srv/Repo.php:42",
            "{include} /srv/inc.php:3",
            "class@anonymous::{eval} /srv/main.php(9) : eval()'d code:1",
            "{main} /srv/main.php:9",
        ]
    );
    assert!(wait.frames[1].line_exact && !wait.frames[0].line_exact);
    let (builtin, line) = wait.place();
    assert_eq!((builtin, line), (wait.frames.first(), wait.frames.get(1)));
}

#[test]
fn what_was_cut_is_marked_at_its_end() {
    let (class, name, file) = ("c".repeat(64), "n".repeat(40), "f".repeat(120));
    let bytes = record(&[(2, 5, &class, &name, &file, 1), (2, 5, &class, &name, &file, 0)]);
    let frames = Wait::parse(&bytes).unwrap().frames;
    assert_eq!(frames[0].to_string(), format!("…{class}::{name}… …{file}:5"));
    assert_eq!(frames[1].to_string(), format!("{class}::{name} {file}:5"));
    let frame = &frames[0];
    assert!(!frame.line_exact, "the innermost line of PHP code is a guess");
}

#[test]
fn nothing_drives_a_terminal() {
    let bytes = record(&[(2, 5, "", "a\x1b[2Jb\n", "/x", 0)]);
    assert_eq!(
        Wait::parse(&bytes).unwrap().frames[0].function,
        "a\u{fffd}[2Jb\u{fffd}"
    );
}

fn socket(family: u16, address: &[u8], port: u16, path: &[u8], length: u16) -> Wait {
    let mut bytes = record(&[]);
    put(&mut bytes, offset_of!(RawWait, fd), &4_i32.to_ne_bytes());
    put(
        &mut bytes,
        offset_of!(RawWait, fd_kind),
        &[u8::try_from(types::FD_SOCKET).unwrap()],
    );
    put(&mut bytes, offset_of!(RawWait, family), &family.to_ne_bytes());
    put(&mut bytes, offset_of!(RawWait, address), address);
    put(&mut bytes, offset_of!(RawWait, port), &port.to_ne_bytes());
    put(&mut bytes, offset_of!(RawWait, path), path);
    put(
        &mut bytes,
        offset_of!(RawWait, path_length),
        &length.to_ne_bytes(),
    );
    Wait::parse(&bytes).unwrap()
}

#[test]
fn peers_of_every_family_are_told() {
    let shown = |wait: Wait| wait.peer().map(ToString::to_string);
    let none: [u8; 0] = [];
    assert_eq!(
        shown(socket(AF_INET, &[10, 0, 3, 7], 3306, &none, 0)).as_deref(),
        Some("10.0.3.7:3306")
    );
    let mut six = [0; 16];
    six[15] = 1;
    assert_eq!(
        shown(socket(AF_INET6, &six, 80, &none, 0)).as_deref(),
        Some("[::1]:80")
    );
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    assert_eq!(
        shown(socket(AF_INET6, &mapped, 80, &none, 0)).as_deref(),
        Some("127.0.0.1:80")
    );
    assert_eq!(
        shown(socket(AF_UNIX, &none, 0, b"/run/db.sock\0", 13)).as_deref(),
        Some("unix:/run/db.sock")
    );
    assert_eq!(
        shown(socket(AF_UNIX, &none, 0, b"\0db", 3)).as_deref(),
        Some("unix:@db")
    );
    assert_eq!(shown(socket(AF_UNIX, &none, 0, &none, 0)), None);
    assert_eq!(shown(socket(17, &none, 0, &none, 0)), None);
}

#[test]
fn no_bytes_do_harm() {
    assert_eq!(Wait::parse(&[]), None);
    assert_eq!(Wait::parse(&[0; HEAD - 1]), None);
    // It says that it has a frame more than there is.
    let mut bytes = record(&[(2, 5, "", "f", "/x", 0)]);
    assert!(Wait::parse(&bytes).is_some());
    bytes.pop();
    assert_eq!(Wait::parse(&bytes), None);
    // Every number is as large as it can be.
    let wait = Wait::parse(&vec![0xff; HEAD + 32 * FRAME]).unwrap();
    assert_eq!((wait.frames.len(), wait.cause), (32, Cause::Other));
    assert_eq!(wait.call, None);
    let wait = socket(AF_UNIX, &[], 0, &[b'x'; types::PATH_BYTES as usize], u16::MAX);
    assert_eq!(wait.peer().unwrap().to_string().len(), 5 + 108);
}
