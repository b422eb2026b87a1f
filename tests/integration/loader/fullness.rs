//! What has no room: records that nobody reads, and workers beyond the pages that there are.
//! Requests do not notice, and what is lacking is told, or counted to the last.

use std::fs;
use std::path::PathBuf;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use super::stand::{Site, TRACED, metric};
use super::{number, requests};
use crate::collector::{Collector, each};
use crate::fastcgi::{ask, script};
use crate::harness::{kill, stop, wait_until};
use crate::prometheus::stand::free_port;

/// Naps of 20 ms, each a wait that is told: also one that begins late, off its CPU. A record with
/// so many frames takes eight kilobytes, and the ring has room for some 120.
const NAP: &str = "<?php
function nap($calls, $naps) {
    if ($calls) return nap($calls - 1, $naps);
    for ($i = 0; $i < $naps; $i++) usleep(20000);
}
";
const MANY: u64 = 150;
const SOME: u64 = 10;
/// More than there are pages.
const WORKERS: usize = 257;
/// Says that it is busy, and is until it may answer.
const HOLD: &str = "<?php
touch(__DIR__ . '/busy-' . getmypid());
while (!file_exists(__DIR__ . '/enough')) usleep(20000);
echo 'held';
";

/// Lets those go that wait for this file, also when the test fails.
struct Enough(PathBuf);

impl Drop for Enough {
    fn drop(&mut self) {
        let _written = fs::write(&self.0, "").is_ok();
    }
}

/// How many naps of a request its span tells, and how many waits it says are lost.
fn told(span: &Value) -> (u64, u64) {
    let attribute = |key: &str| each(span, "attributes").find(|attribute| attribute["key"] == key);
    let lost = attribute("php.waits.lost").and_then(|lost| lost["value"]["intValue"].as_str());
    let lost = lost.map_or(0, |lost| lost.parse().expect("a number"));
    let top = attribute("php.waits.top").map(|top| &top["value"]["arrayValue"]);
    let places = top.into_iter().flat_map(|top| each(top, "values"));
    let mut places = places.map(|place| place["stringValue"].as_str().expect("text"));
    let naps = places.find(|place| place.starts_with("usleep "));
    let naps = naps.and_then(|place| place.rsplit_once(" in "));
    (naps.map_or(0, |(_, naps)| naps.parse().expect("a number")), lost)
}

/// For so many milliseconds something else than its naps blocked a request. Below one, nothing
/// of it is told; and else at most so many waits.
fn otherwise(span: &Value) -> f64 {
    let causes = ["network", "disk", "lock", "pipe", "other"];
    let blocked = causes.map(|cause| number(span, &format!("php.blocked.{cause}")).unwrap_or(0.0));
    blocked.iter().sum::<f64>() * 1e3
}

#[test]
fn a_ring_that_nobody_reads_delays_no_request_and_each_wait_that_it_has_no_room_for_is_counted() {
    let address = free_port();
    let toml = format!("[metrics]\nlisten = \"{address}\"\n[ebpf]\nframes = 32\n");
    let Some(site) = Site::new(&toml) else { return };
    for (name, naps) in [("many.php", MANY), ("some.php", SOME)] {
        let text = format!("{NAP}nap(40, {naps});\necho {naps};\n");
        fs::write(site.folder.path().join(name), text).expect("writes");
    }
    let collector = Collector::start(site.folder.path());
    let Some(mut supervised) = site.start_with_programs(&collector.endpoint()) else {
        return;
    };
    let held = supervised.holds();
    let ring_full = || {
        let name = "php_waits_records_lost_total";
        metric(address, name, "php_loss_reason=\"ring_full\"")
    };
    wait_until("nothing is lost", || ring_full() == Some(0.0));
    let observer = supervised.children(Some("observer"))[0];
    stop(observer);
    assert_eq!(supervised.runs("many.php"), MANY.to_string());
    assert_eq!(supervised.runs("some.php"), SOME.to_string());
    assert_eq!(supervised.children(Some("observer")), [observer]);
    kill(observer, Signal::CONT);
    wait_until("spans of both", || requests(&collector).len() == 2);
    let mut all_lost = 0;
    for span in requests(&collector) {
        let ((naps, lost), otherwise) = (told(&span), otherwise(&span));
        let all = if naps > 0 { MANY } else { SOME };
        let beside = (naps + lost) as f64 - all as f64;
        assert!(
            (0.0..=otherwise).contains(&beside) && lost > 0,
            "{naps} told and {lost} lost, {otherwise} ms otherwise: {span:#}"
        );
        all_lost += lost;
    }
    assert!(
        all_lost > SOME,
        "of the first not all had room, of the second none"
    );
    // The programs count for themselves what the spans add up to.
    wait_until(&format!("{all_lost} records are lost"), || {
        ring_full() == Some(all_lost as f64)
    });
    supervised.wait_for_all(&[&format!(
        "the ring of the kernel programs was full, {all_lost} records are lost"
    )]);
    // There is room again.
    supervised.runs("some.php");
    wait_until("a third span", || requests(&collector).len() == 3);
    let span = requests(&collector).pop().expect("is there");
    assert_eq!(told(&span), (SOME, 0), "{span:#}");
    supervised.signal(Signal::QUIT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    wait_until("the kernel is rid of them", || held.is_gone());
}

#[test]
fn workers_beyond_the_pages_serve_all_the_same() {
    let address = free_port();
    let toml = format!("[metrics]\nlisten = \"{address}\"\n");
    let Some(site) = Site::new(&toml) else { return };
    fs::write(site.folder.path().join("hold.php"), HOLD).expect("writes");
    let Some(mut supervised) = site.start_with_programs(TRACED.1) else {
        return;
    };
    let held = supervised.holds();
    let conf = supervised.path("fpm.conf");
    let text = fs::read_to_string(&conf).expect("reads");
    let more = format!("pm.max_children = {WORKERS}");
    fs::write(&conf, text.replace("pm.max_children = 2", &more)).expect("writes");
    supervised.takes_over(&toml);
    supervised.wait_for_all(&["all 256 pages for the waits of workers are taken, so a worker is without"]);
    assert_eq!(supervised.holds(), held, "nothing was loaded anew");
    // Each worker has a request at the same time.
    let (folder, socket) = (supervised.path(""), supervised.path("sock"));
    let hold = supervised.path("hold.php").display().to_string();
    thread::scope(|scope| {
        let enough = Enough(folder.join("enough"));
        let asked: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| ask(&socket, &script(&hold)).expect("is answered")))
            .collect();
        wait_until("all are busy", || {
            let names = fs::read_dir(&folder).expect("reads").flatten();
            let busy = names.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"busy-"));
            busy.count() == WORKERS
        });
        // Those of the generation before may have had a page for a little longer.
        wait_until("the metrics say how many are without", || {
            let busy = metric(address, "php_workers", "php_worker_state=\"busy\"");
            let watched = metric(address, "php_waits_workers", "php_pool=\"www\"");
            busy == Some(257.0) && watched.is_some_and(|watched| (254.0..257.0).contains(&watched))
        });
        drop(enough);
        for asked in asked {
            assert_eq!(asked.join().expect("does not panic"), "held");
        }
    });
    supervised.signal(Signal::QUIT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    let told = supervised
        .log
        .iter()
        .filter(|line| line.contains("pages for the waits"));
    assert_eq!(told.count(), 1, "not for each: {:#?}", supervised.log);
    wait_until("the kernel is rid of them", || held.is_gone());
}
