//! A real extension that crashes, in a real pool: what is left of the request, and of
//! the process.

mod core_file;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use glasspool_abi::control::CRASH_PATIENCE;
use rustix::process::Signal;
use serde_json::Value;

use crate::collector::{Collector, each, text};
use crate::fastcgi::{ask, script};
use crate::harness::{Supervised, launch, skipped};

/// The script that crashes; each call is on a line of its own.
const PAGE: &str = "<?php
class Order
{
    function total($crash) {
        return $crash();
    }
}
function page($crash) {
    return (new Order)->total($crash);
}
echo page(basename($_SERVER['REQUEST_URI']));
";

/// The extension of `tests/fixtures`, built with PHP's own tools.
fn extension() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/segfault-extension");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("segfault-extension");
    fs::create_dir_all(&folder).expect("makes a folder");
    let object = folder.join("modules/segfault.so");
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    // Tests that need it run at the same time.
    let turn = File::create(folder.join("lock")).expect("creates");
    rustix::fs::flock(&turn, rustix::fs::FlockOperation::LockExclusive).expect("locks");
    let files = ["config.m4", "segfault.c"];
    let newest = files.iter().filter_map(|file| changed(&source.join(file))).max();
    if changed(&object) > newest {
        return object;
    }
    for file in files {
        fs::copy(source.join(file), folder.join(file)).expect("copies");
    }
    let php_config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config8.2".to_owned());
    let phpize = php_config.replace("php-config", "phpize");
    let configure = format!("./configure --with-php-config={php_config}");
    for command in [phpize.as_str(), &configure, "make"] {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(&folder)
            .output()
            .expect("starts");
        assert!(
            output.status.success(),
            "{command}: {} (`make deps` installs what it needs)\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    object
}

/// A pool of one worker whose PHP has the extension.
struct Site {
    supervised: Supervised,
    collector: Collector,
}

impl Site {
    /// With further lines for the pool, if PHP and an engine object for it are here; else
    /// that is noted.
    fn start(pool: &str) -> Option<Site> {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).expect("sets");
        let shown = at.display();
        let write = |name: &str, text: &str| fs::write(at.join(name), text).expect("writes");
        write(
            "fpm.conf",
            &format!(
                "[global]\nerror_log = {shown}/error.log\npid = {shown}/pid\n\
                 [www]\nlisten = {shown}/sock\nlisten.mode = 0666\nuser = nobody\n\
                 pm = static\npm.max_children = 1\nchdir = {shown}\n\
                 request_slowlog_timeout = 60s\nslowlog = {shown}/slow.log\n{pool}\n"
            ),
        );
        let define = format!("[php]\ndefine = [\"extension={}\"]\n", extension().display());
        write("glasspool.toml", &define);
        write("page.php", PAGE);
        let glasspool = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
            command.args(arguments).arg(at.join("fpm.conf"));
            command
        };
        let checked = glasspool(&["check", "-R", "-y"]).output().expect("starts");
        if !checked.status.success() {
            let why = String::from_utf8_lossy(&checked.stderr).into_owned();
            skipped(&format!("an extension that crashes: {}", why.trim()));
            return None;
        }
        let collector = Collector::start(at);
        let mut command = glasspool(&["-F", "-O", "-R", "-y"]);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let mut supervised = launch(folder, command);
        supervised.wait_for("ready to handle connections");
        Some(Site {
            supervised,
            collector,
        })
    }

    /// Asks for the page that calls this function.
    fn call(&self, function: &str) -> std::io::Result<String> {
        let uri = format!("/{function}");
        let path = self.supervised.path("page.php");
        let mut request = script(path.to_str().expect("text"));
        request[3].1 = &uri;
        ask(&self.supervised.path("sock"), &request)
    }

    /// Ends it, and gives the spans of the requests for that page.
    fn stop(&mut self, function: &str) -> Vec<Value> {
        self.supervised.signal(Signal::TERM);
        self.supervised.wait_for_end();
        let uri = format!("/{function}");
        let mut spans = self.collector.spans();
        spans.retain(|span| text(span, "url.path") == Some(&uri));
        spans
    }
}

/// Has the function crash until that is looked at in time, which takes some
/// milliseconds but on a machine that is very busy.
fn crash_and_be_seen(function: &str) -> Option<Site> {
    for _ in 0..5 {
        let site = Site::start("rlimit_core = 0")?;
        let start = Instant::now();
        let answer = site.call(function);
        assert!(answer.is_err(), "{function}: {answer:?}");
        if start.elapsed() < CRASH_PATIENCE {
            return Some(site);
        }
    }
    panic!("{function}: nobody tells workers within {CRASH_PATIENCE:?} that they were looked at");
}

#[test]
fn a_crash_is_told_with_its_php_stack() {
    for (function, signal, name) in [
        ("segfault_read_null", 11, "SIGSEGV"),
        ("segfault_smash", 11, "SIGSEGV"),
        ("segfault_abort", 6, "SIGABRT"),
    ] {
        let Some(mut site) = crash_and_be_seen(function) else {
            return;
        };
        let line = site.supervised.wait_for("exited on signal");
        let said = format!("exited on signal {signal} ({name}) after ");
        assert!(line.contains(&said), "{function}: {line}");
        let page = site.supervised.path("page.php").display().to_string();
        let spans = site.stop(function);
        let log = fs::read_to_string(site.supervised.path("slow.log")).expect("reads");
        let [span] = spans.as_slice() else {
            panic!("{function}: {spans:#?}")
        };
        assert_eq!(span["status"]["code"], "STATUS_CODE_ERROR", "{span:#}");
        assert_eq!(text(span, "error.type"), Some(name), "{span:#}");
        let mut events = each(span, "events").filter(|event| event["name"] == "php.request.crashed");
        let event = events.next().unwrap_or_else(|| panic!("no event in {span:#}"));
        assert!(events.next().is_none(), "{span:#}");
        assert_eq!(text(event, "code.function.name"), Some(function), "{event:#}");
        let stack = format!(
            "#0 {page}(5): {function}()\n#1 {page}(9): Order->total()\n#2 {page}(11): page()\n#3 {{main}}"
        );
        assert_eq!(text(event, "code.stacktrace"), Some(&*stack), "{event:#}");
        for said in [
            format!("reason = {name}\n"),
            format!("] {function}() {page}:5\n"),
            format!("] Order->total() {page}:9\n"),
        ] {
            assert!(log.contains(&said), "{said:?} is not in {log}");
        }
    }
}

#[test]
fn a_crash_leaves_a_core_of_where_it_happened() {
    let Some(mut site) = Site::start("rlimit_core = unlimited\nprocess.dumpable = yes") else {
        return;
    };
    let core_name = core_file::name();
    if let Err(why) = &core_name {
        skipped(&format!("the core of a worker that crashed: {why}"));
    }
    let dumped = if core_name.is_ok() { " - core dumped" } else { "" };
    for (function, signal, name, file) in [
        ("segfault_read_null", 11, "SIGSEGV", "segfault.so"),
        // Its return address leads nowhere when it returns.
        ("segfault_smash", 11, "SIGSEGV", "segfault.so"),
        // Within abort(3).
        ("segfault_abort", 6, "SIGABRT", "libc.so.6"),
    ] {
        let answer = site.call(function);
        assert!(answer.is_err(), "{function}: {answer:?}");
        let line = site.supervised.wait_for("exited on signal");
        let said = format!("exited on signal {signal} ({name}{dumped}");
        assert!(line.contains(&said), "{function}: {line}");
        let Ok(core_name) = &core_name else { continue };
        let core = core_file::take(&site.supervised.path(""), core_name);
        assert_eq!(
            (i32::from(core.signal), core.info[0]),
            (signal, signal),
            "{function}: {core:?}"
        );
        let of = core.file.as_deref().and_then(|path| Path::new(path).file_name());
        assert_eq!(of, Some(OsStr::new(file)), "{function}: {core:?}");
        // The code of a fault is the kernel's own, that of abort(3) a thread's.
        assert_eq!(core.info[1] > 0, signal == 11, "{function}: {core:?}");
    }
}

#[test]
fn a_process_that_the_application_forks_may_crash() {
    let Some(mut site) = Site::start("rlimit_core = 0") else {
        return;
    };
    for _ in 0..2 {
        let answer = site.call("segfault_in_child").expect("is answered");
        assert_eq!(answer, "11", "the child's signal");
    }
    let spans = site.stop("segfault_in_child");
    let log = &site.supervised.log;
    let of_death = |line: &String| line.contains("] child ") && line.contains(" exited ");
    assert!(!log.iter().any(of_death), "{log:#?}");
    let failed = spans.iter().filter(|span| text(span, "error.type").is_some());
    assert_eq!((spans.len(), failed.count()), (2, 0), "{spans:#?}");
}

#[test]
fn a_crash_after_the_last_request_is_not_that_requests() {
    let Some(mut site) = Site::start("rlimit_core = 0\npm.max_requests = 1") else {
        return;
    };
    site.call("segfault_at_exit").expect("is answered");
    let line = site.supervised.wait_for("exited ");
    assert!(line.contains("exited on signal 11 (SIGSEGV) after "), "{line}");
    let spans = site.stop("segfault_at_exit");
    let [span] = spans.as_slice() else {
        panic!("{spans:#?}")
    };
    assert_eq!(text(span, "error.type"), None, "{span:#}");
}
