//! Requests through the hosted engine.

use crate::harness::{Engine, params, pool, with};

#[test]
fn hello() {
    let mut engine = Engine::start(pool());
    let mut worker = engine.spawn();
    let script = engine.script(
        "hello.php",
        "<?php echo 'hello ', php_sapi_name(), ' ', getmypid();",
    );
    let response = engine.get(&script);
    if !response.ended {
        eprintln!("{response:?} {:?} {}", worker.wait(), engine.log());
    }
    assert_eq!(response.body(), format!("hello fpm-fcgi {}", worker.pid));
    assert_eq!(response.head(), "Content-type: text/html; charset=UTF-8");
    assert!(response.ended);
    assert_eq!(response.stderr, b"");
    let record = &worker.records(1)[0];
    assert_eq!(record.status, 200);
    let _ = (params(&script), with(params(&script), "a", "b"));
}
