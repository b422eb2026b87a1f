use std::io::Write;
use std::net::TcpListener;

use glasspool::inspect::run_waits;

use crate::php::{Fpm, Script};
use crate::run;

/// Whether the kernel programs can be loaded here; if not, the command has said why, and
/// the reason goes where `make test` counts it.
fn available(said: &str) -> bool {
    let Some((_, why)) = said.split_once("cannot watch waits: ") else {
        return true;
    };
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let written = file.and_then(|mut file| file.write_all(format!("waits: {why}").as_bytes()));
        written.expect("the list of skips can be written");
    }
    false
}

#[test]
fn lines_that_wait_are_told_of_stock_php_fpm_and_of_a_script() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut fpm = Fpm::start(2);
    let page = fpm.script(
        "slow.php",
        &format!(
            "<?php\nfunction ask() {{ $c = stream_context_create(['http' => ['timeout' => 0.2]]);\n\
             return @file_get_contents('http://{address}/', false, $c); }}\nwhile (true) ask();"
        ),
    );
    fpm.request(&page, "/slow");
    let script = Script::start("<?php echo \"ready\\n\";\nwhile (true) usleep(20000);");
    let ran = run(run_waits, &format!("{} {} --seconds 2", fpm.pool, script.pid()));
    if !available(&ran.err) {
        ran.expect_code(1);
        return;
    }
    ran.expect_code(0);
    let text = ran.text();
    assert!(text.starts_with("3 processes, 2."), "{text}");
    let network = text
        .lines()
        .find(|line| line.contains("network"))
        .unwrap_or_default();
    assert!(
        network.contains(&address.to_string()) && network.ends_with("file_get_contents() < ask() slow.php:3"),
        "{text}"
    );
    let sleeps = text
        .lines()
        .find(|line| line.ends_with("usleep() < {main} script.php:2"));
    let count = sleeps.and_then(|line| line.split_whitespace().find_map(|word| word.parse::<u32>().ok()));
    assert!(count.is_some_and(|count| count > 20), "{text}");
}

#[test]
fn stacks_that_wait_are_lines_and_a_picture() {
    let script =
        Script::start("<?php function nap() { usleep(20000); }\necho \"ready\\n\";\nwhile (true) nap();");
    let ran = run(
        run_waits,
        &format!("{} --seconds 1 --format folded", script.pid()),
    );
    if !available(&ran.err) {
        return;
    }
    ran.expect_code(0);
    let text = ran.text();
    let line = text.lines().find(|line| line.contains(";nap;usleep;[sleep] "));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(line.starts_with("php;{main} "), "{text}");
    let (_, microseconds) = line.rsplit_once(' ').unwrap();
    let microseconds: u64 = microseconds.parse().unwrap();
    assert!((300_000..=1_500_000).contains(&microseconds), "{text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let words = format!(
        "{} --seconds 1 --format flamegraph -o {}",
        script.pid(),
        file.path().display()
    );
    run(run_waits, &words).expect_code(0);
    let picture = std::fs::read_to_string(file.path()).unwrap();
    assert!(
        picture.contains("<title>nap (") && picture.contains(" us, "),
        "{picture}"
    );
}
