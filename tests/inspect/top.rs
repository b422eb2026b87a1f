use glasspool::inspect::run_top;

use crate::php::{Fpm, Script};
use crate::run;

#[test]
fn one_table_of_a_pool_and_a_script() {
    let mut fpm = Fpm::start(2);
    let page = fpm.script("slow.php", "<?php sleep(300);");
    fpm.request(&page, "/slow");
    fpm.wait_until_asleep(1, "230");
    fpm.wait_until_asleep(1, "43");
    let script = Script::start("<?php echo \"ready\\n\"; while (true) { $a[] = 1; unset($a); }");
    let ran = run(run_top, &format!("{} {} --once", fpm.pool, script.pid()));
    ran.expect_code(0);
    let text = ran.text();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["PID", "POOL", "STATE", "AGE", "WAITING", "REQUEST", "DOING"]
    );
    let states: Vec<&str> = rows[1..].iter().map(|row| row[2]).collect();
    assert_eq!(states, ["running", "waiting", "idle"], "{text}");
    assert_eq!(rows[1][0], script.pid().to_string());
    assert!(
        text.lines()
            .nth(2)
            .unwrap()
            .contains("GET /slow  [clock_nanosleep"),
        "{text}"
    );
    assert!(
        text.lines()
            .nth(2)
            .unwrap()
            .contains("sleep() < {main} slow.php:1"),
        "{text}"
    );
}

#[test]
fn a_pool_that_is_not_there_is_an_error() {
    let ran = run(run_top, "no-such-pool --once");
    ran.expect_code(1);
    assert!(ran.err.contains("`php-fpm: pool no-such-pool`"), "{}", ran.err);
    assert!(ran.out.is_empty());
}
