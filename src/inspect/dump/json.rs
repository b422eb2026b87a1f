//! A dump for programs. Pure.
//!
//! Fields are only ever added; a change of meaning gets a new `schema`.
//! The fields are in `docs/looks.md`, "`glasspool dump --json`".

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::group::Group;
use crate::inspect::look::{Line, Seen};

#[derive(Serialize)]
struct Dump<'a> {
    schema: &'static str,
    taken_at: String,
    processes: Vec<Process<'a>>,
    groups: Vec<Vec<i32>>,
    unread: Vec<Unread<'a>>,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: i32,
    pool: Option<&'a str>,
    php: &'a str,
    state: &'static str,
    request: Option<Request<'a>>,
    age_ms: Option<u64>,
    wait: Option<Wait<'a>>,
    frames: Vec<Frame<'a>>,
    frames_cut: bool,
    doubt: Option<&'a str>,
    native: &'a [String],
}

#[derive(Serialize)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
}

#[derive(Serialize)]
struct Wait<'a> {
    what: &'a str,
    alike: &'a str,
    ms: Option<u64>,
}

#[derive(Serialize)]
struct Frame<'a> {
    function: &'a str,
    args: Option<&'a [String]>,
    file: Option<&'a str>,
    line: Option<u32>,
    line_exact: bool,
    internal: bool,
    source: Option<&'a str>,
    native: &'a [String],
}

#[derive(Serialize)]
struct Unread<'a> {
    message: &'a str,
}

/// The document, ending in a newline.
pub(super) fn json(groups: &[Group<'_>], unread: &[String], taken_at: Timestamp) -> String {
    let mut processes: Vec<&Seen> = groups
        .iter()
        .flat_map(|group| group.members.iter().copied())
        .collect();
    processes.sort_by_key(|seen| seen.pid);
    let dump = Dump {
        schema: "glasspool.dump.v1",
        taken_at: taken_at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        processes: processes.into_iter().map(process).collect(),
        groups: groups
            .iter()
            .map(|group| group.pids().map(|pid| pid.0).collect())
            .collect(),
        unread: unread.iter().map(|message| Unread { message }).collect(),
    };
    let mut text = serde_json::to_string_pretty(&dump).expect("strings, numbers and lists can be written");
    text.push('\n');
    text
}

fn process(seen: &Seen) -> Process<'_> {
    Process {
        pid: seen.pid.0,
        pool: seen.pool.as_deref(),
        php: &seen.php,
        state: seen.state().word(),
        request: seen.request.as_ref().map(|request| Request {
            method: &request.method,
            path: &request.path,
        }),
        age_ms: seen.age.map(millis),
        wait: seen.wait.as_ref().map(|wait| Wait {
            what: &wait.what,
            alike: &wait.alike,
            ms: wait.since.map(millis),
        }),
        frames: seen.lines.iter().map(frame).collect(),
        frames_cut: seen.cut,
        doubt: seen.doubt.as_deref(),
        native: &seen.native,
    }
}

fn frame(line: &Line) -> Frame<'_> {
    Frame {
        function: &line.name,
        args: line.arguments.as_deref(),
        file: line.file.as_deref(),
        line: line.line,
        line_exact: line.line_exact,
        internal: line.internal,
        source: line.source.as_deref(),
        native: &line.native,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::group::group;
    use super::*;
    use crate::inspect::testing::{blocked, running};

    #[test]
    fn the_document_is_the_documented_one() {
        let mut first = blocked(101);
        first.lines.truncate(2);
        first.lines[0].arguments = Some(vec!["string(41)".to_owned()]);
        first.lines[0].native = vec!["poll+0x10 [libc.so.6]".to_owned()];
        first.lines[0].source = Some("ext/pdo/pdo_dbh.c:1162".to_owned());
        let mut last = running(7);
        last.lines.truncate(1);
        let all = [
            first.clone(),
            Seen {
                pid: glasspool_abi::Pid(102),
                ..first
            },
            last,
        ];
        let unread = ["cannot look into process 9: it is gone".to_owned()];
        let at = "2026-03-01T04:05:06.789Z".parse().unwrap();
        let text = json(&group(&all), &unread, at);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["groups"], serde_json::json!([[101, 102], [7]]));
        let expected = serde_json::json!({
            "pid": 101, "pool": "www", "php": "8.2.36", "state": "waiting",
            "request": { "method": "GET", "path": "/orders" },
            "age_ms": 1340,
            "wait": {
                "what": "poll, fd 4: tcp 127.0.0.1:40101 -> 10.0.3.7:3306",
                "alike": "poll, tcp 10.0.3.7:3306",
                "ms": 1200,
            },
            "frames": [
                { "function": "PDO->query", "args": ["string(41)"], "file": null, "line": null, "line_exact": true, "internal": true, "source": "ext/pdo/pdo_dbh.c:1162", "native": ["poll+0x10 [libc.so.6]"] },
                { "function": "App\\Repo->find", "args": null, "file": "/srv/src/Repo.php", "line": 42, "line_exact": true, "internal": false, "source": null, "native": [] },
            ],
            "frames_cut": false, "doubt": null, "native": [],
        });
        assert_eq!(value["processes"][1], expected);
        assert_eq!(value["processes"][0]["pid"], 7);
        assert_eq!(value["processes"][0]["frames"][0]["line_exact"], false);
        assert_eq!(value["unread"][0]["message"], unread[0].as_str());
        assert_eq!(value["taken_at"], "2026-03-01T04:05:06.789Z");
        assert_eq!(value["schema"], "glasspool.dump.v1");
    }
}
