//! What a worker's slot says for the status page.

use glasspool_abi::record::Text;
use glasspool_abi::slot::Stage;

use crate::harness::{Engine, params, pool, read_response, send, with};

#[test]
fn a_request_is_under_way_from_its_first_byte_to_its_end() {
    let mut engine = Engine::start(pool());
    let worker = engine.spawn();
    assert_eq!((worker.slot.started(), worker.slot.requests()), (None, 0));
    let script = engine.script("ok.php", "<?php echo str_repeat('x', 3 << 20) ? 'ok' : '';");
    let mut stream = engine.connect();
    worker.until(|slot| slot.stage() == Some(Stage::ReadingHeaders));
    assert_eq!(worker.slot.started(), None, "no byte has come");
    send(
        &mut stream,
        &with(params(&script), "CONTENT_LENGTH", "0"),
        b"",
        true,
    );
    assert_eq!(read_response(&mut stream).body(), "ok");
    worker.until(|slot| slot.last().duration_ns > 0 && slot.stage() == Some(Stage::ReadingHeaders));
    assert_eq!(worker.slot.started(), None, "the next request has not begun");
    let last = worker.slot.last();
    assert!(last.cpu_ns > 0 && last.memory_peak > 3 << 20, "{last:?}");
    assert_eq!(worker.slot.requests(), 1);
    std::io::Write::write_all(&mut stream, &[1]).unwrap();
    worker.until(|slot| slot.started().is_some());
    assert_eq!(worker.slot.stage(), Some(Stage::ReadingHeaders));
    drop(stream);
    worker.until(|slot| slot.stage() == Some(Stage::Accepting));
    assert_eq!(worker.slot.started(), None);
}

#[test]
fn what_the_status_page_shows_of_a_request() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script("ok.php", "<?php echo $_SERVER['PHP_AUTH_USER'] ?? '-';");
    let request = with(params(&script), "REQUEST_METHOD", "POST");
    let request = with(request, "CONTENT_LENGTH", "4");
    let request = with(request, "REQUEST_URI", "/pretty/url");
    let signed = with(request.clone(), "HTTP_AUTHORIZATION", "Basic dXNlcjpwYXNz");
    assert_eq!(engine.request(&signed, b"body").body(), "user");
    let record = worker.records(1).remove(0);
    let text = |kind| record.begin.texts.text(kind).map(|t| t.into_owned());
    assert_eq!(text(Text::Path).as_deref(), Some("/pretty/url"));
    assert_eq!(text(Text::ScriptUri).as_deref(), Some("/ok.php"));
    assert_eq!(text(Text::User).as_deref(), Some("user"));
    assert_eq!(worker.slot.content_length(), 4);
    let shown = worker.slot.read_begin().expect("whole");
    assert_eq!(shown, record.begin);
    assert_eq!(engine.get(&script).body(), "-");
    let record = worker.records(1).remove(0);
    assert_eq!(record.begin.texts.text(Text::ScriptUri), None, "it is the path");
    assert_eq!(record.begin.texts.text(Text::User), None);
    assert_eq!(worker.slot.content_length(), 0);
}
