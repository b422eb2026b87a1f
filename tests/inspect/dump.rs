use glasspool::inspect::run_dump;

use crate::php::{Fpm, Script};
use crate::run;

const NESTED: &str = r#"<?php
class Repo {
    public function find(int $id): void {
        Waiter::hold($id);
    }
}
class Waiter {
    public static function hold(int $id): void {
        (function () { sleep(300); })();
    }
}
echo "ready\n";
(new Repo)->find(7);
"#;

#[test]
fn a_script_with_a_known_stack() {
    let script = Script::start(NESTED);
    script.wait_until_asleep();
    let ran = run(run_dump, &script.pid().to_string());
    ran.expect_code(0);
    let file = script.file();
    let text = ran.text();
    let (head, rest) = text.split_once('\n').unwrap();
    let (pid, what) = head.split_once(", ").unwrap();
    assert_eq!(pid, format!("process {}", script.pid()));
    assert!(
        what.starts_with("PHP 8.2.") && what.contains(", waiting, "),
        "{text}"
    );
    let (wait, frames) = rest.split_once('\n').unwrap();
    assert!(wait.contains(" in clock_nanosleep"), "{text}");
    assert_eq!(
        frames,
        format!(
            "  #0 sleep()\n  #1 Waiter::{{closure}}() {file}:9\n  #2 Waiter::hold() {file}:9\n  \
             #3 Repo->find() {file}:4\n  #4 {{main}} {file}:13\n"
        )
    );
}

#[test]
fn types_of_arguments_are_shown_when_asked_for() {
    let script = Script::start(NESTED);
    script.wait_until_asleep();
    let ran = run(run_dump, &format!("{} --args types --limit 3", script.pid()));
    let text = ran.text();
    assert!(
        text.contains("#0 sleep(int)") || text.contains("#0 sleep(seconds: int)"),
        "{text}"
    );
    assert!(text.contains("callers further out are left out"), "{text}");
    assert!(!text.contains("300"), "no values: {text}");
}

#[test]
fn c_functions_are_woven_between_php_frames() {
    let script = Script::start(NESTED);
    script.wait_until_asleep();
    let ran = run(run_dump, &format!("{} --native", script.pid()));
    ran.expect_code(0);
    let text = ran.text();
    let at = |part: &str| {
        text.find(part)
            .unwrap_or_else(|| panic!("{part} is not in {text}"))
    };
    assert!(at("nanosleep") < at("#0 sleep()"), "{text}");
    assert!(at("#0 sleep()") < at("#4 {main}"), "{text}");
    assert!(at("#4 {main}") < at("_start"), "{text}");
}

#[test]
fn a_pool_that_hangs_in_one_place_is_one_group() {
    const WORKERS: u32 = 20;
    let mut fpm = Fpm::start(WORKERS);
    let script = fpm.script(
        "stuck.php",
        "<?php\nfunction stuck() {\n    sleep(300);\n}\nstuck();\n",
    );
    for number in 0..WORKERS {
        fpm.request(&script, &format!("/report?token=secret{number}"));
    }
    fpm.wait_until_asleep(WORKERS as usize, "230");
    let pool = &fpm.pool;
    let ran = run(run_dump, pool);
    ran.expect_code(0);
    let text = ran.text();
    assert!(
        text.starts_with(&format!("{WORKERS} processes of pool {pool}, PHP 8.2.")),
        "{text}"
    );
    assert!(
        text.lines().next().unwrap().contains(", waiting: GET /report"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    let place = script.display();
    let frames = format!("  #0 sleep()\n  #1 stuck() {place}:3\n  #2 {{main}} {place}:5\n");
    assert!(text.ends_with(&frames), "{text}");
    let mut pids: Vec<String> = fpm.workers().iter().map(ToString::to_string).collect();
    pids.sort_by_key(|pid| pid.parse::<u32>().unwrap());
    assert_eq!(text.lines().nth(1).unwrap().trim(), pids.join(", "));

    let json = run(run_dump, &format!("{pool} --json"));
    let value: serde_json::Value = serde_json::from_slice(&json.out).unwrap();
    assert_eq!(value["groups"].as_array().unwrap().len(), 1);
    assert_eq!(value["processes"].as_array().unwrap().len(), WORKERS as usize);
    assert_eq!(value["processes"][0]["request"]["path"], "/report");

    let singly = run(run_dump, &format!("{pool} --no-group"));
    assert_eq!(singly.text().matches("#0 sleep()").count(), WORKERS as usize);
    let everything = run(run_dump, "all");
    assert!(
        everything
            .text()
            .contains(&format!("{WORKERS} processes of pool {pool}")),
        "{}",
        everything.text()
    );
}

#[test]
fn idle_workers_have_no_request_and_no_frames() {
    let fpm = Fpm::start(2);
    fpm.wait_until_asleep(2, "43");
    let ran = run(run_dump, &fpm.pool);
    ran.expect_code(0);
    let text = ran.text();
    assert!(
        text.starts_with(&format!("2 processes of pool {}, PHP 8.2.", fpm.pool)),
        "{text}"
    );
    assert!(text.lines().next().unwrap().ends_with(", idle"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_shown() {
    let script = Script::start(NESTED);
    script.wait_until_asleep();
    let ran = run(
        run_dump,
        &format!("{} {} no-such-pool", script.pid(), std::process::id()),
    );
    ran.expect_code(1);
    assert!(ran.text().contains("Repo->find()"));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    assert!(ran.err.contains("`php-fpm: pool no-such-pool`"), "{}", ran.err);
    assert!(ran.err.contains("is not a PHP process"), "{}", ran.err);
}
