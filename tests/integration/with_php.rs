//! What only PHP itself can show: pools with a PHP of their own, reloads that must not
//! go through, and what is left when the supervisor is killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::fastcgi::{ask, script};
use crate::harness::{Supervised, exists, skipped, start_glasspool, wait_until};

const SERVING: &str = "ready to handle connections";

/// A folder with a configuration and scripts, open to the pools' users.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new(global: &str, pools: &[(&str, &str)]) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("sets");
        let site = Site { folder };
        site.configure(global, pools);
        site.write(
            "test.php",
            "<?php echo ini_get('precision'), ' ', get_current_user(), ' ', posix_geteuid();",
        );
        site.write(
            "sleep.php",
            "<?php touch(__DIR__ . '/started'); usleep(700000); echo 'slept';",
        );
        site
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("writes");
        path.to_str().expect("text").to_owned()
    }

    fn configure(&self, global: &str, pools: &[(&str, &str)]) {
        configure(self.folder.path(), global, pools);
    }

    /// Starts it, if PHP and an engine object for it are here; else that is noted.
    fn start(self) -> Option<Supervised> {
        let checked = Command::new(env!("CARGO_BIN_EXE_glasspool"))
            .args(["check", "-R", "-y"])
            .arg(self.folder.path().join("fpm.conf"))
            .output()
            .expect("starts");
        if !checked.status.success() {
            let reason = String::from_utf8_lossy(&checked.stderr);
            skipped(&format!("supervisor with PHP: {reason}"));
            return None;
        }
        let mut supervised = start_glasspool(self.folder);
        supervised.wait_for(SERVING);
        Some(supervised)
    }
}

fn configure(folder: &Path, global: &str, pools: &[(&str, &str)]) {
    let shown = folder.display();
    let mut conf =
        format!("[global]\nerror_log = {shown}/error.log\npid = {shown}/pid\nlog_level = debug\n{global}\n");
    for (name, more) in pools {
        conf.push_str(&format!(
            "[{name}]\nlisten = {shown}/{name}.sock\nlisten.mode = 0666\nuser = nobody\n\
             pm = static\npm.max_children = 2\n{more}\n"
        ));
    }
    fs::write(folder.join("fpm.conf"), conf).expect("writes");
}

impl Supervised {
    fn run(&self, pool: &str, name: &str) -> std::io::Result<String> {
        let path = self.path(name);
        ask(
            &self.path(&format!("{pool}.sock")),
            &script(path.to_str().expect("text")),
        )
    }

    /// Sends USR2 and returns the line that says how it went.
    fn reload_now(&mut self) -> String {
        self.signal(Signal::USR2);
        self.wait_for("Reloading in progress ...");
        loop {
            let line = self.wait_for("");
            if line.contains("reload failed: ") || line.contains(SERVING) {
                return line;
            }
        }
    }
}

#[test]
fn pools_have_a_php_ini_a_user_and_an_engine_of_their_own() {
    let root = rustix::process::geteuid().is_root();
    let site = Site::new(
        "",
        &[
            ("one", ""),
            ("two", if root { "user = www-data" } else { "" }),
            ("three", ""),
        ],
    );
    let ini = site.write("own.ini", "precision = 5\n");
    site.write(
        "glasspool.toml",
        &format!("[pool.two.php]\nini = \"{ini}\"\n[pool.three.php]\ndefine = [\"precision=6\"]\n"),
    );
    let Some(mut supervised) = site.start() else {
        return;
    };
    let (one, two) = (
        supervised.run("one", "test.php"),
        supervised.run("two", "test.php"),
    );
    let (one, two) = (one.expect("is answered"), two.expect("is answered"));
    assert!(one.starts_with("14 "), "{one}");
    assert!(two.starts_with("5 "), "{two}");
    let three = supervised.run("three", "test.php").expect("is answered");
    assert!(three.starts_with("6 "), "{three}");
    if root {
        let uid = |answer: &str| answer.rsplit(' ').next().map(str::to_owned);
        assert_ne!(uid(&one), uid(&two));
    }
    // A reload reads that php.ini again, for that pool alone.
    fs::write(supervised.path("own.ini"), "precision = 7\n").expect("writes");
    assert!(supervised.reload_now().contains(SERVING));
    let answers = |supervised: &Supervised| {
        ["one", "two", "three"].map(|pool| supervised.run(pool, "test.php").expect("is answered"))
    };
    wait_until("the new php.ini is in force", || {
        answers(&supervised)[1].starts_with("7 ")
    });
    let answers = answers(&supervised);
    assert!(
        answers[0].starts_with("14 ") && answers[2].starts_with("6 "),
        "{answers:?}"
    );
}

#[test]
fn a_php_that_does_not_work_never_takes_over() {
    let Some(mut supervised) = Site::new("", &[("www", "")]).start() else {
        return;
    };
    let shared_object = |name: &str, source: &str| {
        let (c, so) = (
            supervised.path(&format!("{name}.c")),
            supervised.path(&format!("{name}.so")),
        );
        fs::write(&c, source).expect("writes");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wl,-z,nodelete", "-o"])
            .arg(&so)
            .arg(&c)
            .status();
        assert!(compiled.expect("a C compiler").success());
        so.display().to_string()
    };
    let at_start = shared_object(
        "start",
        "#include <signal.h>\nvoid *get_module(void) { raise(SIGSEGV); return 0; }\n",
    );
    let at_fork = shared_object(
        "fork",
        "#include <pthread.h>\n#include <signal.h>\nstatic void crash(void) { raise(SIGSEGV); }\n\
         __attribute__((constructor)) static void watch(void) { pthread_atfork(0, 0, crash); }\n",
    );
    let preload = supervised.path("preload.php");
    fs::write(&preload, "<?php throw new Exception('not today');").expect("writes");
    let preload = format!("opcache.preload={}", preload.display());
    let toml = supervised.path("glasspool.toml");
    for (define, reason) in [
        (
            vec![format!("extension={at_start}")],
            "its process exited on signal 11 (SIGSEGV",
        ),
        (vec![preload, "opcache.preload_user=nobody".to_owned()], "PHP in "),
        (
            vec![format!("extension={at_fork}")],
            "[pool www] a worker that was tried with one request failed",
        ),
    ] {
        fs::write(&toml, format!("[php]\ndefine = {define:?}\n")).expect("writes");
        let line = supervised.reload_now();
        assert!(
            line.contains("reload failed: ") && line.contains(reason),
            "{reason:?} is not in {line:?}"
        );
        supervised.run("www", "test.php").expect("is answered");
    }
    fs::remove_file(&toml).expect("removes");
    configure(
        supervised.path("").as_path(),
        "no_such_directive = 1",
        &[("www", "")],
    );
    let line = supervised.reload_now();
    assert!(
        line.contains("reload failed: the configuration is refused"),
        "{line}"
    );
    configure(supervised.path("").as_path(), "", &[("www", ""), ("more", "")]);
    assert!(supervised.reload_now().contains(SERVING));
    supervised.run("more", "test.php").expect("is answered");
}

/// Whether nobody accepts on the pool's socket any more.
fn is_deserted(supervised: &Supervised) -> bool {
    std::os::unix::net::UnixStream::connect(supervised.path("www.sock")).is_err()
}

#[test]
fn nobody_serves_on_when_the_supervisor_is_killed() {
    let Some(mut supervised) = Site::new("", &[("www", "catch_workers_output = yes")]).start() else {
        return;
    };
    let others: Vec<i32> = supervised.all_children();
    assert_eq!(others.len(), 4, "an engine, an observer and two workers");
    let (socket, path) = (supervised.path("www.sock"), supervised.path("sleep.php"));
    let busy = std::thread::spawn(move || ask(&socket, &script(path.to_str().expect("text"))));
    wait_until("one worker is busy", || supervised.path("started").exists());
    supervised.signal(Signal::KILL);
    supervised.wait_for_end();
    let answer = busy.join().expect("ends");
    assert_eq!(answer.expect("the request under way is answered"), "slept");
    wait_until("the socket is closed", || is_deserted(&supervised));
    wait_until("all processes are gone", || {
        !others.iter().any(|pid| exists(*pid))
    });
}

#[test]
fn workers_that_are_just_starting_do_not_outlive_a_killed_supervisor() {
    for millis in [0, 2, 5, 10, 20, 40, 80] {
        let site = Site::new("", &[("www", "pm.max_children = 16")]);
        let folder = site.folder.path().to_path_buf();
        let Some(mut supervised) = site.start() else {
            return;
        };
        // Every worker is replaced.
        configure(&folder, "", &[("www", "pm.max_children = 17")]);
        supervised.signal(Signal::USR2);
        supervised.wait_for("reloading: execvp");
        std::thread::park_timeout(Duration::from_millis(millis));
        let children = supervised.all_children();
        supervised.signal(Signal::KILL);
        wait_until("the socket is closed", || is_deserted(&supervised));
        wait_until("all processes are gone", || {
            !children.iter().any(|pid| exists(*pid))
        });
    }
}

/// What is promised is 40 MB for both, what they share with their file on the disk and with
/// other programs included. This is what is theirs alone, also in a debug build.
#[test]
fn supervisor_and_observer_stay_small_when_stacks_are_read() {
    const MOST_KB: u64 = 20_000;
    let pages = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if pages.contains("[always]") {
        return skipped("memory of supervisor and observer: this kernel gives 2 MiB for every page");
    }
    let site = Site::new("", &[("www", "slowlog = /dev/null\nrequest_slowlog_timeout = 1")]);
    let sleeper = site.write("slow.php", "<?php sleep(2); echo 'slept';");
    let Some(mut supervised) = site.start() else {
        return;
    };
    let answer = ask(&supervised.path("www.sock"), &script(&sleeper));
    assert_eq!(answer.expect("answers"), "slept");
    supervised.wait_for("executing too slow");
    let observer = supervised.children(Some("observer"));
    assert_eq!(observer.len(), 1);
    let own = [supervised.pid(), observer[0]].map(anonymous_kb);
    assert!(
        own.iter().sum::<u64>() < MOST_KB,
        "supervisor and observer: {own:?} kB"
    );
}

/// Memory that is of no file (proc_pid_status(5)).
fn anonymous_kb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kb = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kb.expect("a line of Linux 4.5").parse().expect("a number")
}

impl Supervised {
    /// All that the supervisor has started.
    fn all_children(&self) -> Vec<i32> {
        let pid = fs::read_to_string(self.path("pid")).expect("reads");
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("reads");
        let pids = children.split_ascii_whitespace();
        pids.map(|pid| pid.parse().expect("a pid")).collect()
    }
}
