use std::io::{Read, Seek};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde_json::Value;

use super::*;
use crate::export::otlp::Spans;
use crate::options::{FileDefaults, Limits, Options};
use crate::resource::{Runtime, resource};
use crate::semconv::Conventions;
use crate::span::server_span;
use crate::span::tests::{end, facts};

fn sink(file: Option<File>) -> (JsonLines<Spans>, Lines) {
    let (options, _) = Options::from_env(&std::collections::HashMap::new(), FileDefaults::default());
    let runtime = Runtime {
        php_version: None,
        host_name: None,
        instance_id: "i".to_owned(),
        ..Runtime::default()
    };
    let lines = Lines::start(file).expect("a thread");
    let spans = Spans::new(&resource(&options, &runtime), Limits::default());
    (JsonLines::new(spans, lines.clone()), lines)
}

fn batch() -> Vec<opentelemetry_sdk::trace::SpanData> {
    vec![server_span(&end(), &facts(), &[], &Conventions::default())]
}

fn read(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .expect("reads");
    text
}

/// OTLP 1.11, "JSON Protobuf Encoding": ids in hexadecimal, names in lowerCamelCase, enums as
/// numbers, 64 bits as text.
#[tokio::test]
async fn a_batch_is_one_line_in_the_encoding_of_otlp() {
    let mut file = tempfile::tempfile().expect("a file");
    let (sink, _lines) = sink(Some(file.try_clone().expect("clones")));
    for _ in 0..2 {
        assert_eq!(sink.send(batch()).await, Ok(Sent::default()));
    }
    let text = read(&mut file);
    assert_eq!((text.lines().count(), text.ends_with('\n')), (2, true));
    let line = text.lines().next().expect("two");
    let value: Value = serde_json::from_str(line).expect("is JSON");
    let span = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "11".repeat(16));
    assert_eq!(span["spanId"], "22".repeat(8));
    assert_eq!(span["parentSpanId"], "33".repeat(8));
    assert_eq!(span["kind"], 2);
    assert_eq!(span["startTimeUnixNano"], "1700000000000000001");
    let status = span["attributes"].as_array().and_then(|all| {
        all.iter()
            .find(|attribute| attribute["key"] == "http.response.status_code")
    });
    assert_eq!(status.expect("is there")["value"]["intValue"], "200");
    // What reads it back finds the same request.
    let read: ExportTraceServiceRequest = serde_json::from_str(line).expect("is OTLP/JSON");
    assert_eq!(read, sink.signal.request(batch()));
}

#[tokio::test]
async fn a_full_disk_costs_the_batches_that_meet_it() {
    // "write(2) fails with ENOSPC" (full(4)).
    let full = File::options().append(true).open("/dev/full").expect("opens");
    let (sink, lines) = sink(Some(full));
    for _ in 0..2 {
        let failure = sink.send(batch()).await.expect_err("no space");
        assert!(failure.reason.contains("No space left on device"), "{failure:?}");
    }
    let mut file = tempfile::tempfile().expect("a file");
    lines.replace(file.try_clone().expect("clones"));
    assert_eq!(sink.send(batch()).await, Ok(Sent::default()));
    let text = read(&mut file);
    assert!(text.starts_with('{') && text.lines().count() == 1, "{text}");
}

#[tokio::test]
async fn without_a_file_batches_fail_until_there_is_one() {
    let (sink, lines) = sink(None);
    let failure = sink.send(batch()).await.expect_err("nowhere to write to");
    assert!(failure.reason.contains("could not be opened"), "{failure:?}");
    let mut file = tempfile::tempfile().expect("a file");
    lines.replace(file.try_clone().expect("clones"));
    assert_eq!(sink.send(batch()).await, Ok(Sent::default()));
    assert_eq!(read(&mut file).lines().count(), 1);
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_holds_nobody_up_and_the_lines_behind_it_stay_whole() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let (sink, _lines) = sink(Some(File::from(std::os::fd::OwnedFd::from(writer))));
    let patience = Duration::from_millis(300);
    let mut written = 0;
    // A pipe holds 64 KiB (pipe(7)), a batch is about 3.
    while let Ok(sent) = tokio::time::timeout(patience, sink.send(batch())).await {
        assert_eq!(sent, Ok(Sent::default()));
        written += 1;
        assert!(written < 1000, "the pipe is never full");
    }
    // The thread hangs in the write of one that was given up; those behind wait, and when
    // there is no room for more it is said at once.
    for _ in 0..WAITING {
        assert!(
            tokio::time::timeout(Duration::from_millis(1), sink.send(batch()))
                .await
                .is_err()
        );
    }
    let failure = sink.send(batch()).await.expect_err("there is no room");
    assert_eq!(failure.reason, "the writes before have not ended");
    drop(sink);
    drop(_lines);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("reads to the end");
    // The one in the middle of which it hung was written to its end, those given up were not.
    assert_eq!(text.lines().count(), written + 1);
    assert!(
        text.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
}

#[tokio::test]
async fn batches_of_all_lanes_at_once_are_taken() {
    const ROUNDS: usize = 50;
    let mut file = tempfile::tempfile().expect("a file");
    let (sink, _lines) = sink(Some(file.try_clone().expect("clones")));
    for _ in 0..ROUNDS {
        // Spans, spans of waits, log records, metrics: asked before the thread has its turn.
        let send = || sink.send(batch());
        let sent = tokio::join!(send(), send(), send(), send());
        let good = || Ok(Sent::default());
        assert_eq!(sent, (good(), good(), good(), good()));
    }
    assert_eq!(read(&mut file).lines().count(), 4 * ROUNDS);
}
