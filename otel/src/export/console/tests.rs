use glasspool_abi::record::{Begin, End, FATAL, Text};
use glasspool_abi::times::{Known, Times};
use proptest::prelude::*;

use super::*;
use crate::{
    semconv::Conventions,
    slow::{Peer, tests::slow},
    span::{Death, killed_span, server_span, tests::*},
    wait_span::{Account, RequestWaits, WaitSpan, tell},
};

fn with(texts: &[(Text, &str)]) -> Begin {
    let texts = texts
        .iter()
        .map(|(kind, text)| (*kind, text.as_bytes().to_vec()))
        .collect();
    Begin { texts, ..begin() }
}

fn conventions() -> Conventions {
    Conventions::default()
}

#[test]
fn an_ordinary_span_is_one_line() {
    let end = End {
        end_mono_ns: end().responded_mono_ns + 900_000,
        ..end()
    };
    let span = server_span(&end, &facts(), &[], &conventions());
    assert_eq!(
        render_span(&span, false),
        "22:13:20.000Z  200  GET /index.php?a=1&sig=REDACTED  312.4 ms  cpu 3.1 ms  mem 2.0 MiB  \
         pool www  pid 123  trace 11111111111111111111111111111111\n"
    );
}

#[test]
fn slow_samples_and_exceptions_are_indented() {
    let begin = with(&[
        (Text::Method, "POST"),
        (Text::Path, "/pay"),
        (Text::ErrorType, "PDOException"),
        (
            Text::ErrorMessage,
            "Uncaught PDOException: gone\nStack trace:\n#0 {main}",
        ),
        (Text::ErrorFile, "/srv/db.php"),
    ]);
    let end = End {
        begin,
        status: 500,
        flags: FATAL,
        error_line: 7,
        ..end()
    };
    let span = server_span(&end, &facts(), &[slow()], &conventions());
    assert_eq!(
        render_span(&span, false),
        "22:13:20.000Z  500  POST /pay  312.4 ms + 187.6 ms after the response  cpu 3.1 ms  mem 2.0 MiB  \
         pool www  pid 123  error PDOException  \
         trace 11111111111111111111111111111111\n    \
         slow after 1.50 s in sleep (/srv/a.php:3), waiting: clock_nanosleep, 1.40 s so far\n        \
         #0 sleep()\n        #1 /srv/a.php(3): wait()\n        #2 {main}\n    \
         exception PDOException: Uncaught PDOException: gone at /srv/db.php:7\n        \
         #0 {main}\n"
    );
}

#[test]
fn a_sample_that_shows_nothing_new_does_not_repeat_its_stack() {
    let later = crate::slow::SlowEvent {
        elapsed: Duration::from_secs(3),
        ..slow()
    };
    let moved = crate::slow::SlowEvent {
        stacktrace: "#0 {main}".into(),
        ..slow()
    };
    let end = End {
        end_mono_ns: end().responded_mono_ns + 500_000_000,
        flags: glasspool_abi::record::FINISHED_EARLY,
        ..end()
    };
    let text = render_span(
        &server_span(&end, &facts(), &[slow(), later, moved], &conventions()),
        false,
    );
    assert_eq!(text.matches("#0 sleep()").count(), 1, "{text}");
    assert_eq!(
        text.matches(
            "slow after 3.00 s in sleep (/srv/a.php:3), waiting: clock_nanosleep, 1.40 s so far, the same stack\n"
        )
        .count(),
        1,
        "{text}"
    );
    assert!(text.ends_with("        #0 {main}\n"), "{text}");
    assert!(
        text.contains(" 312.4 ms + 500.0 ms after the response "),
        "{text}"
    );
}

#[test]
fn a_killed_request_says_why() {
    let death = Death::Signal("SIGKILL".into());
    let span = killed_span(
        &with(&[(Text::Method, "GET")]),
        &facts(),
        &death,
        0,
        &[],
        &conventions(),
    );
    assert_eq!(
        render_span(&span, true),
        "22:13:20.000Z  \x1b[31m---\x1b[0m  GET   0.0 ms  pool www  pid 123  error SIGKILL  \
         \x1b[2mtrace 11111111111111111111111111111111\x1b[0m\n    \
         \x1b[31mworker 123 was ended by SIGKILL\x1b[0m\n"
    );
}

#[test]
fn a_last_look_says_of_what_it_was_the_last() {
    let death = Death::Signal("SIGSEGV".into());
    let crashed = crate::slow::SlowEvent {
        cause: crate::slow::Cause::Crashed("SIGSEGV".into()),
        stacktrace: String::new(),
        wait: None,
        waiting: crate::slow::Waiting::default(),
        ..slow()
    };
    let span = killed_span(&begin(), &facts(), &death, 0, &[crashed], &conventions());
    let text = render_span(&span, false);
    assert!(
        text.ends_with(
            "    worker 123 was ended by SIGSEGV\n    crashed (SIGSEGV) after 1.50 s in sleep (/srv/a.php:3)\n"
        ),
        "{text}"
    );
}

#[test]
fn a_slow_record_has_its_stack() {
    let record = slow().to_log_record(&begin(), &facts(), &conventions());
    assert_eq!(
        render_log(&record, false),
        "22:13:21.500Z  WARN  GET /index.php still running after 1.5 s, in sleep (/srv/a.php:3), \
         waiting: clock_nanosleep, 1.4 s so far  trace 11111111111111111111111111111111\n        \
         #0 sleep()\n        #1 /srv/a.php(3): wait()\n        #2 {main}\n"
    );
}

proptest! {
    #[test]
    fn no_request_drives_the_terminal(text in "[\u{0}-\u{ff}\u{2028}-\u{2069}]{0,40}") {
        let begin = with(&[(Text::Method, &text), (Text::Path, &text), (Text::Query, &text), (Text::ErrorMessage, &text),
            (Text::ErrorType, &text), (Text::ErrorFile, &text)]);
        let sample = crate::slow::SlowEvent { stacktrace: text.clone(), function: Some(text.clone()), wait: Some(text), ..slow() };
        let record = sample.to_log_record(&begin, &facts(), &conventions());
        let span = server_span(&End { begin, flags: FATAL, ..end() }, &facts(), &[sample], &conventions());
        for out in [render_span(&span, false), render_log(&record, false)] {
            prop_assert!(!out.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{:?}", out);
            prop_assert!(out.ends_with('\n'));
        }
    }
}

#[test]
fn a_wait_is_one_line_without_terminal_codes() {
    let wait = WaitSpan {
        began_mono_ns: begin().start_mono_ns + 1_000_000,
        blocked_ns: 50_000_000,
        class: "network",
        function: Some("PDO::query".to_owned()),
        file: Some("/srv/\x1b[2J.php".to_owned()),
        line: Some(42),
        peer: Some(Peer {
            address: "10.0.3.7".to_owned(),
            port: Some(3306),
            transport: None,
        }),
        ..WaitSpan::default()
    };
    let waits = RequestWaits {
        spans: vec![wait],
        ..RequestWaits::default()
    };
    let account = Account {
        times: &Known::All(Times::default()),
        end_mono_ns: u64::MAX,
        cpu_ns: 0,
        waits: &waits,
    };
    let mut span = server_span(&end(), &facts(), &[], &conventions());
    let children = tell(&mut span, &begin(), &facts(), &account);
    assert_eq!(
        render_span(&children[0], false),
        "22:13:20.001Z    waited 50.0 ms in PDO::query (/srv/\\u{1b}[2J.php:42) for network 10.0.3.7:3306  \
         trace 11111111111111111111111111111111\n"
    );
}
