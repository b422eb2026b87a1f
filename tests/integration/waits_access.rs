//! Where the time of a request went, on its line of the access log: with PHP and the kernel
//! programs.

use std::cell::Cell;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fastcgi::ask;
use crate::waits_spans::{Watched, number};

/// Sleeps before its line is written, and after that.
const NAP: &str = "<?php
register_shutdown_function(function () { usleep(50000); });
usleep(100000);
";

/// All codes that stand for times or numbers, after how long the request took.
const FORMAT: &str = "[logs]
access_format = \"%{micro}d %{on_cpu}x %{runqueue}x %{blocked}x %{blocked_network}x %{blocked_disk}x \
    %{blocked_lock}x %{blocked_sleep}x %{blocked_pipe}x %{blocked_other}x %{queue_time}x %{waits}x\"
";

#[test]
fn a_line_of_the_access_log_can_say_where_the_time_went() {
    let lines = "access.log = ROOT/access.log";
    let Some(watched) = Watched::with(FORMAT, lines, &[("nap.php", NAP)]) else {
        return;
    };
    let script = watched.stand.path("nap.php");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let queued_since = format!("t={}", now.as_micros() - 2_000_000);
    let asked = Cell::new(0);
    // The worker may get its first requests before the kernel watches it.
    let line = watched.wait_for("line with times", |watched| {
        asked.set(asked.get() + 1);
        let uri = format!("/nap/{}", asked.get());
        let params = [
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_FILENAME", script.to_str().expect("text")),
            ("SCRIPT_NAME", &uri),
            ("REQUEST_URI", &uri),
            ("REQUEST_START", &queued_since),
        ];
        ask(&watched.stand.path("socket"), &params).expect("is answered");
        let log =
            fs::read_to_string(watched.stand.path("access.log")).expect("was written before the answer");
        log.lines()
            .nth(asked.get() - 1)
            .filter(|line| !line.contains('-'))
            .map(str::to_owned)
    });
    let words: Vec<&str> = line.split(' ').collect();
    let us: Vec<u64> = words[1..11]
        .iter()
        .map(|word| word.replace('.', "").parse().expect("seconds with six digits"))
        .collect();
    let whole: u64 = words[0].parse().expect("microseconds");
    // Each part is cut to microseconds by itself.
    let parts: u64 = us[..3].iter().sum();
    assert!((whole - 3..=whole).contains(&parts), "{line}");
    let blocked: u64 = us[3..9].iter().sum();
    assert!((us[2] - 6..=us[2]).contains(&blocked), "{line}");
    let slept = us[6];
    assert!(slept > 99_000, "{line}");
    assert!(us[9] >= 2_000_000, "since {queued_since}: {line}");
    assert!(words[11].parse::<u64>().expect("a number") >= 1, "{line}");
    // What shutdown functions do is on the span alone.
    let span = watched.request(&format!("/nap/{}", asked.get()));
    let in_all = number(&span, "php.blocked.sleep").expect("is known");
    #[expect(clippy::cast_precision_loss, reason = "is below a minute")]
    let after = in_all - slept as f64 / 1e6;
    assert!(after > 0.049, "{after} s after {line}: {span:#}");
}
