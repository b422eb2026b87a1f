//! `glasspool tail` with a real pool: what it shows, whom it refuses, and what a reader
//! that does not read costs.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stand::{Stand, hex};

const POOL: &str = "catch_workers_output = yes\nslowlog = ROOT/slow.log\nphp_admin_flag[log_errors] = on";
const SLOW: &str = "[slow]\nafter = \"100ms\"\n";

fn json(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect()
}

#[test]
fn everything_of_a_pool_is_shown_as_it_happens_and_afterwards() {
    let Some(stand) = Stand::start(POOL, SLOW) else {
        return;
    };
    stand.write("ok.php", "<?php echo 'ok';");
    stand.write("missing.php", "<?php http_response_code(404); echo 'no';");
    stand.write("broken.php", "<?php throw new Exception('broken');");
    stand.write(
        "slow.php",
        "<?php function wait() { usleep(400000); } wait(); echo 'slept';",
    );
    let live = stand.tail(&["--json"]);
    // A reader is there when he has seen something.
    stand.wait_for("the first entry", || {
        stand.run("ok.php", "/first");
        let (shown, _, fine) = stand.tail_once(&["--path", "/first"]);
        (fine && !shown.is_empty()).then_some(())
    });
    live.wait_for("/first");
    stand.run("missing.php", "/missing");
    stand.run("broken.php", "/broken");
    stand.run("slow.php", "/slow");
    let missing: Value = serde_json::from_str(&live.wait_for("\"/missing\"")).expect("is JSON");
    assert_eq!(
        (missing["kind"].as_str(), missing["status"].as_u64()),
        (Some("request"), Some(404))
    );
    assert_eq!(missing["trace_id"], hex(&stand.span("/missing")["traceId"]));
    let line: Value = serde_json::from_str(&live.wait_for("\"kind\":\"line\"")).expect("is JSON");
    assert_eq!(
        (line["kind"].as_str(), line["severity"].as_str()),
        (Some("line"), Some("ERROR"))
    );
    assert_eq!(line["trace_id"], hex(&stand.span("/broken")["traceId"]));
    let look: Value = serde_json::from_str(&live.wait_for("\"kind\":\"slow\"")).expect("is JSON");
    assert!(
        look["message"]
            .as_str()
            .is_some_and(|text| text.contains("usleep")),
        "{look}"
    );
    let slow: Value = serde_json::from_str(&live.wait_for("\"kind\":\"request\"")).expect("is JSON");
    assert_eq!(
        (slow["path"].as_str(), slow["slow"].as_bool()),
        (Some("/slow"), Some(true))
    );

    let paths = |arguments: &[&str]| -> Vec<String> {
        let arguments = [&["--json", "-n", "1000"], arguments].concat();
        let (shown, err, fine) = stand.tail_once(&arguments);
        assert!(fine, "{err}");
        let entries = json(&shown);
        let requests = entries.iter().filter(|entry| entry["kind"] == "request");
        requests
            .map(|entry| entry["path"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(paths(&["--status", "404"]), ["/missing"]);
    assert_eq!(paths(&["--status", "5xx"]), ["/broken"]);
    assert_eq!(paths(&["--slow"]), ["/slow"]);
    assert_eq!(paths(&["--path", "/m*g"]), ["/missing"]);
    assert_eq!(
        paths(&["--trace", slow["trace_id"].as_str().expect("has one")]),
        ["/slow"]
    );
    assert_eq!(paths(&["--grep", "/bro.en"]), ["/broken"]);
    assert_eq!(paths(&["--pool", "other"]), Vec::<String>::new());
    assert_eq!(paths(&["--worker", "1"]), Vec::<String>::new());
    let pid = slow["pid"].to_string();
    assert!(paths(&["--worker", &pid]).len() >= 4);
    let (shown, _, _) = stand.tail_once(&["-n", "1", "--status", "404"]);
    assert!(
        shown.contains(" www ") && shown.contains(" 404 GET /missing "),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn a_reader_that_does_not_read_delays_nobody_and_is_told_what_he_missed() {
    let toml = "[observer]\nhistory_bytes = 65536\n";
    let Some(stand) = Stand::start(POOL, toml) else {
        return;
    };
    stand.write("ok.php", "<?php echo 'ok';");
    let mut stuck = stand.tail(&["--json"]);
    stand.wait_for("the first entry", || {
        stand.run("ok.php", "/first");
        let (shown, _, _) = stand.tail_once(&["--path", "/first"]);
        (!shown.is_empty()).then_some(())
    });
    stuck.wait_for("/first");
    let pid = i32::try_from(stuck.process.id()).expect("a pid");
    crate::harness::kill(pid, rustix::process::Signal::STOP);
    let other = stand.tail(&[]);
    let began = Instant::now();
    for n in 0..3000 {
        stand.run("ok.php", &format!("/many-{n}"));
    }
    let took = began.elapsed();
    other.wait_for("/many-2999 ");
    assert!(took < Duration::from_secs(60), "{took:?}");
    crate::harness::kill(pid, rustix::process::Signal::CONT);
    let missed: Value = serde_json::from_str(&stuck.wait_for("\"missed\"")).expect("is JSON");
    assert_eq!(missed["kind"], "missed");
    assert!(
        missed["missed"].as_u64().is_some_and(|count| count > 0),
        "{missed}"
    );
    stuck.wait_for("/many-2999");
    assert!(stuck.process.try_wait().expect("waits").is_none());
    // What is kept has its bound: 64 KiB are not three thousand requests.
    let (shown, _, _) = stand.tail_once(&["-n", "100000", "--json"]);
    let kept = shown.lines().count();
    assert!((50..600).contains(&kept), "{kept}");
}

#[test]
fn there_are_so_many_readers_and_the_next_is_told() {
    let Some(stand) = Stand::start(POOL, "") else {
        return;
    };
    stand.write("ok.php", "<?php echo 'ok';");
    let readers: Vec<_> = (0..32).map(|_| stand.tail(&["-n", "100"])).collect();
    stand.run("ok.php", "/one");
    for reader in &readers {
        reader.wait_for("/one");
    }
    let (_, err, fine) = stand.tail_once(&[]);
    assert!(!fine && err.contains("32 readers are here already"), "{err}");
    drop(readers);
    // Places of those who are gone are free again.
    stand.wait_for("a free place", || stand.tail_once(&[]).2.then_some(()));
}

#[test]
fn only_the_supervisors_own_user_reads_and_a_history_can_be_off() {
    let Some(stand) = Stand::start(POOL, "[observer]\nhistory_bytes = 0\n") else {
        return;
    };
    let (_, err, fine) = stand.tail_once(&[]);
    assert!(!fine && err.contains("history_bytes"), "{err}");
    if !rustix::process::geteuid().is_root() {
        return crate::harness::skipped("tail as another user: the tests do not run as root");
    }
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_glasspool"))
        .args(["tail", &stand.pid().to_string(), "--no-follow"])
        .stdin(Stdio::null())
        .output();
    let output = output.expect("setpriv is in util-linux");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        err.contains("only root and the supervisor's own user") || err.contains("Permission denied"),
        "{err}"
    );
}
