//! What workers print and what PHP logs, as a collector gets it.

use serde_json::Value;

use crate::collector::{each, text};

use super::stand::{Stand, body, hex, says, shown};

const CAUGHT: &str =
    "catch_workers_output = yes\nphp_admin_flag[log_errors] = on\nphp_admin_flag[display_errors] = off";

#[test]
fn a_line_has_the_trace_of_the_request_that_wrote_it() {
    let Some(stand) = Stand::start(CAUGHT, "") else {
        return;
    };
    stand.write(
        "line.php",
        "<?php $n = $_SERVER['REQUEST_URI']; file_put_contents('php://stderr', \"line of $n\\n\"); echo $n;",
    );
    // While the observer starts it may be too late for the first.
    stand.wait_for("the observer", || {
        stand.run("line.php", "/warm");
        stand.collector.records().into_iter().find(says("/warm"))
    });
    // One worker serves them one after the other, faster than anybody reads what it writes.
    let paths: Vec<_> = (0..40).map(|n| format!("/request-{n}-")).collect();
    for path in &paths {
        assert_eq!(&stand.run("line.php", path), path);
    }
    for path in &paths {
        let record = stand.record(path, says(path));
        let span = stand.span(path);
        assert_eq!(record["traceId"], span["traceId"], "{path}");
        assert_eq!(record["spanId"], span["spanId"], "{path}");
        assert_eq!(text(&record, "log.iostream"), Some("stderr"));
        assert_eq!(text(&record, "php.pool"), Some("www"));
        assert_eq!(record["severityText"], "WARN");
        assert_eq!(body(&record), format!("line of {path}"));
    }
    // php-fpm's own line in the error log is what it was.
    let log = stand.log();
    assert!(log.contains("said into stderr: \"line of /request-7-\""), "{log}");
}

#[test]
fn an_uncaught_exception_is_one_record_with_its_stack() {
    let Some(stand) = Stand::start(CAUGHT, "") else {
        return;
    };
    stand.write(
        "fatal.php",
        "<?php function inner() { throw new LogicException(\"not\\ntoday\"); }\nfunction outer() { inner(); }\nouter();",
    );
    stand.write(
        "warn.php",
        "<?php trigger_error('take care', E_USER_WARNING); error_log('my own words'); echo 'ok';",
    );
    stand.run("fatal.php", "/fatal");
    stand.run("warn.php", "/warn");
    let fatal = stand.record("the fatal error", says("LogicException"));
    let file = shown(&stand.path("fatal.php"));
    let expected = format!(
        "PHP Fatal error:  Uncaught LogicException: not\ntoday in {file}:1\nStack trace:\n#0 {file}(2): inner()\n\
         #1 {file}(3): outer()\n#2 {{main}}\n  thrown in {file} on line 1"
    );
    assert_eq!(body(&fatal), expected);
    assert_eq!(fatal["severityText"], "ERROR");
    assert_eq!(fatal["traceId"], stand.span("/fatal")["traceId"]);
    let warning = stand.record("the warning", says("take care"));
    assert!(
        body(&warning).starts_with("PHP Warning:  take care in "),
        "{warning}"
    );
    assert_eq!(warning["severityText"], "WARN");
    let own = stand.record("the script's words", says("my own words"));
    assert_eq!(
        (body(&own), own["severityText"].as_str()),
        ("my own words", Some("INFO"))
    );
    assert_eq!(own["spanId"], stand.span("/warn")["spanId"]);
    let again = stand
        .collector
        .records()
        .into_iter()
        .filter(says("take care"))
        .count();
    assert_eq!(again, 1, "nothing is told twice");
}

#[test]
fn what_php_logs_to_a_file_of_its_own_is_told_too() {
    for (settings, kind) in [
        (
            "catch_workers_output = yes\nphp_admin_flag[log_errors] = on\nphp_admin_value[error_log] = ROOT/php.log",
            "to a file",
        ),
        (
            "catch_workers_output = no\nphp_admin_flag[log_errors] = on",
            "nowhere",
        ),
    ] {
        let Some(stand) = Stand::start(settings, "") else {
            return;
        };
        stand.write(
            "noisy.php",
            "<?php @trigger_error('hushed', E_USER_NOTICE);
             set_error_handler(fn() => true, E_USER_DEPRECATED); trigger_error('handled', E_USER_DEPRECATED);
             for ($i = 0; $i < 20; $i++) trigger_error(\"complaint $i\", E_USER_NOTICE); echo 'ok';",
        );
        assert_eq!(stand.run("noisy.php", "/noisy"), "ok", "{kind}");
        let record = stand.record("the first complaint", says("complaint 0 "));
        assert!(
            body(&record).starts_with("PHP Notice:  complaint 0 in "),
            "{kind}: {record}"
        );
        assert_eq!(record["severityText"], "INFO");
        assert_eq!(record["traceId"], stand.span("/noisy")["traceId"], "{kind}");
        assert_eq!(text(&record, "log.iostream"), None);
        // Eight of a request; the next to come says how many are missing.
        stand.write(
            "one.php",
            "<?php trigger_error('one more', E_USER_WARNING); echo 'ok';",
        );
        assert_eq!(stand.run("one.php", "/one"), "ok");
        let next = stand.record("one more", says("one more"));
        let dropped = each(&next, "attributes").find(|attribute| attribute["key"] == "php.log.dropped_lines");
        assert_eq!(
            dropped.expect("says so")["value"]["intValue"],
            "12",
            "{kind}: {next}"
        );
        let records = stand.collector.records();
        assert_eq!(
            records.iter().filter(|record| says("complaint")(record)).count(),
            8
        );
        assert!(
            !records
                .iter()
                .any(|record| says("hushed")(record) || says("handled")(record))
        );
    }
}

#[test]
fn what_an_application_logs_to_the_file_of_php_is_told_once() {
    let file = "catch_workers_output = yes\nphp_admin_value[error_log] = ROOT/";
    for (name, is_there) in [("php.log", true), ("no/such/folder/php.log", false)] {
        let Some(stand) = Stand::start(&format!("{file}{name}"), "") else {
            return;
        };
        stand.write(
            "own.php",
            "<?php class Words { function __toString() { return 'as an object'; } }
             error_log('my own words'); error_log(message: 42, message_type: '0'); error_log(new Words, 0);
             error_log('of my own file', 3, __DIR__ . '/mine.log');
             try { error_log([]); } catch (TypeError) { error_log(\"caught\\nit\"); } echo 'ok';",
        );
        assert_eq!(stand.run("own.php", "/own"), "ok", "{name}");
        let told = |text: &str| stand.record(&format!("{name}: {text}"), |record| body(record) == text);
        let words = ["my own words", "42", "as an object"];
        for record in words.map(told) {
            assert_eq!(record["severityText"], "INFO", "{record}");
            assert_eq!(record["traceId"], stand.span("/own")["traceId"], "{record}");
            assert_eq!(text(&record, "log.iostream").is_none(), is_there, "{record}");
        }
        stand.record("both lines, or the first", |record| {
            body(record).starts_with("caught")
        });
        let records = stand.collector.records();
        for text in words {
            assert_eq!(
                records.iter().filter(|record| body(record) == text).count(),
                1,
                "{text}"
            );
        }
        assert!(!records.iter().any(says("of my own file")));
        if is_there {
            let log = std::fs::read_to_string(stand.path("php.log")).expect("reads");
            assert!(
                log.contains("] my own words\n") && log.contains("] 42\n"),
                "{log}"
            );
        }
    }
}

#[test]
fn hostile_output_neither_stops_a_worker_nor_is_lost_without_a_word() {
    let Some(stand) = Stand::start(CAUGHT, "") else {
        return;
    };
    stand.write(
        "hostile.php",
        r#"<?php $e = fopen('php://stderr', 'w');
           fwrite($e, str_repeat('x', 1 << 20)); fwrite($e, "\n");
           fwrite($e, "wrong \xff\xfe bytes\n"); fwrite($e, "\x1b[2J control \x07\n");
           fwrite($e, "before\0fscf\0forged mark\n"); fwrite($e, "no newline"); echo 'ok';"#,
    );
    stand.write(
        "flood.php",
        r#"<?php $e = fopen('php://stderr', 'w');
        for ($i = 0; $i < 5000; $i++) fwrite($e, "flood $i\n"); echo 'ok';"#,
    );
    stand.write(
        "after.php",
        "<?php file_put_contents('php://stderr', \"afterwards\\n\"); echo 'ok';",
    );
    assert_eq!(stand.run("hostile.php", "/hostile"), "ok");
    let long = stand.record("the long line", |record| body(record).starts_with("xxx"));
    assert_eq!(body(&long).len(), 1024, "log_limit");
    let cut = each(&long, "attributes").find(|attribute| attribute["key"] == "php.log.cut_bytes");
    assert_eq!(
        cut.expect("says so")["value"]["intValue"],
        ((1 << 20) - 1024).to_string()
    );
    stand.record("wrong bytes", says("wrong \u{fffd}\u{fffd} bytes"));
    stand.record("control characters", says("\u{1b}[2J control \u{7}"));
    stand.record("a line without its end", says("no newline"));
    stand.record("what comes after a forged mark", says("forged mark"));
    assert_eq!(stand.run("flood.php", "/flood"), "ok");
    let warning = stand.wait_for("the warning", || {
        let log = stand.log();
        log.lines()
            .find(|line| line.contains("lines of its workers are in the error log only"))
            .map(str::to_owned)
    });
    assert!(warning.contains("[pool www] "), "{warning}");
    // Whoever reads along is told so too; and the collector is not, by log records at least.
    let entry = stand.wait_for("the warning in tail", || {
        let arguments = ["--json", "-n", "1000", "--grep", "in the error log only"];
        let (shown, _, _) = stand.tail_once(&arguments);
        serde_json::from_str::<Value>(shown.lines().next()?).ok()
    });
    assert_eq!(
        [&entry["kind"], &entry["pool"], &entry["severity"]],
        ["log", "www", "WARN"],
        "{entry}"
    );
    assert!(
        !stand
            .collector
            .records()
            .iter()
            .any(says("in the error log only"))
    );
    let told = stand
        .collector
        .records()
        .iter()
        .filter(|record| says("flood ")(record))
        .count();
    let log = stand.log();
    assert_eq!(
        log.matches("\"flood ").count(),
        5000,
        "the error log has them all"
    );
    assert!(told < 1000, "{told}");
    // A forged mark does not put later lines to a wrong request, nor to none for good.
    stand.wait_for("a line after the flood with its request", || {
        stand.run("after.php", "/after");
        let records = stand.collector.records();
        let spans = stand.collector.spans();
        let mut afterwards = records.iter().filter(|record| says("afterwards")(record));
        let span_of = |record: &Value| {
            spans
                .iter()
                .find(|span| span["spanId"] == record["spanId"])
                .cloned()
        };
        let span = afterwards.find_map(span_of)?;
        assert_eq!(text(&span, "url.path"), Some("/after"));
        Some(span)
    });
}

#[test]
fn logs_can_be_json_with_the_ids_of_the_trace() {
    let pool = "access.log = ROOT/access.log\naccess.format = \"%R\"\nslowlog = ROOT/slow.log\n";
    let toml = "[logs]\nerror_format = \"json\"\naccess_format = \"json\"\nslow_format = \"json\"\n[slow]\nafter = \"100ms\"\n";
    let Some(stand) = Stand::start(&format!("{CAUGHT}\n{pool}"), toml) else {
        return;
    };
    stand.write(
        "slow.php",
        "<?php function nap() { usleep(300000); } nap(); echo 'slept';",
    );
    assert_eq!(stand.run("slow.php", "/a\"b"), "slept");
    let object = |name: &str| {
        stand.wait_for(name, || {
            let text = std::fs::read_to_string(stand.path(name)).unwrap_or_default();
            let line = text.lines().next().filter(|_| text.ends_with('\n'))?.to_owned();
            Some(serde_json::from_str::<Value>(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
        })
    };
    let (access, slow, span) = (object("access.log"), object("slow.log"), stand.span("/a\"b"));
    let (trace, own) = (hex(&span["traceId"]), hex(&span["spanId"]));
    for entry in [&access, &slow] {
        assert_eq!(
            (entry["trace_id"].as_str(), entry["span_id"].as_str()),
            (Some(&*trace), Some(&*own))
        );
        assert_eq!(entry["pool"], "www");
    }
    assert_eq!(
        (access["path"].as_str(), access["status"].as_u64()),
        (Some("/a\"b"), Some(200))
    );
    assert!(
        access["duration_s"]
            .as_f64()
            .is_some_and(|seconds| seconds >= 0.3),
        "{access}"
    );
    assert_eq!(
        (slow["kind"].as_str(), slow["path"].as_str()),
        (Some("slow"), Some("/a\"b"))
    );
    let log = stand.log();
    let errors = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    let errors: Vec<_> = errors.collect();
    let slow_line = errors
        .iter()
        .find(|error| error["message"].as_str().unwrap_or_default().contains("too slow"));
    let slow_line = slow_line.unwrap_or_else(|| panic!("{log}"));
    // It may have a query, which is kept nowhere else.
    let (shown, _, _) = stand.tail_once(&["--json", "-n", "1000"]);
    assert!(
        shown.contains("\"kind\":\"log\"") && !shown.contains("too slow"),
        "{shown}"
    );
    assert_eq!(
        (slow_line["level"].as_str(), slow_line["pool"].as_str()),
        (Some("WARNING"), Some("www"))
    );
    let frames: Vec<_> = each(&slow, "stack")
        .map(|frame| frame["function"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(frames, ["usleep", "nap"]);
}

#[test]
fn an_access_format_of_ours_has_further_codes_and_php_fpms_has_not() {
    let pool = "access.log = ROOT/access.log\n";
    let toml = "[pool.www]\naccess_format = \"%s %{trace_id}x %{span_id}x %{queue_time}x %r\"\n";
    let Some(stand) = Stand::start(&format!("{CAUGHT}\n{pool}"), toml) else {
        return;
    };
    stand.write("ok.php", "<?php echo 'ok';");
    assert_eq!(stand.run("ok.php", "/ok"), "ok");
    let span = stand.span("/ok");
    let line = std::fs::read_to_string(stand.path("access.log")).expect("was written before the span");
    let expected = format!("200 {} {} - /ok\n", hex(&span["traceId"]), hex(&span["spanId"]));
    assert_eq!(line, expected);
    for ours in ["%{trace_id}x", "%{on_cpu}x"] {
        let refused = stand.check(&format!("{pool}access.format = \"{ours}\""), "");
        assert!(
            refused.contains(&format!("wrong format for access.format '{ours}'")),
            "{refused}"
        );
    }
    let refused = stand.check(pool, "[logs]\naccess_format = \"%{trace}x\"\n");
    assert!(
        refused.contains("only 'trace_id', 'span_id', 'queue_time'"),
        "{refused}"
    );
    let refused = stand.check(pool, "[logs]\naccess_format = \"jsn\"\n");
    assert!(
        refused.contains("expected \"json\", or a format with codes"),
        "{refused}"
    );
}
