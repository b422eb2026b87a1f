//! Whose a line of the error log is when that is JSON: right, or not said.

use std::thread;

use serde_json::Value;

use super::stand::{Stand, hex, run_in};

const POOL: &str = "catch_workers_output = yes\nphp_admin_flag[log_errors] = on\nphp_admin_flag[display_errors] = off\n\
                    pm.max_children = 3";
const JSON: &str = "[logs]\nerror_format = \"json\"\n";
/// Clients at once, more than workers; and requests of each.
const CLIENTS: usize = 4;
const REQUESTS: usize = 300;
/// Lines of a request.
const LINES: usize = 5;

/// The trace id of a request: its number.
fn trace_of(number: usize) -> String {
    format!("{:032x}", number + 1)
}

fn traceparent(number: usize) -> String {
    format!("00-{}-00000000000000aa-01", trace_of(number))
}

/// What workers said.
fn said(stand: &Stand) -> Vec<Value> {
    let log = stand.log();
    let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let objects =
        whole.map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    objects.filter(|object| object["stream"].is_string()).collect()
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// The number of the request that a line names.
fn number_in(line: &Value) -> Option<usize> {
    let (_, rest) = message(line).split_once("/request-")?;
    rest.split_once(';')?.0.parse().ok()
}

#[test]
fn a_line_has_the_ids_of_the_request_that_wrote_it_or_none() {
    for clients in [1, CLIENTS] {
        let named = lines_of_many_requests("\\n", clients);
        assert_ne!(named, Some(0), "no line of {clients} clients has ids");
    }
}

#[test]
fn marks_of_a_requests_end_that_a_script_forges_mislead_nobody() {
    // Whether there are any ids then depends on how soon the lines are read.
    let _named = lines_of_many_requests("\\0fscf\\0", CLIENTS);
}

/// Serves many requests to so many clients, each as fast as it is answered; lines on standard
/// error are divided so. How many lines have ids, all of them right.
fn lines_of_many_requests(divided: &str, clients: usize) -> Option<usize> {
    let stand = Stand::start(POOL, JSON)?;
    let script = r#"<?php $n = $_SERVER['REQUEST_URI'];
        error_log("logged $n;"); trigger_error("warned $n;", E_USER_WARNING);
        file_put_contents('php://stdout', "out $n;\n");
        file_put_contents('php://stderr', "before $n;DIVIDEDafter $n;\n"); echo 'ok';"#;
    stand.write("lines.php", &script.replace("DIVIDED", divided));
    thread::scope(|scope| {
        for client in 0..clients {
            let folder = stand.path("");
            scope.spawn(move || {
                for number in (client..clients * REQUESTS).step_by(clients) {
                    let caller = traceparent(number);
                    let uri = format!("/request-{number}");
                    let params = [("HTTP_TRACEPARENT", caller.as_str())];
                    let answer = run_in(&folder, "lines.php", &uri, &params);
                    assert_eq!(answer.expect("is answered"), "ok");
                }
            });
        }
    });
    let expected = clients * REQUESTS * LINES;
    // Each text has one such character; a text is divided where the other stream's comes between.
    let lines = stand.wait_for("all lines", || {
        let lines = said(&stand);
        let texts: usize = lines.iter().map(|line| message(line).matches(';').count()).sum();
        (texts >= expected).then_some(lines)
    });
    let mut named = 0;
    for line in &lines {
        assert_eq!(
            line["trace_id"].is_string(),
            line["span_id"].is_string(),
            "{line}"
        );
        if let (Some(number), Some(trace)) = (number_in(line), line["trace_id"].as_str()) {
            assert_eq!(trace, trace_of(number), "{line}");
            named += 1;
        }
    }
    Some(named)
}

#[test]
fn a_line_that_is_read_while_its_request_runs_has_its_ids() {
    let Some(stand) = Stand::start(POOL, JSON) else {
        return;
    };
    stand.write(
        "held.php",
        r#"<?php $n = $_SERVER['REQUEST_URI'];
        foreach (['stdout', 'stderr'] as $stream) {
            file_put_contents("php://$stream", "first into $stream $n;\n");
            while (!file_exists(__DIR__ . $n . ".$stream")) { usleep(1000); clearstatcache(); }
        }
        trigger_error("warned $n;", E_USER_WARNING); echo 'ok';"#,
    );
    let (trace, caller, folder) = (trace_of(7), traceparent(7), stand.path(""));
    thread::scope(|scope| {
        let request = scope.spawn(|| {
            run_in(
                &folder,
                "held.php",
                "/request-7",
                &[("HTTP_TRACEPARENT", &caller)],
            )
        });
        for stream in ["stdout", "stderr"] {
            // Written, and the worker waits for us: it is read while the request runs.
            let line = stand.wait_for(stream, || {
                let first = format!("first into {stream} ");
                said(&stand)
                    .into_iter()
                    .find(|line| message(line).starts_with(&first))
            });
            assert_eq!(line["trace_id"], trace, "{line}");
            assert_eq!(line["stream"], stream);
            stand.write(&format!("request-7.{stream}"), "");
        }
        let answer = request.join().expect("does not panic");
        assert_eq!(answer.expect("is answered"), "ok");
    });
    let span = stand.span("/request-7");
    let lines = stand.wait_for("the warning", || {
        let lines = said(&stand);
        lines
            .iter()
            .any(|line| message(line).contains("warned"))
            .then_some(lines)
    });
    for line in &lines {
        assert_eq!(line["span_id"], hex(&span["spanId"]), "{line}");
    }
    // What the supervisor itself says has none.
    let log = stand.log();
    let own = log
        .lines()
        .find(|line| line.contains("ready to handle connections"));
    assert!(own.is_some_and(|line| !line.contains("trace_id")), "{log}");
}
