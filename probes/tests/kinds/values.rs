//! Argument values: which are shown, and what takes them away again.

use std::sync::Arc;

use glasspool_probes::{AllowList, Arguments, Options, Stop};

use super::series::{Series, available};

const SCRIPT: &str = "<?php
class Db {
    function __construct(string $dsn, #[SensitiveParameter] string $password) { login($password, $dsn, 3); }
    function query(string $sql) { file_get('https://bob:hunter2@example.org/a?token=x', 42, [1], 1.5); }
}
function login(#[SensitiveParameter] $password, $dsn, $tries) { (new ReflectionClass('Db'))
    ->newInstanceWithoutConstructor()->query(\"SELECT * FROM users WHERE mail = 'a@b.c' AND id = 7\"); }
function file_get($url, $n, $list, $f) { said(\"a\\x1b[31m\\n\\\"b\", str_repeat('x', 100), null, true); }
function said($text, $long) { echo \"ready\\n\"; fgets(STDIN); }
new Db('mysql:host=db;password=hunter2', 'hunter2');
";

/// The names of the functions with their arguments, outermost last.
fn calls(series: &Series, case: &str, script: &str, ini: &[&str], allowed: &[&str]) -> Vec<String> {
    let php = series.start_with(case, &[("main.php", script)], ini);
    php.wait_asleep();
    let options = Options {
        stop: Stop::Never,
        arguments: Arguments::Values(Arc::new(AllowList::parse(allowed.iter().copied()).unwrap())),
        ..Options::default()
    };
    let sample = php.open().sample(&options).unwrap();
    sample
        .stack
        .frames
        .iter()
        .filter_map(|frame| {
            Some(format!(
                "{}({})",
                frame.qualified_name(),
                frame.arguments.as_ref()?
            ))
        })
        .collect()
}

const ALL: [&str; 15] = [
    "db::Query#1",
    "Db::__construct#1",
    "Db::__construct#2",
    "login#1",
    "login#2",
    "login#3",
    "file_get#1",
    "file_get#2",
    "file_get#3",
    "file_get#4",
    "said#1",
    "said#2",
    "said#3",
    "said#4",
    "fgets#1",
];

#[test]
fn allowed_values_are_shown_redacted_and_sensitive_ones_never() {
    for series in available() {
        // Before PHP 8 the attribute is a comment; then it is nothing that PHP knows of.
        let hidden = |shown: &str| {
            if series.is_at_least("8.0") {
                "SensitiveParameterValue".to_owned()
            } else {
                shown.to_owned()
            }
        };
        let script = if series.is_at_least("8.0") {
            SCRIPT.to_owned()
        } else {
            SCRIPT.replace("#[SensitiveParameter]", "")
        };
        let calls = calls(
            &series,
            "allowed",
            &script,
            &["zend.exception_ignore_args=0"],
            &ALL,
        );
        assert_eq!(
            calls[1..6],
            [
                "said(text: \"a\\u{1b}[31m\\n\\\"b\", long: \"".to_owned()
                    + &"x".repeat(64)
                    + "\"…, null, true)",
                "file_get(url: \"https://…@example.org/a?token=…\", n: 42, list: array(1), f: 1.5)"
                    .to_owned(),
                "Db::query(sql: \"SELECT * FROM users WHERE mail = ? AND id = ?\")".to_owned(),
                format!(
                    "login(password: {}, dsn: \"mysql:host=db;password=…\", tries: 3)",
                    hidden("\"hunter2\"")
                ),
                format!(
                    "Db::__construct(dsn: \"mysql:host=db;password=…\", password: {})",
                    hidden("\"hunter2\"")
                ),
            ],
            "PHP {}",
            series.name
        );
    }
}

#[test]
fn nothing_is_shown_that_is_not_listed() {
    for series in available() {
        let calls = calls(
            &series,
            "unlisted",
            SCRIPT.replace("#[SensitiveParameter]", "").as_str(),
            &["zend.exception_ignore_args=0"],
            &["login#3", "Other::query#1", "query#1", "said#9"],
        );
        assert_eq!(calls[1], "said(text: string(9), long: string(100), null, bool)");
        assert_eq!(calls[3], "Db::query(sql: string(51))");
        assert_eq!(calls[4], "login(password: string(7), dsn: string(30), tries: 3)");
    }
}

#[test]
fn the_processs_own_configuration_takes_all_values_away() {
    for series in available() {
        let script = SCRIPT.replace("#[SensitiveParameter]", "");
        let calls = calls(
            &series,
            "ignored",
            &script,
            &["zend.exception_ignore_args=1"],
            &ALL,
        );
        assert_eq!(calls[3], "Db::query(sql: string(51))", "PHP {}", series.name);
        assert!(!calls.concat().contains("hunter2"), "{calls:?}");
    }
}
