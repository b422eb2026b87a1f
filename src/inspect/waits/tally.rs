//! Waits added up by place, and as a table. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use glasspool_waits::record::Kind;
use glasspool_waits::{Cause, Wait};

use crate::inspect::console::plain;

/// Different places that are kept. A program has some hundred lines that wait.
const MOST_PLACES: usize = 10_000;
/// Lines of the table.
const LINES: usize = 30;

/// What waits are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    cause: Cause,
    /// The peer, or the file.
    with: String,
    /// The builtin, and the line that called it.
    whence: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    waits: u64,
    total: Duration,
    longest: Duration,
}

/// Waits added up by place.
#[derive(Debug, Default)]
pub(super) struct Tally {
    places: HashMap<Place, Sum>,
    /// Of places beyond [`MOST_PLACES`].
    others: u64,
}

impl Tally {
    pub(super) fn add(&mut self, wait: &Wait, blocked: Duration) {
        let place = Place {
            cause: wait.cause,
            with: with(wait),
            whence: whence(wait),
        };
        if self.places.len() >= MOST_PLACES && !self.places.contains_key(&place) {
            self.others += 1;
            return;
        }
        let sum = self.places.entry(place).or_default();
        sum.waits += 1;
        sum.total += blocked;
        sum.longest = sum.longest.max(blocked);
    }

    /// The places with the most time first.
    pub(super) fn table(&self, time: Duration, processes: usize) -> String {
        let total: Duration = self.places.values().map(|sum| sum.total).sum();
        let mut text = format!(
            "{processes} {}, {:.1} s: {:.1} s blocked in PHP, in waits of a millisecond and longer\n",
            if processes == 1 { "process" } else { "processes" },
            time.as_secs_f64(),
            total.as_secs_f64()
        );
        if self.places.is_empty() {
            return text;
        }
        let mut rows: Vec<_> = self.places.iter().collect();
        rows.sort_by(|(place, sum), (other, its)| its.total.cmp(&sum.total).then_with(|| place.cmp(other)));
        let mut cells =
            vec![["BLOCKED", "SHARE", "WAITS", "LONGEST", "CAUSE", "WITH", "WHERE"].map(str::to_owned)];
        cells.extend(rows.iter().take(LINES).map(|(place, sum)| {
            let share = sum.total.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
            [
                seconds(sum.total),
                format!("{:.0} %", share * 100.0),
                sum.waits.to_string(),
                seconds(sum.longest),
                place.cause.to_string(),
                if place.with.is_empty() {
                    "-".to_owned()
                } else {
                    place.with.clone()
                },
                place.whence.clone(),
            ]
        }));
        for row in &cells {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = cells
                    .iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0);
                write!(line, "{cell:<width$}  ").unwrap_or_default();
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if rows.len() > LINES {
            writeln!(text, "and {} more places", rows.len() - LINES).unwrap_or_default();
        }
        if self.others > 0 {
            writeln!(text, "{} waits at further places were not kept", self.others).unwrap_or_default();
        }
        text
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// The peer, or the file's name; empty if it is neither. A connection that is still being made is
/// another matter than one whose peer takes its time.
pub(super) fn with(wait: &Wait) -> String {
    let text = match wait.descriptor.as_ref().map(|descriptor| &descriptor.kind) {
        Some(Kind::Socket {
            peer: Some(peer),
            tcp,
            ..
        }) => match tcp {
            Some(tcp) if tcp.is_connecting() => format!("{peer} (connecting)"),
            Some(tcp) if tcp.is_listening() => format!("{peer} (listening)"),
            _ => peer.to_string(),
        },
        Some(Kind::File { name, .. }) => name.clone(),
        _ => String::new(),
    };
    plain(&text)
}

fn whence(wait: &Wait) -> String {
    let (builtin, caller) = wait.place();
    let mut parts = Vec::new();
    if let Some(builtin) = builtin {
        parts.push(format!("{}()", builtin.name()));
    }
    if let Some(caller) = caller {
        let file = caller.file.as_deref().unwrap_or_default();
        let file = Path::new(file)
            .file_name()
            .map_or(file.into(), |name| name.to_string_lossy());
        let mark = if caller.line_exact { "" } else { "~" };
        let line = caller.line.unwrap_or(0);
        parts.push(format!("{}() {file}:{mark}{line}", caller.name()).replace("}()", "}"));
    }
    if parts.is_empty() {
        parts.push("outside of PHP code".to_owned());
    }
    plain(&parts.join(" < "))
}

#[cfg(test)]
pub(super) mod tests {
    use glasspool_waits::record::Tcp;
    use glasspool_waits::{Address, Descriptor, Frame, SlotIndex, WorkerId};

    use super::*;

    pub(in crate::inspect::waits) fn wait(cause: Cause, peer: Option<&str>, line: u32) -> Wait {
        let frame = |name: &str, line: Option<u32>| Frame {
            class: None,
            function: name.to_owned(),
            file: line.map(|_| "/srv/app/Repo.php".to_owned()),
            line,
            line_exact: line.is_some(),
            internal: line.is_none(),
        };
        Wait {
            worker: WorkerId(1),
            slot: SlotIndex(1),
            request: 0,
            began_ns: 0,
            blocked: None,
            runqueue: Duration::ZERO,
            cause,
            call: None,
            descriptor: peer.map(|peer| Descriptor {
                number: 4,
                kind: Kind::Socket {
                    peer: Some(Address::Ip(peer.parse().unwrap())),
                    protocol: 6,
                    tcp: None,
                },
            }),
            futex: None,
            own_connection: false,
            io_wait: false,
            frames: vec![
                frame("mysqli_query", None),
                frame("find", Some(line)),
                frame("{main}", Some(3)),
            ],
            cut: false,
            fault: false,
        }
    }

    #[test]
    fn places_are_added_up_and_the_longest_comes_first() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        tally.add(&wait(Cause::Sleep, None, 7), ms(300));
        tally.add(&wait(Cause::Network, Some("10.0.3.7:3306"), 42), ms(400));
        tally.add(&wait(Cause::Network, Some("10.0.3.7:3306"), 42), ms(800));
        let expected = "\
2 processes, 10.0 s: 1.5 s blocked in PHP, in waits of a millisecond and longer
BLOCKED   SHARE  WAITS  LONGEST   CAUSE    WITH           WHERE
1.20 s    80 %   2      800.0 ms  network  10.0.3.7:3306  mysqli_query() < find() Repo.php:42
300.0 ms  20 %   1      300.0 ms  sleep    -              mysqli_query() < find() Repo.php:7
";
        assert_eq!(tally.table(Duration::from_secs(10), 2), expected);
    }

    #[test]
    fn a_connection_that_is_being_made_is_told_apart() {
        for (state, expected) in [
            (1, "10.0.3.7:3306"),
            (2, "10.0.3.7:3306 (connecting)"),
            (10, "10.0.3.7:3306 (listening)"),
        ] {
            let mut wait = wait(Cause::Network, Some("10.0.3.7:3306"), 42);
            if let Some(Descriptor {
                kind: Kind::Socket { tcp, .. },
                ..
            }) = &mut wait.descriptor
            {
                *tcp = Some(Tcp {
                    state,
                    receive_queue: 0,
                    send_queue: 0,
                });
            }
            assert_eq!(with(&wait), expected);
        }
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut tally = Tally::default();
        for line in 0..u32::try_from(MOST_PLACES).unwrap() + 5 {
            tally.add(&wait(Cause::Sleep, None, line), Duration::from_millis(1));
        }
        assert_eq!((tally.places.len(), tally.others), (MOST_PLACES, 5));
        let table = tally.table(Duration::from_secs(1), 1);
        assert!(
            table.contains("and 9970 more places\n5 waits at further places were not kept"),
            "{table}"
        );
        assert_eq!(
            Tally::default().table(Duration::from_secs(1), 1).lines().count(),
            1
        );
    }
}
