//! Pages as a whole, and the desk. Here php-fpm's layouts; [`documents`] has what holds
//! for all of them.

mod documents;

use glasspool_abi::control::{FromWorker, PoolStatus, ProcessStatus, StatusPart};
use glasspool_abi::slot::Stage;

use super::asked::Asked;
use super::*;

/// 2026-11-22 13:21:15 UTC.
const START: u64 = 1_795_353_675;

fn page(query: &str, figures: &Figures) -> String {
    let clock = Clock {
        now: START + 7,
        zone: TimeZone::UTC,
    };
    render::page(Asked::read(query.as_bytes()), figures, &clock)
}

fn figures(processes: Vec<ProcessStatus>) -> Figures {
    Figures {
        pool: PoolStatus {
            pool: "www".to_owned(),
            process_manager: "dynamic".to_owned(),
            start_unix_s: START,
            accepted: 11,
            listen_queue: 12,
            max_listen_queue: 13,
            listen_queue_len: 14,
            idle: 2,
            active: 3,
            max_active: 4,
            max_children_reached: 15,
            slow_requests: 16,
            memory_peak: 0,
        },
        processes,
    }
}

fn idle() -> ProcessStatus {
    ProcessStatus {
        pid: 32504,
        stage: Stage::Accepting as u64,
        start_unix_s: START,
        requests: 21,
        duration_us: 22,
        method: b"GET".to_vec(),
        uri: b"/a.php".to_vec(),
        query: b"b=<\"c\">".to_vec(),
        content_length: 23,
        user: b"u".to_vec(),
        script: b"/srv/a.php".to_vec(),
        last_cpu_ns: 2_000_000,
        last_duration_ns: 3_000_000,
        last_memory: 2_097_152,
    }
}

fn unused() -> ProcessStatus {
    ProcessStatus {
        pid: 32505,
        stage: Stage::Accepting as u64,
        start_unix_s: START,
        ..ProcessStatus::default()
    }
}

const TEXT: &str = "\
pool:                 www
process manager:      dynamic
start time:           22/Nov/2026:13:21:15 +0000
start since:          7
accepted conn:        11
listen queue:         12
max listen queue:     13
listen queue len:     14
idle processes:       2
active processes:     3
total processes:      5
max active processes: 4
max children reached: 15
slow requests:        16
";

const TEXT_PROCESSES: &str = "
************************
pid:                  32504
state:                Idle
start time:           22/Nov/2026:13:21:15 +0000
start since:          7
requests:             21
request duration:     22
request method:       GET
request URI:          /a.php?b=<\"c\">
content length:       23
user:                 u
script:               /srv/a.php
last request cpu:     66.67
last request memory:  2097152

************************
pid:                  32505
state:                Idle
start time:           22/Nov/2026:13:21:15 +0000
start since:          7
requests:             0
request duration:     0
request method:       -
request URI:          -
content length:       0
user:                 -
script:               -
last request cpu:     0.00
last request memory:  0
";

#[test]
fn text() {
    let figures = figures(vec![idle(), unused()]);
    assert_eq!(page("", &figures), TEXT);
    assert_eq!(page("full", &figures), format!("{TEXT}{TEXT_PROCESSES}"));
}

const HTML: &str = r#"<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
<head><title>PHP-FPM Status Page</title></head>
<body>
<table>
<tr><th>pool</th><td>www</td></tr>
<tr><th>process manager</th><td>dynamic</td></tr>
<tr><th>start time</th><td>22/Nov/2026:13:21:15 +0000</td></tr>
<tr><th>start since</th><td>7</td></tr>
<tr><th>accepted conn</th><td>11</td></tr>
<tr><th>listen queue</th><td>12</td></tr>
<tr><th>max listen queue</th><td>13</td></tr>
<tr><th>listen queue len</th><td>14</td></tr>
<tr><th>idle processes</th><td>2</td></tr>
<tr><th>active processes</th><td>3</td></tr>
<tr><th>total processes</th><td>5</td></tr>
<tr><th>max active processes</th><td>4</td></tr>
<tr><th>max children reached</th><td>15</td></tr>
<tr><th>slow requests</th><td>16</td></tr>
</table>
"#;

const HTML_PROCESSES: &str = r#"<table border="1">
<tr><th>pid</th><th>state</th><th>start time</th><th>start since</th><th>requests</th><th>request duration</th><th>request method</th><th>request uri</th><th>content length</th><th>user</th><th>script</th><th>last request cpu</th><th>last request memory</th></tr>
<tr><td>32504</td><td>Idle</td><td>22/Nov/2026:13:21:15 +0000</td><td>7</td><td>21</td><td>22</td><td>GET</td><td>/a.php?b=&lt;&quot;c&quot;&gt;</td><td>23</td><td>u</td><td>/srv/a.php</td><td>66.67</td><td>2097152</td></tr>
</table>"#;

#[test]
fn html() {
    let figures = figures(vec![idle()]);
    assert_eq!(page("html", &figures), format!("{HTML}</body></html>"));
    assert_eq!(
        page("html&full", &figures),
        format!("{HTML}{HTML_PROCESSES}</body></html>")
    );
}

const XML: &str = "<?xml version=\"1.0\" ?>
<status>
<pool>www</pool>
<process-manager>dynamic</process-manager>
<start-time>1795353675</start-time>
<start-since>7</start-since>
<accepted-conn>11</accepted-conn>
<listen-queue>12</listen-queue>
<max-listen-queue>13</max-listen-queue>
<listen-queue-len>14</listen-queue-len>
<idle-processes>2</idle-processes>
<active-processes>3</active-processes>
<total-processes>5</total-processes>
<max-active-processes>4</max-active-processes>
<max-children-reached>15</max-children-reached>
<slow-requests>16</slow-requests>
";

const XML_PROCESSES: &str = "<processes>
<process><pid>32504</pid><state>Idle</state><start-time>1795353675</start-time><start-since>7</start-since><requests>21</requests><request-duration>22</request-duration><request-method>GET</request-method><request-uri>/a.php?b=&lt;&quot;c&quot;&gt;</request-uri><content-length>23</content-length><user>u</user><script>/srv/a.php</script><last-request-cpu>66.67</last-request-cpu><last-request-memory>2097152</last-request-memory></process>
</processes>
";

#[test]
fn xml() {
    let figures = figures(vec![idle()]);
    assert_eq!(page("xml", &figures), format!("{XML}</status>"));
    assert_eq!(
        page("xml&full", &figures),
        format!("{XML}{XML_PROCESSES}</status>")
    );
}

const JSON: &str = r#"{"pool":"www","process manager":"dynamic","start time":1795353675,"start since":7,"accepted conn":11,"listen queue":12,"max listen queue":13,"listen queue len":14,"idle processes":2,"active processes":3,"total processes":5,"max active processes":4,"max children reached":15,"slow requests":16"#;

const JSON_PROCESSES: &str = r#", "processes":[{"pid":32504,"state":"Idle","start time":1795353675,"start since":7,"requests":21,"request duration":22,"request method":"GET","request uri":"\/a.php?b=<\"c\">","content length":23,"user":"u","script":"\/srv\/a.php","last request cpu":66.67,"last request memory":2097152},{"pid":32505,"state":"Idle","start time":1795353675,"start since":7,"requests":0,"request duration":0,"request method":"-","request uri":"-","content length":0,"user":"-","script":"-","last request cpu":0.00,"last request memory":0}]"#;

#[test]
fn json() {
    let figures = figures(vec![idle(), unused()]);
    assert_eq!(page("json", &figures), format!("{JSON}}}"));
    assert_eq!(page("json&full", &figures), format!("{JSON}{JSON_PROCESSES}}}"));
}

#[test]
fn openmetrics_has_each_metric_once_and_ends_with_eof() {
    let mut figures = figures(vec![idle()]);
    figures.pool.pool = "a\\b\"c\nd".to_owned();
    let body = page("openmetrics&full", &figures);
    assert!(body.starts_with(
        "# HELP phpfpm_up Could pool a\\\\b\\\"c\\nd using a dynamic PM on PHP-FPM be reached?\n\
         # TYPE phpfpm_up gauge\nphpfpm_up 1\n\
         # HELP phpfpm_start_since The number of seconds since FPM has started.\n\
         # TYPE phpfpm_start_since counter\nphpfpm_start_since 7\n"
    ));
    assert!(body.contains(
        "# TYPE phpfpm_listen_queue_length gauge\n\
         # HELP phpfpm_listen_queue_length The size of the socket queue of pending connections.\n\
         phpfpm_listen_queue_length 14\n"
    ));
    let samples: Vec<&str> = body.lines().filter(|line| !line.starts_with('#')).collect();
    let values: Vec<&str> = samples
        .iter()
        .filter_map(|sample| sample.split(' ').nth(1))
        .collect();
    let expected = ["1", "7", "11", "12", "13", "14", "2", "3", "5", "4", "15", "16"];
    assert_eq!(values, expected, "{body}");
    assert!(body.ends_with("\n# EOF\n"));
}

#[test]
fn a_page_is_its_path_byte_by_byte() {
    let pages = Pages {
        status_path: Some("/status".to_owned()),
        ping_path: Some("/ping".to_owned()),
        ping_response: "pong".to_owned(),
    };
    let of = |uri: Option<&str>| Page::of(&pages, uri.map(str::as_bytes));
    assert_eq!(of(Some("/status")), Some(Page::Status));
    assert_eq!(of(Some("/ping")), Some(Page::Ping));
    for other in [
        None,
        Some(""),
        Some("/status/"),
        Some("/Ping"),
        Some("/status?full"),
    ] {
        assert_eq!(of(other), None, "{other:?}");
    }
    for uri in [None, Some(&b""[..]), Some(b"/")] {
        assert_eq!(Page::of(&Pages::default(), uri), None);
    }
}

/// Installs a desk whose supervisor is the other end.
fn desk() -> Channel {
    let (supervisor, theirs) = Channel::pair().expect("a socket pair");
    let pool = PoolSpec {
        name: "www".to_owned(),
        pages: Pages {
            ping_response: "pong".to_owned(),
            ..Pages::default()
        },
        ..PoolSpec::default()
    };
    install(&pool, supervisor, TimeZone::UTC);
    theirs
}

#[test]
fn a_desk_without_supervisor_says_so() {
    drop(desk());
    with(|desk| {
        let ping = desk.answer(Page::Ping, b"");
        assert_eq!((ping.status, &ping.body[..]), (200, &b"pong"[..]));
        assert_eq!(ping.headers, [CONTENT_TYPE_PLAIN, EXPIRES, CACHE_CONTROL]);
        let status = desk.answer(Page::Status, b"json");
        assert_eq!((status.status, status.headers[0]), (500, CONTENT_TYPE_PLAIN));
        assert_eq!(status.body, b"Internal error. Please review log file for errors.");
        assert_eq!(
            status.errors,
            [
                "scoreboard: cannot ask the supervisor: the other side closed the control socket",
                "status: unable to find or access status shared memory",
            ]
        );
        let figures = desk.take_figures();
        let reason = "[pool www] status: cannot ask the supervisor: the other side closed the control socket";
        assert_eq!(figures, Err(reason.to_owned()));
        assert_eq!(desk.value(None, 0), None);
    })
    .expect("installed");
}

#[test]
fn a_script_reads_figures_until_they_are_dropped() {
    let supervisor = desk();
    let supervisor = std::thread::spawn(move || {
        let (_, mut fds): (FromWorker, _) = supervisor.receive().expect("a question");
        let answer = Channel::from(fds.remove(0));
        let Figures { pool, processes } = figures(vec![idle(), unused()]);
        for part in [StatusPart::Pool(pool), StatusPart::Processes(processes)] {
            answer.send(&part, &[]).expect("sends");
        }
    });
    with(|desk| {
        assert_eq!(desk.take_figures(), Ok(2));
        let names = |process| {
            (0..)
                .map_while(|index| desk.value(process, index))
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!((names(None).len(), names(None)[3]), (14, "start-since"));
        assert_eq!((names(Some(1)).len(), names(Some(1))[8]), (14, "query-string"));
        assert_eq!(names(Some(2)).len(), 0);
        let pid = Some(("pid", fields::Value::Number(32505)));
        assert_eq!(desk.value(Some(1), 0), pid);
        desk.drop_figures();
        assert_eq!(desk.value(Some(1), 0), None);
    })
    .expect("installed");
    supervisor.join().expect("answers");
}
