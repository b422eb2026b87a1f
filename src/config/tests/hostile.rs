//! Includes, bounds, and input that nobody meant well.

use proptest::prelude::*;

use super::super::LogLevel;
use super::super::effective::Environment;
use super::super::ini::parse_line;
use super::{Fixture, pool_text};

#[test]
fn includes_are_globbed_in_order_and_the_section_goes_on() {
    let mut fixture = Fixture::new("include = pool.d/*.conf\nlisten.backlog = 5");
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    fixture.write(
        "pool.d/b.conf",
        pool_text("[b]\nlisten = 2\npm = static\npm.max_children = 1"),
    );
    fixture.write(
        "pool.d/a.conf",
        "[a]\nlisten = 1\npm = static\npm.max_children = 1\n",
    );
    fixture.write("pool.d/.hidden.conf", "nonsense");
    fixture.write("pool.d/old.conf.bak", "nonsense");
    std::fs::create_dir(fixture.path("pool.d/dir.conf")).unwrap();
    let pools = fixture.load().unwrap().pools;
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["a", "www", "b"]);
    assert_eq!(pools[2].backlog, super::super::Backlog::Connections(5));
    fixture.write("pool.d/b.conf", "\n\nnonsense = 1");
    assert!(
        fixture
            .refusal()
            .starts_with("[pool.d/b.conf:3] unknown entry 'nonsense'")
    );
}

#[test]
fn an_include_that_finds_nothing() {
    let fixture = Fixture::new(&pool_text(""));
    let root = fixture.directory.path().display().to_string();
    fixture.write("php-fpm.conf", pool_text(&format!("include = {root}/*.none")));
    let notices = fixture.load().unwrap().notices;
    let expected =
        format!("Nothing matches the include pattern '{root}/*.none' from {root}/php-fpm.conf at line 5.");
    assert_eq!(
        (notices[0].level, notices[0].text.as_str()),
        (LogLevel::Warning, expected.as_str())
    );
    fixture.write(
        "php-fpm.conf",
        pool_text(&format!("include = {root}/none/*.conf")),
    );
    assert_eq!(
        fixture.refusal(),
        "[php-fpm.conf:5] Unable to globalize 'none/*.conf' (ret=2) from php-fpm.conf at line 5. (allowed are patterns in directories that can be read)"
    );
    fixture.write("php-fpm.conf", "include = \"/a/***\"");
    assert!(fixture.refusal().contains("is not a valid glob"));
}

#[test]
fn an_include_of_itself_ends() {
    let mut fixture = Fixture::new("include = php-fpm.conf\ninclude = php-fpm.conf");
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    assert_eq!(
        fixture.refusal(),
        "[php-fpm.conf:1] failed to include more than 5 files recursively (a file that includes itself is one too many)"
    );
}

#[test]
fn five_files_deep_and_no_more() {
    let mut fixture = Fixture::new("include = 2.conf");
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    fixture.write("2.conf", "include = 3.conf");
    fixture.write("3.conf", "include = 4.conf");
    fixture.write("4.conf", "include = 5.conf");
    fixture.write("5.conf", pool_text("include = 6*.conf"));
    assert!(fixture.load().is_ok(), "the sixth does not exist");
    fixture.write("6.conf", "");
    let expected = [
        "Error: failed to include more than 5 files recursively",
        "Error: [5.conf:5] a file that includes itself is one too many",
        "Error: Unable to include 6.conf from 5.conf at line 5",
        "Error: Unable to include 5.conf from 4.conf at line 1",
        "Error: Unable to include 4.conf from 3.conf at line 1",
        "Error: Unable to include 3.conf from 2.conf at line 1",
        "Error: Unable to include 2.conf from php-fpm.conf at line 1",
        "Error: failed to load configuration file 'php-fpm.conf'",
        "Error: FPM initialization failed",
    ];
    assert_eq!(fixture.lines(), expected);
}

#[test]
fn includes_that_cannot_be_read() {
    let mut fixture = Fixture::new(&pool_text("include = pool.d/*.conf"));
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    std::fs::create_dir(fixture.path("pool.d")).unwrap();
    std::os::unix::fs::symlink("nowhere", fixture.path("pool.d/a.conf")).unwrap();
    let expected = [
        "Error: failed to open configuration file 'pool.d/a.conf': No such file or directory (2)",
        "Error: [php-fpm.conf:5] the mistake is here",
        "Error: Unable to include pool.d/a.conf from php-fpm.conf at line 5",
    ];
    assert_eq!(fixture.lines()[..3], expected);
    // A link to itself is found by reading the folder, and no reading of it ever ends.
    fixture.write("php-fpm.conf", pool_text("include = loop/*/x.conf"));
    std::fs::create_dir(fixture.path("loop")).unwrap();
    std::os::unix::fs::symlink("a", fixture.path("loop/a")).unwrap();
    assert!(fixture.load().is_ok());
}

#[test]
fn includes_are_counted() {
    let mut fixture = Fixture::new(&"include = many/*\n".repeat(300));
    fixture.prefix = Some(fixture.directory.path().to_path_buf());
    for number in 0..256 {
        fixture.write(&format!("many/{number}"), "");
    }
    let refused = fixture.refusal();
    assert!(
        refused.ends_with("] more than 65536 files are included"),
        "{refused}"
    );
}

#[test]
fn lines_that_are_not_text() {
    let table: [(&[u8], &str); 4] = [
        (
            b"[www]\nlis\0ten = 1",
            "[php-fpm.conf:2] line contains a NUL byte; configuration files are text",
        ),
        (
            b"\0\0\0\0",
            "[php-fpm.conf:1] line contains a NUL byte; configuration files are text",
        ),
        (
            b"[www]\nuser = caf\xe9",
            "[php-fpm.conf:2] line is not valid UTF-8 at byte 10",
        ),
        (b"\x7fELF\x02\x01\x01", "[php-fpm.conf:1] syntax error: found"),
    ];
    for (text, expected) in table {
        let fixture = Fixture::new("");
        fixture.write("php-fpm.conf", text);
        assert!(fixture.refusal().starts_with(expected), "{}", fixture.refusal());
    }
    for filler in ["x", "[", "(", "${", "\"", "; ", "include = "] {
        let long = format!("[www]\nlisten = {}", filler.repeat((1 << 20) / filler.len()));
        assert_eq!(
            Fixture::new(&long).refusal(),
            "[php-fpm.conf:2] line is longer than 65536 bytes"
        );
    }
}

#[test]
fn files_are_bounded_and_line_ends_may_be_dos() {
    let mut big = pool_text("").into_bytes();
    big.resize(17 * 1024 * 1024, b'\n');
    let fixture = Fixture::new("");
    fixture.write("php-fpm.conf", big);
    assert!(
        fixture
            .refusal()
            .contains("file is larger than the 16777216 bytes allowed")
    );
    fixture.write(
        "php-fpm.conf",
        pool_text("listen.mode = 0600").replace('\n', "\r\n"),
    );
    assert!(fixture.load().is_ok());
    std::fs::remove_file(fixture.path("php-fpm.conf")).unwrap();
    assert_eq!(
        fixture.refusal(),
        "failed to open configuration file 'php-fpm.conf': No such file or directory (2)"
    );
}

#[test]
fn found_text_cannot_forge_log_lines() {
    let message = super::pool_refusal(&format!("pm = \"a\r{}\"", "b".repeat(5000)));
    assert!(message.contains(r"a\r") && message.len() < 500, "{message}");
}

/// Lines made mostly of the dialect's own characters reach further than random text.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("listen".to_owned()),
        Just("pm".to_owned()),
        Just("env".to_owned()),
        Just("yes".to_owned()),
        Just("E_ALL".to_owned()),
        Just("${SPACED}".to_owned()),
        Just("$pool".to_owned()),
        "[ \t\\[\\]=;\"'$\\{\\}|&^~!()\\\\:.0-9a-zé-]{0,4}",
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(fault) = parse_line(&bytes, &Environment::new()) {
            prop_assert_eq!(fault.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn no_line_panics_and_every_refusal_is_one_line(line in line()) {
        let environment = Environment::from([("SPACED".to_owned(), "a\nb".to_owned())]);
        if let Err(fault) = parse_line(line.as_bytes(), &environment) {
            prop_assert_eq!(fault.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn quoting_keeps_any_text(text in "[^\0\n\r]{0,60}") {
        // The inverse of the double quotes: this is what the messages' advice "quote the value" promises.
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        prop_assume!(!text.contains("${"));
        let line = format!("a = \"{quoted}\"");
        let parsed = parse_line(line.as_bytes(), &Environment::new()).map_err(|fault| fault.to_string());
        let expected = super::super::ini::Statement::Scalar { name: "a".into(), value: text };
        prop_assert_eq!(parsed, Ok(Some(expected)));
    }

    #[test]
    fn no_file_panics(lines in prop::collection::vec(line(), 0..8), overlay in "[\\[\\]a-z.=\" 0-9\n]{0,80}") {
        let fixture = Fixture::new(&pool_text(&lines.join("\n")));
        fixture.write("glasspool.toml", overlay);
        if let Err(refused) = fixture.load() {
            prop_assert_eq!(refused.to_string().lines().count(), 1);
        }
    }
}
