use std::time::Duration;

use glasspool_abi::record::EndScalars;
use glasspool_abi::{Pid, WorkerId};

use super::*;
use crate::observer::testing::{Bench, FakeWorker, POOL, cursors};
use crate::tail::{Entry, Filter, Kind};

fn line(worker: u64, ended: u64, text: &str) -> WorkerLine {
    WorkerLine {
        worker: WorkerId(worker),
        pool: POOL,
        pid: Pid(4711),
        stream: OutputStream::Stderr,
        mono_ns: monotonic_ns(),
        ended,
        text: text.as_bytes().to_vec(),
        cut: 0,
        dropped: 0,
    }
}

/// The last line that was told, and the number of its request, which is its span id here.
fn last(bench: &Bench) -> Option<(String, Option<u64>)> {
    let history = &bench.observer.report.history;
    let entries = (history.first()..history.next()).filter_map(|number| history.get(number));
    let mut entries = entries.filter_map(|kept| kept.if_taken(&Filter::default()));
    let entry: Entry = entries.rfind(|entry| entry.kind == Kind::Line)?;
    let span = entry
        .span_id
        .map(|id| u64::from_str_radix(&id, 16).expect("is hexadecimal"));
    Some((entry.message.unwrap_or_default(), span))
}

fn told(bench: &mut Bench, line: WorkerLine) -> Option<u64> {
    let text = String::from_utf8(line.text.clone()).expect("text");
    bench.observer.on_line(line);
    let (message, request) = last(bench).expect("was told");
    assert_eq!(message, text);
    request
}

#[tokio::test]
async fn a_line_belongs_to_the_request_whose_end_is_not_marked_yet() {
    let cursors = cursors();
    let (mut bench, mut worker) = (Bench::new(&cursors), FakeWorker::new());
    bench.introduce(1, &worker);
    assert_eq!(told(&mut bench, line(1, 0, "before the first")), None);
    worker.begin(true, Duration::ZERO);
    assert_eq!(told(&mut bench, line(1, 0, "in the first")), Some(1));
    let late = line(1, 0, "read late");
    worker.end(&EndScalars::default(), b"");
    worker.begin(false, Duration::ZERO);
    // Its record has not been read yet; the second runs.
    assert_eq!(told(&mut bench, late), Some(1));
    assert_eq!(told(&mut bench, line(1, 1, "in the second")), Some(2));
    assert_eq!(told(&mut bench, line(1, 7, "with forged marks")), Some(2));
    let counted = line(1, 8, "with forged marks, read late");
    worker.end(&EndScalars::default(), b"");
    assert_eq!(told(&mut bench, counted), Some(2));
    assert_eq!(told(&mut bench, line(1, 2, "between two")), None);
    let out = WorkerLine {
        stream: OutputStream::Stdout,
        ..line(1, 0, "standard output")
    };
    assert_eq!(told(&mut bench, out), Some(2));
    bench.finish().await;
}

#[tokio::test]
async fn a_line_waits_for_its_worker_to_be_introduced_and_not_for_ever() {
    let cursors = cursors();
    let (mut bench, mut worker) = (Bench::new(&cursors), FakeWorker::new());
    worker.begin(true, Duration::ZERO);
    bench.observer.on_line(line(1, 0, "early"));
    assert_eq!(last(&bench), None);
    bench.introduce(1, &worker);
    bench.tick();
    assert_eq!(last(&bench), Some(("early".to_owned(), Some(1))));
    bench.observer.on_line(line(9, 0, "of nobody"));
    bench.observer.flush_lines(monotonic_ns() + 2 * HOLD_NS);
    assert_eq!(last(&bench), Some(("of nobody".to_owned(), None)));
    for n in 0..2 * MOST_EARLY {
        bench.observer.on_line(line(9, 0, &format!("{n}")));
    }
    assert_eq!(bench.observer.lines.early.len(), MOST_EARLY);
    bench.finish().await;
}

#[tokio::test]
async fn a_message_in_parts_is_told_when_it_is_complete_and_drops_are_counted() {
    let cursors = cursors();
    let (mut bench, mut worker) = (Bench::new(&cursors), FakeWorker::new());
    bench.introduce(1, &worker);
    worker.begin(true, Duration::ZERO);
    for text in [
        "NOTICE: PHP message: PHP Fatal error:  Uncaught E: x in /a:1",
        "Stack trace:",
        "#0 {main}",
    ] {
        bench.observer.on_line(line(1, 0, text));
    }
    assert_eq!(last(&bench), None);
    let dropped = WorkerLine {
        dropped: 12,
        ..line(1, 0, "")
    };
    bench.observer.on_line(dropped);
    let (message, request) = last(&bench).expect("is complete");
    assert_eq!(
        message,
        "PHP Fatal error:  Uncaught E: x in /a:1\nStack trace:\n#0 {main}"
    );
    assert_eq!(request, Some(1));
    let (console, log, _) = bench.finish().await;
    assert!(console.contains("Uncaught E: x"), "{console}");
    assert!(
        log.contains("[pool www] 12 lines of its workers are in the error log only"),
        "{log}"
    );
}
