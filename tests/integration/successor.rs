//! Reloads after our name was given to another program: that one takes over, with the
//! same sockets, if it accepts the configuration.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::fastcgi::ask;
use crate::harness::{Supervised, exists, fake_engine, launch};

const SERVING: &str = "ready to handle connections";

/// Starts the fake engine's supervisor by a link `program` in its folder.
fn start() -> Supervised {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("config"), "pool www 1 worker=serve").expect("writes");
    let link = folder.path().join("program");
    symlink(fake_engine(), &link).expect("links");
    let mut command = Command::new(&link);
    command.arg("reloads").arg(folder.path());
    let mut supervised = launch(folder, command);
    supervised.wait_for(SERVING);
    supervised
}

fn relink(supervised: &Supervised, program: &Path) {
    let link = supervised.path("program");
    fs::remove_file(&link).expect("removes");
    symlink(program, &link).expect("links");
}

fn pid(supervised: &Supervised) -> String {
    fs::read_to_string(supervised.path("pid")).expect("reads")
}

#[test]
fn another_program_takes_over_with_the_sockets() {
    let mut supervised = start();
    let (workers, before) = (supervised.children(Some("worker")), pid(&supervised));
    // Another file, as a package's upgrade leaves it.
    let other = supervised.path("other");
    fs::copy(fake_engine(), &other).expect("copies");
    relink(&supervised, &other);
    let descriptors = Path::new("/proc").join(&before).join("fd");
    supervised.signal(Signal::USR2);
    for text in [
        "Reloading in progress ...",
        "is another program than this one now",
        "sending signal 3 SIGQUIT to child",
        "reloading: execvp(",
        "using inherited socket fd=",
        "fpm is running, pid ",
        SERVING,
    ] {
        supervised.wait_for(text);
    }
    assert_eq!(pid(&supervised), before);
    assert_eq!(
        fs::read_link(format!("/proc/{before}/exe")).expect("is there"),
        other
    );
    assert!(workers.iter().all(|pid| !exists(*pid)));
    ask(&supervised.path("www.sock"), &[("REQUEST_METHOD", "GET")]).expect("is answered");
    // Nothing but the socket came along, so a second one finds as many.
    let count = || fs::read_dir(&descriptors).expect("lists").count();
    let inherited = count();
    let again = supervised.path("again");
    fs::copy(fake_engine(), &again).expect("copies");
    relink(&supervised, &again);
    supervised.signal(Signal::USR2);
    supervised.wait_for("using inherited socket fd=");
    supervised.wait_for(SERVING);
    assert!(count() <= inherited + 2, "{} > {inherited}", count());
}

#[test]
fn rules_of_sampling_go_on_in_the_program_that_takes_over() {
    let mut supervised = start();
    let trace = |supervised: &Supervised, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
        command.arg("trace").args(arguments).arg(pid(supervised));
        let told = command.output().expect("starts");
        assert!(told.status.success(), "{told:?}");
        String::from_utf8(told.stdout).expect("text")
    };
    trace(
        &supervised,
        &["--path", "/checkout*", "--for", "1h", "--pool", "www"],
    );
    // Twice: what came by the environment is not what the next one is told, but what is in force.
    for name in ["first", "second"] {
        let other = supervised.path(name);
        fs::copy(fake_engine(), &other).expect("copies");
        relink(&supervised, &other);
        supervised.signal(Signal::USR2);
        supervised.wait_for("rules of sampling taken over from the program before: /checkout*, pool www");
        supervised.wait_for(SERVING);
        let listed = trace(&supervised, &["--list"]);
        assert!(
            listed.starts_with("/checkout*, pool www, ratio 1, for "),
            "{listed}"
        );
    }
    trace(&supervised, &["--clear"]);
    let other = supervised.path("third");
    fs::copy(fake_engine(), &other).expect("copies");
    relink(&supervised, &other);
    supervised.signal(Signal::USR2);
    supervised.wait_for("using inherited socket fd=");
    supervised.wait_for(SERVING);
    assert_eq!(trace(&supervised, &["--list"]).trim(), "no rules are raised");
}

#[test]
fn a_program_that_refuses_the_configuration_does_not_take_over() {
    let mut supervised = start();
    let workers = supervised.children(Some("worker"));
    for (program, reason) in [
        ("/bin/false", "-t exited with code 1"),
        ("/etc/passwd", "cannot be started"),
    ] {
        relink(&supervised, Path::new(program));
        supervised.signal(Signal::USR2);
        let line = supervised.wait_for("reload failed: ");
        assert!(line.contains(reason), "{line}");
    }
    assert_eq!(supervised.children(Some("worker")), workers);
    // A name that leads nowhere is none of our business.
    fs::remove_file(supervised.path("program")).expect("removes");
    supervised.signal(Signal::USR2);
    supervised.wait_for(SERVING);
    ask(&supervised.path("www.sock"), &[("REQUEST_METHOD", "GET")]).expect("is answered");
}

#[test]
fn a_program_that_cannot_take_over_after_all_ends_the_service_with_its_own_status() {
    let mut supervised = start();
    // Accepts the configuration and is gone when its turn comes.
    let script = supervised.path("script");
    fs::write(&script, "#!/bin/sh\nrm -f \"$0\"\n").expect("writes");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("sets");
    relink(&supervised, &script);
    supervised.signal(Signal::USR2);
    assert_eq!(supervised.wait_for_end().code(), Some(70));
    supervised.position("failed to reload: execvp(");
}
