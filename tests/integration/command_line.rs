//! The program itself, called as php-fpm: exit statuses, what goes where, daemons.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{exists, kill};
use crate::site::{Running, Site, text};

#[test]
fn usage_is_on_standard_output_and_wrong_arguments_are_64() {
    let site = Site::new();
    for (argument, code) in [
        ("-h", 0),
        ("--usage", 0),
        ("--memory-limit=1G", 64),
        ("positional", 64),
    ] {
        let ran = Command::new(site.path("php-fpm"))
            .arg(argument)
            .output()
            .expect("starts");
        assert_eq!(ran.status.code(), Some(code), "{argument}");
        assert!(
            text(&ran.stdout).starts_with("Usage: php-fpm [-n] "),
            "{argument}"
        );
        assert!(ran.stderr.is_empty(), "{argument}: {}", text(&ran.stderr));
    }
}

#[test]
fn a_test_of_the_configuration_says_so_in_both_places_and_opens_the_logs() {
    let site = Site::with("", "access.log = $pool.access.log");
    let ran = site.run(&["-t", "-p", &site.folder().display().to_string()]);
    let conf = site.path("fpm.conf").display().to_string();
    let expected = format!("NOTICE: configuration file {conf} test is successful\n\n");
    assert_eq!(ran.status.code(), Some(0));
    let said = text(&ran.stderr);
    assert!(said.ends_with(&expected), "{said}");
    assert_eq!(site.log(), said);
    assert!(ran.stdout.is_empty());
    assert!(site.path("www.access.log").exists() && !site.path("php.sock").exists());
    // In the foreground, standard error can have it alone.
    fs::remove_file(site.path("error.log")).expect("removes");
    let ran = site.run(&["-tt", "-F", "-O"]);
    assert_eq!((ran.status.code(), site.log().as_str()), (Some(0), ""));
    let said = text(&ran.stderr);
    let lines: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once("] "))
        .map(|(_, line)| line)
        .collect();
    assert_eq!(lines.first(), Some(&"NOTICE: [global]"));
    for line in [
        "NOTICE: \tlog_limit = 1024",
        "NOTICE: [www]",
        "NOTICE: \tpm = static",
    ] {
        assert!(lines.contains(&line), "no {line:?} in {said}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_reader_that_has_gone_is_none() {
    let glasspool = || Command::new(env!("CARGO_BIN_EXE_glasspool"));
    for arguments in [&["completion", "bash"][..], &["--help"], &["--version"]] {
        let full = fs::File::options().write(true).open("/dev/full");
        let mut command = glasspool();
        command.args(arguments).stdout(full.expect("opens"));
        let ran = command.stderr(Stdio::piped()).output().expect("starts");
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}");
        let said = text(&ran.stderr);
        assert!(
            said.starts_with("glasspool: cannot write to standard output: "),
            "{said}"
        );
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = glasspool()
            .args(arguments)
            .stdout(writer)
            .output()
            .expect("starts");
        assert_eq!(ran.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn a_configuration_that_is_wrong_is_78_and_said_in_php_fpms_words() {
    let site = Site::with("", "pm.max_children = 0");
    for arguments in [&["-t"][..], &["-F"], &["-D"]] {
        fs::write(site.path("error.log"), "").expect("empties");
        let ran = site.run(arguments);
        assert_eq!(ran.status.code(), Some(78), "{arguments:?}");
        let said = text(&ran.stderr);
        assert!(said.contains("ALERT: [pool www] "), "{said}");
        assert!(said.ends_with("] ERROR: FPM initialization failed\n"), "{said}");
        // Found out after the log was known, so it is there as well.
        assert_eq!(site.log(), said);
    }
    let broken = Site::with("log_limit = 64", "");
    let ran = broken.run(&["-F", "-O"]);
    assert_eq!(ran.status.code(), Some(78));
    assert!(text(&ran.stderr).contains("ERROR: log_limit must be greater than 512\n"));
    let nowhere = Site::with("error_log = /nonexistent/log", "");
    let said = text(&nowhere.run(&["-t"]).stderr);
    let expected = "ERROR: failed to open error_log (/nonexistent/log): No such file or directory (2)\n";
    assert!(said.contains(expected), "{said}");
    let many = Site::with("rlimit_files = 2147483647", "");
    let ran = many.run(&["-F", "-O"]);
    let said = text(&ran.stderr);
    assert!(said.contains("setrlimit(RLIMIT_NOFILE, 2147483647): "), "{said}");
    assert_eq!(ran.status.code(), Some(78));
}

#[test]
fn a_daemon_that_cannot_start_makes_its_launcher_fail() {
    let site = Site::new();
    fs::write(site.path("glasspool.toml"), "[php]\nbinary = \"/bin/true\"\n").expect("writes");
    let ran = site.run(&["-D"]);
    assert_eq!(ran.status.code(), Some(70));
    let said = text(&ran.stderr);
    assert!(said.contains("ERROR: /bin/true cannot host the engine"), "{said}");
    assert!(said.ends_with("] ERROR: FPM initialization failed\n"), "{said}");
    assert_eq!(site.log(), said);
    assert!(!site.path("pid").exists());
    // In the foreground it is the machine's fault, as in php-fpm.
    assert_eq!(site.run(&["-F"]).status.code(), Some(78));
}

/// php-fpm lets go of its standard output, so what is written there goes nowhere.
#[test]
fn what_the_console_exporter_would_write_to_nowhere_is_told() {
    let site = Site::new();
    let toml = "[php]\nbinary = \"/bin/true\"\n[otel]\ntraces = \"console\"\n";
    fs::write(site.path("glasspool.toml"), toml).expect("writes");
    let warning = "WARNING: nothing will be seen of traces: the exporters `console` and `otlp/stdout` write to standard output";
    let says_so = |said: &str| said.lines().filter(|line| line.contains(warning)).count();
    for arguments in [&["-F", "-O"][..], &["-F"], &["-D"]] {
        let said = text(&site.run(arguments).stderr);
        assert_eq!(says_so(&said), 1, "{arguments:?}: {said}");
    }
    // With `-O` standard error has it alone.
    assert_eq!(says_so(&site.log()), 2, "{}", site.log());
    // `run` keeps it.
    let run = |output: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
        command.args(["run", "-R", "-O", "-y"]).arg(site.path("fpm.conf"));
        let ran = command.stdout(output).stderr(Stdio::piped()).output();
        text(&ran.expect("starts").stderr)
    };
    assert_eq!(says_so(&run(Stdio::piped())), 0);
    assert_eq!(says_so(&run(Stdio::null())), 1);
}

#[test]
fn php_says_what_it_is() {
    let site = Site::new();
    if !site.has_php() {
        return;
    }
    let ask = |arguments: &[&str]| {
        let ran = Command::new(site.path("php-fpm"))
            .args(arguments)
            .output()
            .expect("starts");
        assert_eq!(ran.status.code(), Some(0), "{arguments:?}: {}", text(&ran.stderr));
        text(&ran.stdout)
    };
    for arguments in [&["-v"][..], &["-n", "-v"], &["-dmemory-limit=1G", "-v"]] {
        let version = ask(arguments);
        let mut lines = version.lines();
        let first = lines.next().expect("has one");
        assert!(
            first.starts_with("PHP ") && first.contains(" (fpm-fcgi) (built: "),
            "{version}"
        );
        assert_eq!(lines.next(), Some("Copyright (c) The PHP Group"), "{version}");
    }
    let modules = ask(&["-m"]);
    let (php, zend) = modules
        .strip_prefix("[PHP Modules]\n")
        .and_then(|rest| rest.split_once("\n\n[Zend Modules]\n"))
        .unwrap_or_else(|| panic!("{modules}"));
    let names: Vec<String> = php.lines().map(str::to_lowercase).collect();
    assert!(
        names.contains(&"standard".to_owned()) && names.is_sorted(),
        "{php}"
    );
    assert!(zend.ends_with('\n'));
    assert!(ask(&["-i"]).starts_with("phpinfo()\nPHP Version => "));
}

#[test]
fn a_daemon_is_up_when_its_launcher_returns_and_lets_go_of_its_streams() {
    let site = Site::new();
    if !site.has_php() {
        return;
    }
    // `output` returns when nobody holds the streams any more.
    let launched = site.run(&["-D"]);
    assert_eq!(launched.status.code(), Some(0), "{}", text(&launched.stderr));
    assert!(launched.stdout.is_empty() && launched.stderr.is_empty());
    let pid = site.pid();
    let log = site.log();
    assert!(
        log.contains(&format!("NOTICE: fpm is running, pid {pid}\n")),
        "{log}"
    );
    assert!(log.contains("NOTICE: ready to handle connections\n"), "{log}");
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("reads");
    let title = format!("php-fpm: master process ({})\0", site.path("fpm.conf").display());
    assert_eq!((read("cmdline"), read("comm").trim_end()), (title, "php-fpm"));
    // Leader of a session of its own: fields 4 to 6 of proc_pid_stat(5) are parent, group, session.
    let stat = read("stat");
    let (_, fields) = stat.rsplit_once(") ").expect("has a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    assert_eq!(fields[3], pid.to_string());
    kill(pid, Signal::TERM);
    site.wait_for("the daemon's end", |_| !exists(pid));
    assert!(site.log().contains("NOTICE: exiting, bye-bye!\n"));
    assert!(!site.path("pid").exists() && !site.path("php.sock").exists());
}

#[test]
fn in_the_foreground_start_lines_are_seen_and_later_ones_are_in_the_log() {
    let site = Site::new();
    if !site.has_php() {
        return;
    }
    let mut running = Running(
        site.command(&["-F"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts"),
    );
    site.wait_for("the start", |site| {
        site.log().contains("ready to handle connections")
    });
    assert_eq!(site.pid(), running.pid());
    kill(running.pid(), Signal::TERM);
    assert_eq!(running.ends(), Some(0));
    let mut said = String::new();
    let mut stderr = running.0.stderr.take().expect("is piped");
    stderr.read_to_string(&mut said).expect("reads");
    assert_eq!(said, "");
}

/// A log that nobody reads stops nothing, and what it lost is told when it flows again.
#[test]
fn a_stalled_fifo_as_error_log_holds_up_nobody() {
    let site = Site::with("log_level = debug", "");
    if !site.has_php() {
        return;
    }
    let fifo = site.path("error.log");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("starts");
    assert!(made.success());
    // Filled to the brim before the program starts, and never read while it runs.
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&fifo)
        .expect("opens");
    let chunk = [b'x'; 4096];
    while reader.write(&chunk).is_ok() {}
    let mut running = Running(
        site.command(&["-F"])
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("starts"),
    );
    // It starts, and does what it is asked to.
    let pid = running.pid().to_string();
    site.wait_for("a reload", |_| {
        let asked = Command::new(env!("CARGO_BIN_EXE_glasspool"))
            .args(["reload", &pid])
            .output();
        asked.expect("starts").status.success()
    });
    let mut everything = Vec::new();
    let mut drain = |reader: &mut fs::File| {
        let mut buffer = [0; 65536];
        while let Ok(count) = reader.read(&mut buffer) {
            everything.extend(&buffer[..count]);
        }
        text(&everything)
    };
    drain(&mut reader);
    kill(running.pid(), Signal::TERM);
    assert_eq!(running.ends(), Some(0));
    let log = drain(&mut reader);
    assert!(
        log.contains(" lines of this log were not taken and are lost: "),
        "{}",
        log.trim_matches('x')
    );
    assert!(log.contains("exiting, bye-bye!"));
}

#[test]
fn a_reload_can_be_asked_for_and_says_whether_it_worked() {
    let site = Site::new();
    if !site.has_php() {
        return;
    }
    let mut running = Running(
        site.command(&["-F"])
            .stderr(Stdio::null())
            .spawn()
            .expect("starts"),
    );
    let ready = "NOTICE: ready to handle connections\n";
    site.wait_for("the start", |site| site.log().contains(ready));
    let reload = || {
        Command::new(env!("CARGO_BIN_EXE_glasspool"))
            .args(["reload", "-y"])
            .arg(site.path("fpm.conf"))
            .output()
            .expect("starts")
    };
    let reloaded = reload();
    assert_eq!(
        reloaded.status.code(),
        Some(0),
        "{}\n{}",
        text(&reloaded.stderr),
        site.log()
    );
    assert_eq!(site.log().matches(ready).count(), 2, "{}", site.log());
    assert_eq!(site.pid(), running.pid());

    let conf = fs::read_to_string(site.path("fpm.conf")).expect("reads");
    fs::write(
        site.path("fpm.conf"),
        conf.replace("max_children = 1", "max_children = none"),
    )
    .expect("writes");
    let refused = reload();
    // The file cannot be read to find the pid file either.
    assert_eq!(refused.status.code(), Some(1));
    let by_pid = Command::new(env!("CARGO_BIN_EXE_glasspool"))
        .args(["reload", &running.pid().to_string()])
        .output()
        .expect("starts");
    assert_eq!(by_pid.status.code(), Some(1));
    let said = text(&by_pid.stderr);
    assert!(
        said.contains("ERROR: the reload failed and everything goes on as it was: "),
        "{said}"
    );
    assert!(said.contains("max_children"), "{said}");
    kill(running.pid(), Signal::TERM);
    assert_eq!(running.ends(), Some(0));
}
