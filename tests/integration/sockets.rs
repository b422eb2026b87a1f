//! Listening sockets come from other programs and go to them, without a moment in which
//! nobody listens.

use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::{Supervised, fake_engine, number_after, start_program};

/// Debian's name for it.
const STOCK: &str = "/usr/sbin/php-fpm8.2";

fn inode(supervised: &Supervised) -> u64 {
    let found = std::fs::metadata(supervised.path("php.sock"));
    found.expect("the socket is there").ino()
}

#[test]
fn sockets_left_by_php_fpm_are_taken_over() {
    let mut supervised = start_program(|folder| {
        let own = fake_engine();
        let folder = folder.to_str().expect("text");
        let own = own.to_str().expect("text");
        ["hand-over", folder, own, "supervise", folder, "1"]
            .map(str::to_owned)
            .into()
    });
    let line = supervised.wait_for("passes on fd=");
    let number = number_after(&line, "fd=");
    let socket = inode(&supervised);
    let path = supervised.path("php.sock");
    let line = supervised.wait_for("using inherited socket");
    let expected = format!("using inherited socket fd={number}, \"{}\"", path.display());
    assert!(line.contains("NOTICE: ") && line.ends_with(&expected), "{line}");
    supervised.wait_for("unwanted.sock\": no pool listens there");
    supervised.wait_for("ready to handle connections");
    assert_eq!(inode(&supervised), socket);
    UnixStream::connect(&path).expect("listens");
    assert!(!supervised.path("unwanted.sock").exists());
    for pid in supervised
        .children(None)
        .into_iter()
        .chain(supervised.children(Some("worker")))
    {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("reads");
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("FPM_SOCKETS"), "{environment}");
    }
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_service_managers_socket_is_used_and_stays_its_own() {
    let mut supervised = start_program(|folder| {
        let own = fake_engine();
        let folder = folder.to_str().expect("text");
        let own = own.to_str().expect("text");
        ["activate", folder, own, "supervise", folder, "1"]
            .map(str::to_owned)
            .into()
    });
    let line = supervised.wait_for("using inherited socket fd=3, ");
    let path = supervised.path("php.sock");
    assert!(line.ends_with(&format!("\"{}\"", path.display())), "{line}");
    let socket = inode(&supervised);
    supervised.wait_for("ready to handle connections");
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    assert_eq!(inode(&supervised), socket);
}

/// A configuration that both sides understand.
fn write_conf(folder: &Path) -> String {
    let conf = folder.join("php-fpm.conf");
    let text = format!(
        "[global]\nerror_log = {0}/error.log\nprocess_control_timeout = 5\n[www]\nlisten = {0}/php.sock\nuser = nobody\npm = static\npm.max_children = 1\n",
        folder.display()
    );
    std::fs::write(&conf, text).expect("writes");
    conf.to_str().expect("text").to_owned()
}

#[expect(clippy::print_stderr, reason = "what is skipped is said")]
fn stock_is_there() -> bool {
    let is_there = Path::new(STOCK).exists();
    if !is_there {
        eprintln!("skipped: {STOCK} is not installed");
    }
    is_there
}

#[test]
fn stock_php_fpm_takes_over_our_sockets() {
    if !stock_is_there() {
        return;
    }
    let mut supervised = start_program(|folder| {
        let conf = write_conf(folder);
        let folder = folder.to_str().expect("text");
        ["hand-over", folder, STOCK, "-n", "-R", "-F", "-O", "-y", &conf]
            .map(str::to_owned)
            .into()
    });
    let numbers = [(); 2].map(|()| number_after(&supervised.wait_for("passes on fd="), "fd="));
    let socket = inode(&supervised);
    for (number, name) in numbers.into_iter().zip(["php.sock", "unwanted.sock"]) {
        let path = supervised.path(name);
        supervised.wait_for(&format!(
            "using inherited socket fd={number}, \"{}\"",
            path.display()
        ));
    }
    supervised.wait_for("ready to handle connections");
    assert_eq!(inode(&supervised), socket);
    assert!(!supervised.path("unwanted.sock").exists());
    UnixStream::connect(supervised.path("php.sock")).expect("listens");
    supervised.signal(Signal::QUIT);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
}

#[test]
fn we_take_over_the_sockets_of_stock_php_fpm_when_it_reloads() {
    if !stock_is_there() {
        return;
    }
    // It runs again by the name it was called by, which then is ours.
    let mut supervised = start_program(|folder| {
        let conf = write_conf(folder);
        symlink(STOCK, folder.join("php-fpm")).expect("links");
        let name = folder.join("php-fpm");
        let name = name.to_str().expect("text");
        ["become", name, "-n", "-R", "-F", "-O", "-y", &conf]
            .map(str::to_owned)
            .into()
    });
    supervised.wait_for("ready to handle connections");
    let socket = inode(&supervised);
    let name = supervised.path("php-fpm");
    std::fs::remove_file(&name).expect("removes");
    symlink(fake_engine(), &name).expect("links");
    // Nobody accepts now, and nobody is refused.
    let waiting = UnixStream::connect(supervised.path("php.sock")).expect("listens");
    supervised.signal(Signal::USR2);
    supervised.wait_for("reloading: execvp(");
    let path = supervised.path("php.sock");
    let line = supervised.wait_for("using inherited socket fd=");
    assert!(line.ends_with(&format!("\"{}\"", path.display())), "{line}");
    supervised.wait_for("ready to handle connections");
    assert_eq!(inode(&supervised), socket);
    drop(waiting);
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    assert!(!path.exists());
}
