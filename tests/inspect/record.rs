use std::fs;

use glasspool::inspect::run_record;

use crate::php::Script;
use crate::run;

/// Half of the time in one function, half asleep in another.
const HALVES: &str = r#"<?php
function compute(float $until): int {
    $n = 0;
    while (microtime(true) < $until) { $n++; }
    return $n;
}
function pause(): void { usleep(50000); }
echo "ready\n";
while (true) {
    compute(microtime(true) + 0.05);
    pause();
}
"#;

fn counts(text: &str) -> Vec<(Vec<&str>, u64)> {
    text.lines()
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').expect("ends in a count");
            (stack.split(';').collect(), count.parse().expect("is a number"))
        })
        .collect()
}

#[test]
fn waiting_and_computing_both_count() {
    let script = Script::start(HALVES);
    let ran = run(
        run_record,
        &format!(
            "{} --seconds 2 --rate 99 --format collapsed --by process",
            script.pid()
        ),
    );
    ran.expect_code(0);
    let text = ran.text();
    let counts = counts(&text);
    let with = |name: &str| -> u64 {
        let has = counts.iter().filter(|(stack, _)| stack.contains(&name));
        has.map(|(_, count)| count).sum()
    };
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    assert!(
        counts
            .iter()
            .all(|(stack, _)| stack[0] == format!("php {}", script.pid())),
        "{text}"
    );
    assert!(
        counts
            .iter()
            .all(|(stack, _)| stack[1] == format!("{{main}} {}", script.file())),
        "{text}"
    );
    // A busy machine may miss ticks; what was seen and what was missed make all of them.
    let missed: u64 = ran
        .err
        .split("; ")
        .nth(1)
        .and_then(|end| end.split(' ').next()?.parse().ok())
        .unwrap();
    assert!(
        (190..=200).contains(&(all + missed)),
        "{all} and {missed}: {}",
        ran.err
    );
    for half in [with("compute"), with("pause")] {
        assert!(half * 5 > all, "{half} of {all}:\n{text}");
    }
    let waits = counts.iter().filter(|(stack, _)| stack.contains(&"usleep"));
    assert!(
        waits
            .clone()
            .any(|(stack, _)| stack.last().is_some_and(|leaf| leaf.contains("nanosleep"))),
        "{text}"
    );
}

#[test]
fn each_format_is_written_to_its_file() {
    let script = Script::start(HALVES);
    let folder = tempfile::tempdir().unwrap();
    for (format, start) in [
        ("flamegraph", b"<?xml".as_slice()),
        ("speedscope", b"{\"$schema\":\"https://www.speedscope.app/"),
        ("pprof", &[0x1f, 0x8b]),
        ("collapsed", b"php;{main} "),
    ] {
        let file = folder.path().join(format);
        let line = format!(
            "{} --seconds 1 --format {format} -o {}",
            script.pid(),
            file.display()
        );
        let ran = run(run_record, &line);
        ran.expect_code(0);
        assert!(ran.out.is_empty());
        let bytes = fs::read(&file).unwrap();
        assert!(
            bytes.starts_with(start),
            "{format}: {:?}",
            &bytes[..20.min(bytes.len())]
        );
    }
}

#[test]
fn a_process_that_ends_ends_the_recording() {
    let script = Script::start("<?php echo \"ready\\n\"; usleep(300000);");
    let ran = run(
        run_record,
        &format!("{} --seconds 600 --format collapsed", script.pid()),
    );
    ran.expect_code(0);
    assert!(ran.text().contains("usleep"), "{}", ran.text());
}

#[test]
fn a_file_that_cannot_be_written_is_said_before_the_time_is_spent() {
    let script = Script::start(HALVES);
    let ran = run(
        run_record,
        &format!("{} --seconds 600 -o /nonexistent/x.svg", script.pid()),
    );
    ran.expect_code(1);
    assert!(
        ran.err.contains("cannot write /nonexistent/x.svg: "),
        "{}",
        ran.err
    );
}
