//! The table of offsets against the headers of each PHP that is here: a C program that
//! has every value of the table in a `_Static_assert` compiles, or names the wrong one.
//!
//! Needs a C compiler and the headers of PHP 8.2, which `make deps` installs; those of
//! other versions in the root directories that `GLASSPOOL_PHP_ROOTS` names.

#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use glasspool_probes::php::layouts;

/// One assertion per row.
fn program(minor: (u32, u32)) -> String {
    let mut text = "#include <stddef.h>
#include <php.h>
#include <SAPI.h>
#include <zend_compile.h>
#include <zend_generators.h>
#include <zend_globals.h>
#include <zend_objects_API.h>
#if PHP_VERSION_ID >= 80000
#include <zend_attributes.h>
#endif
#if PHP_VERSION_ID >= 80100
#include <zend_fibers.h>
#endif
"
    .to_owned();
    for (name, value) in layouts::rows(minor) {
        let Some(value) = value else { continue };
        let what = match (name.strip_prefix("sizeof "), name.split_once('.')) {
            (Some(type_name), _) => format!("sizeof({type_name})"),
            (None, Some((type_name, member))) => format!("offsetof({type_name}, {member})"),
            (None, None) => panic!("{name} names nothing"),
        };
        writeln!(text, "_Static_assert({what} == {value}, \"{name}\");").unwrap();
    }
    let api = layouts::api_of(minor).unwrap();
    writeln!(text, "_Static_assert(ZEND_MODULE_API_NO == {api}, \"API\");").unwrap();
    text
}

/// Where the headers of a version are: of the machine's own PHP 8.2, or of a root.
fn headers(minor: (u32, u32)) -> Option<PathBuf> {
    let series = format!("{}.{}", minor.0, minor.1);
    let api = layouts::api_of(minor)?.to_string();
    let roots = std::env::var_os("GLASSPOOL_PHP_ROOTS").map(PathBuf::from);
    let root = roots.map_or_else(|| PathBuf::from("/"), |roots| roots.join(series));
    [root.join("usr/include/php"), PathBuf::from("/usr/include/php")]
        .into_iter()
        .map(|headers| headers.join(&api))
        .find(|headers| headers.join("main/php.h").exists())
}

fn compiles(text: &str, headers: &std::path::Path) -> Result<(), String> {
    let mut compiler = Command::new("cc")
        .args(["-fsyntax-only", "-x", "c", "-"])
        .args(["", "main", "Zend", "TSRM"].map(|part| format!("-I{}", headers.join(part).display())))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("needs a C compiler: run `make deps`");
    compiler.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn every_value_is_what_the_headers_say() {
    let mut missing = Vec::new();
    for minor in [(7, 4), (8, 2), (8, 4), (8, 5)] {
        let Some(headers) = headers(minor) else {
            assert_ne!(minor, (8, 2), "needs the headers of PHP 8.2: run `make deps`");
            missing.push(format!("{}.{}", minor.0, minor.1));
            continue;
        };
        let text = program(minor);
        assert!(text.lines().count() > 60, "{text}");
        compiles(&text, &headers).unwrap_or_else(|error| panic!("PHP {minor:?}: {error}"));
        // The assertions can fail.
        let wrong = text.replacen(" == ", " == 1 + ", 1);
        assert!(
            compiles(&wrong, &headers)
                .unwrap_err()
                .contains("static assertion failed")
        );
    }
    if let (false, Some(file)) = (missing.is_empty(), std::env::var_os("GLASSPOOL_SKIPS")) {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file)
            .unwrap();
        writeln!(file, "live_layouts: no headers of PHP {}", missing.join(", ")).unwrap();
    }
}
