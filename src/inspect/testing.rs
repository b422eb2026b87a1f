//! Fixed looks for golden tests.

use std::time::Duration;

use glasspool_abi::Pid;

use super::look::{Line, Request, Seen, Waiting};

/// A frame in a file, or a builtin if `place` is empty.
pub(super) fn line(name: &str, place: &str) -> Line {
    let place = place.rsplit_once(':');
    Line {
        name: name.to_owned(),
        arguments: None,
        file: place.map(|(file, _)| file.to_owned()),
        line: place.map(|(_, line)| line.parse().unwrap()),
        line_exact: true,
        internal: place.is_none(),
        source: None,
        native: Vec::new(),
    }
}

/// A worker of pool `www` that waits for a database.
pub(super) fn blocked(pid: i32) -> Seen {
    Seen {
        pid: Pid(pid),
        pool: Some("www".to_owned()),
        php: "8.2.36".to_owned(),
        request: Some(Request::new("GET", "/orders?page=2")),
        age: Some(Duration::from_millis(1_340)),
        lines: vec![
            line("PDO->query", ""),
            line("App\\Repo->find", "/srv/src/Repo.php:42"),
            line("{closure}", "/srv/src/Page.php:9"),
            line("{main}", "/srv/index.php:3"),
        ],
        cut: false,
        doubt: None,
        wait: Some(Waiting {
            what: format!("poll, fd 4: tcp 127.0.0.1:{} -> 10.0.3.7:3306", 40_000 + pid),
            alike: "poll, tcp 10.0.3.7:3306".to_owned(),
            since: Some(Duration::from_millis(1_200)),
        }),
        native: Vec::new(),
    }
}

/// A script on a CPU.
pub(super) fn running(pid: i32) -> Seen {
    let mut first = line("crunch", "/srv/job.php:7");
    first.line_exact = false;
    Seen {
        pid: Pid(pid),
        pool: None,
        php: "8.2.36".to_owned(),
        request: None,
        age: None,
        lines: vec![first, line("{main}", "/srv/job.php:12")],
        cut: false,
        doubt: None,
        wait: None,
        native: Vec::new(),
    }
}

/// A worker of pool `www` with nothing to do.
pub(super) fn idle(pid: i32) -> Seen {
    Seen {
        lines: Vec::new(),
        request: None,
        age: None,
        wait: Some(Waiting {
            what: "accept4, fd 6".to_owned(),
            alike: "accept4".to_owned(),
            since: None,
        }),
        ..blocked(pid)
    }
}
