//! An entry as text for people. Pure.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::inspect::console::plain;
use crate::inspect::paint::{Paint, Role};
use crate::tail::{Entry, Kind};

/// Makes text of entries.
#[derive(Debug)]
pub(super) struct Show {
    paint: Paint,
    zone: TimeZone,
    entries: u64,
}

/// An entry, with its newline, as it is shown and without colours.
pub(super) struct Text {
    pub(super) shown: String,
    pub(super) plain: String,
}

impl Show {
    pub(super) fn new(colour: bool, zone: TimeZone) -> Show {
        Show {
            paint: Paint { on: colour },
            zone,
            entries: 0,
        }
    }

    /// How many there were.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// One more.
    pub(super) fn entry(&mut self, entry: &Entry) -> Text {
        self.entries += 1;
        let without = self.text(entry, Paint { on: false });
        let shown = match self.paint.on {
            true => self.text(entry, self.paint),
            false => without.clone(),
        };
        Text {
            shown,
            plain: without,
        }
    }

    fn text(&self, entry: &Entry, paint: Paint) -> String {
        let mut line = String::new();
        if entry.kind == Kind::Missed {
            let missed = format!("… {} entries missed", entry.missed.unwrap_or(0));
            return format!("{}\n", paint.show(Role::Doubt, missed));
        }
        let time = entry.time.parse::<Timestamp>().ok();
        if let Some(time) = time {
            let time = time
                .to_zoned(self.zone.clone())
                .strftime("%H:%M:%S%.3f")
                .to_string();
            add(&mut line, paint.show(Role::Place, time));
        }
        let text = |text: &Option<String>| text.as_deref().map(plain);
        if let Some(pool) = text(&entry.pool) {
            add(&mut line, paint.show(Role::Title, pool));
        }
        if let Some(pid) = entry.pid {
            add(&mut line, pid);
        }
        match entry.kind {
            Kind::Request => request(&mut line, entry, paint),
            kind => {
                let severity = text(&entry.severity);
                let role = role(severity.as_deref());
                let stream = text(&entry.stream);
                let head = [severity, Some(stream.unwrap_or_else(|| kind.to_string()))];
                let head = head.into_iter().flatten().collect::<Vec<_>>().join(" ");
                add(&mut line, paint.show(role, format!("{head}:")));
                what_ran(&mut line, entry);
            }
        }
        let mut more = entry.message.as_deref().unwrap_or_default().lines();
        if let Some(first) = more.next() {
            add(&mut line, plain(first));
        }
        for (count, what) in [
            (entry.cut_bytes, "bytes cut"),
            (entry.dropped_lines, "lines before it dropped"),
        ] {
            if let Some(count) = count {
                add(&mut line, paint.show(Role::Doubt, format!("({count} {what})")));
            }
        }
        if let Some(trace) = text(&entry.trace_id) {
            add(&mut line, paint.show(Role::Place, format!("trace={trace}")));
        }
        // What a request died of is told whole as the line that PHP has logged.
        if entry.kind != Kind::Request {
            indented(&mut line, more);
        }
        if let Some(stack) = &entry.stack {
            indented(&mut line, stack.lines());
        }
        line.push('\n');
        line
    }
}

fn request(line: &mut String, entry: &Entry, paint: Paint) {
    let status = entry.status.map_or("-".to_owned(), |status| status.to_string());
    let role = match entry.status {
        Some(500..) => Role::Bad,
        Some(400..) => Role::Wait,
        _ => Role::Fine,
    };
    add(line, paint.show(role, status));
    what_ran(line, entry);
    if let Some(bytes) = entry.memory_bytes {
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        add(line, format!("{mebibytes:.1} MiB"));
    }
    for (is_so, word) in [
        (entry.slow, "slow"),
        (entry.fatal, "fatal"),
        (entry.aborted, "client gone"),
    ] {
        if is_so {
            add(line, paint.show(Role::Wait, word));
        }
    }
}

/// Method, path and time, as far as they are known.
fn what_ran(line: &mut String, entry: &Entry) {
    for text in [&entry.method, &entry.path].into_iter().flatten() {
        add(line, plain(text));
    }
    match entry.duration_s {
        Some(seconds) if seconds >= 1.0 => add(line, format!("{seconds:.2} s")),
        Some(seconds) => add(line, format!("{:.1} ms", seconds * 1000.0)),
        None => {}
    }
}

fn role(severity: Option<&str>) -> Role {
    match severity {
        Some("ERROR") => Role::Bad,
        Some("WARN") => Role::Wait,
        _ => Role::Fine,
    }
}

fn add(line: &mut String, word: impl std::fmt::Display) {
    let space = if line.is_empty() { "" } else { " " };
    write!(line, "{space}{word}").expect("writing to a string does not fail");
}

fn indented<'a>(line: &mut String, lines: impl Iterator<Item = &'a str>) {
    for text in lines {
        write!(line, "\n    {}", plain(text)).expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str, colour: bool) -> String {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let entry = serde_json::from_str(json).expect("is an entry");
        Show::new(colour, zone).entry(&entry).shown
    }

    #[test]
    fn an_entry_is_one_line_and_what_belongs_to_it_is_indented() {
        let request = r#"{"time":"2026-03-01T03:04:05.678901Z","kind":"request","pool":"www","pid":4711,"method":"GET",
            "path":"/a","status":503,"duration_s":0.0123,"memory_bytes":2097152,"slow":true,"trace_id":"0af7"}"#;
        assert_eq!(
            shown(request, false),
            "04:04:05.678 www 4711 503 GET /a 12.3 ms 2.0 MiB slow trace=0af7\n"
        );
        let slow = r#"{"time":"2026-03-01T03:04:05Z","kind":"slow","pool":"www","pid":1,"severity":"WARN","path":"/a",
            "duration_s":1.5,"message":"mysqli_query, /srv/db.php:42","stack":"mysqli_query\nmain /srv/index.php:3"}"#;
        assert_eq!(
            shown(slow, false),
            "04:04:05.000 www 1 WARN slow: /a 1.50 s mysqli_query, /srv/db.php:42\n    mysqli_query\n    main \
             /srv/index.php:3\n"
        );
        let line = r#"{"kind":"line","pool":"www","severity":"ERROR","stream":"stderr","message":"a\nb","cut_bytes":3,"trace_id":"0af7"}"#;
        let expected = "www ERROR stderr: a (3 bytes cut) trace=0af7\n    b\n";
        assert_eq!(shown(line, false), expected);
        let died = r#"{"kind":"request","status":500,"message":"E: Uncaught E: no in /a:1\nStack trace:\n#0 {main}"}"#;
        assert_eq!(shown(died, false), "500 E: Uncaught E: no in /a:1\n");
    }

    #[test]
    fn nothing_in_an_entry_drives_the_terminal() {
        let hostile = r#"{"kind":"line","pool":"\u001b[2J","stream":"\u001b","message":"\u001b[31m\r\nx\u009b","path":"\u202e",
            "trace_id":"\u0007","stack":"\u001b"}"#;
        let shown = shown(hostile, false);
        assert!(
            !shown.contains(|c: char| c.is_control() && c != '\n'),
            "{shown:?}"
        );
    }

    #[test]
    fn colours_are_where_they_are_wanted() {
        let request = r#"{"kind":"request","status":500}"#;
        assert!(shown(request, true).starts_with("\u{1b}[31m500\u{1b}[0m"));
        assert!(!shown(request, false).contains('\u{1b}'));
    }
}
