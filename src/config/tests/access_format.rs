//! Formats that were also given to php-fpm 8.2, with its answers.

use super::super::DEFAULT_ACCESS_FORMAT;
use super::super::access_format::check;
use super::{Fixture, pool_text};

#[test]
fn formats_that_are_taken() {
    let long = format!("%{{{}}}e", "x".repeat(128));
    let table = [
        DEFAULT_ACCESS_FORMAT,
        "",
        "plain",
        "%%",
        "%C %{total}C %{USER}C %{system}C %{}C",
        "%d %{seconds}d %{milli}d %{mili}d %{milliseconds}d %{miliseconds}d %{micro}d %{microseconds}d",
        "%M %{bytes}M %{kilo}M %{kilobytes}M %{mega}M %{megabytes}M",
        "%f %l %m %n %p %P %q%Q %r %R %s %u %{}p",
        "%t %T %{%H:%M}t %{x}T",
        "%{HTTP_HOST}e %{Content-Type}o %{a}{b}e",
        "ends with %",
        &long,
    ];
    for format in table {
        assert_eq!(check(format), Ok(()), "{format}");
    }
}

#[test]
fn formats_that_are_refused_in_php_fpms_words() {
    let table = [
        ("%Z", "Invalid token in the access.format (%Z)"),
        ("% ", "Invalid token in the access.format (% )"),
        ("%é", "Invalid token in the access.format (%é)"),
        ("%\n", r"Invalid token in the access.format (%\n)"),
        ("%{x} %e", "Invalid token in the access.format (% )"),
        ("%{a}b}e", "Invalid token in the access.format (%b)"),
        ("%{x", "missing closing embrace in the access.format"),
        ("%{", "missing closing embrace in the access.format"),
        ("%{x}p", "embrace is not allowed for modifier %p"),
        ("%{x}%", "embrace is not allowed for modifier %%"),
        ("%{foo}%{bar}e", "embrace is not allowed for modifier %%"),
        (
            "%e",
            "the name of the environment variable must be set between embraces for %e",
        ),
        (
            "%{}e",
            "the name of the environment variable must be set between embraces for %e",
        ),
        ("%o", "the name of the header must be set between embraces for %o"),
        (
            "%{x}C",
            "only 'total', 'user' or 'system' are allowed as a modifier for %C ('x')",
        ),
        (
            "%{mili}d%{x}d",
            "only 'seconds', 'milli', 'milliseconds', 'micro' or 'microseconds' are allowed as a modifier for %d ('x')",
        ),
        (
            "%{giga}M",
            "only 'bytes', 'kilo', 'kilobytes', 'mega' or 'megabytes' are allowed as a modifier for %M ('giga')",
        ),
    ];
    for (format, expected) in table {
        assert_eq!(check(format), Err(expected.to_owned()), "{format}");
    }
    let long = format!("%{{{}}}e", "x".repeat(129));
    assert!(check(&long).is_err_and(|warning| warning.contains("longer than 128 bytes")));
}

#[test]
fn only_a_pool_with_a_log_needs_a_good_format() {
    assert!(Fixture::new(&pool_text("access.format = %Z")).load().is_ok());
    let fixture = Fixture::new("");
    let log = fixture.path("access.log").display().to_string();
    fixture.write(
        "php-fpm.conf",
        pool_text(&format!("access.log = {log}\naccess.format = %Z")),
    );
    let expected = [
        "Warning: Invalid token in the access.format (%Z)",
        "Error: [pool www] wrong format for access.format '%Z'",
        "Error: [php-fpm.conf:6] found 'access.format = %Z'",
        "Error: failed to post process the configuration",
        "Error: FPM initialization failed",
    ];
    assert_eq!(fixture.lines(), expected);
    fixture.write(
        "php-fpm.conf",
        pool_text(&format!("access.log = {log}\naccess.format =")),
    );
    let pool = fixture.load().unwrap().pools.remove(0);
    assert_eq!(
        (pool.access_log, pool.access_format.as_str()),
        (Some(log.into()), "")
    );
    assert!(!fixture.path("access.log").exists(), "looking makes no file");
}
