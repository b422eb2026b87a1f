//! Sockets as pools get them.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::config::{Backlog, Identity, LogLevel, Mode};

fn pool(listen: ListenAddress) -> Pool {
    Pool::new("www", listen, NonZeroU32::MIN)
}

fn quiet() -> ErrorLog {
    ErrorLog::stderr(LogLevel::Alert)
}

fn open(pool: &Pool) -> Result<Arc<Listener>, ListenError> {
    Sockets::default().open(pool, &quiet())
}

/// A folder, and a pool with a socket in it.
fn at_home() -> (TempDir, PathBuf, Pool) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("php.sock");
    let pool = pool(ListenAddress::Unix(path.clone()));
    (folder, path, pool)
}

/// A log, and what it holds.
fn log_in(folder: &TempDir) -> (ErrorLog, impl Fn() -> String) {
    let path = folder.path().join("log");
    let log = ErrorLog::file(&path, LogLevel::Debug).expect("opens");
    (log, move || std::fs::read_to_string(&path).expect("reads"))
}

// === New sockets ===

#[test]
fn a_unix_socket_has_its_mode_and_goes_away() {
    let (_folder, path, mut pool) = at_home();
    for mode in [0o602, 0o777, 0o660, 0] {
        pool.socket_mode = Mode(mode);
        let listener = open(&pool).expect("listens");
        let found = std::fs::metadata(&path).expect("exists");
        assert_eq!(found.permissions().mode() & 0o777, mode);
        UnixStream::connect(&path).expect("listens");
        assert_eq!(listener.key().path(), Some(&*path));
        drop(listener);
        assert!(!path.exists());
    }
}

#[test]
fn somebody_elses_socket_is_respected_and_a_leftover_is_replaced() {
    let (_folder, path, pool) = at_home();
    let other = UnixListener::bind(&path).expect("binds");
    let e = open(&pool).expect_err("is in use");
    let expected = format!(
        "Another FPM instance seems to already listen on {}",
        path.display()
    );
    assert_eq!(e.to_string(), expected);
    drop(other);
    drop(open(&pool).expect("replaces"));
    // php-fpm removes anything that lies there.
    std::fs::write(&path, "precious").expect("writes");
    assert!(matches!(open(&pool), Err(ListenError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
}

#[test]
fn a_taken_port_is_told_in_php_fpms_words() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("has one");
    let e = open(&pool(ListenAddress::Tcp(address))).expect_err("taken");
    let expected =
        format!("unable to bind listening socket for address '{address}': Address already in use (98)");
    assert_eq!(e.to_string(), expected);
}

#[test]
fn a_port_alone_takes_both_families_or_says_that_it_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, text) = log_in(&folder);
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("binds");
        free.local_addr().expect("has one").port()
    };
    let pool = pool(ListenAddress::TcpPort(port));
    let listener = Sockets::default().open(&pool, &log).expect("listens");
    TcpStream::connect(("127.0.0.1", port)).expect("IPv4");
    if TcpListener::bind("[::1]:0").is_ok() {
        TcpStream::connect(("::1", port)).expect("IPv6");
        assert_eq!(listener.key().to_string(), format!(":::{port}"));
        assert_eq!(text(), "");
    }
    let e = Sockets::default().open(&pool, &log).expect_err("taken");
    assert!(
        text().contains("NOTICE: ")
            && text().contains("Failed implicitly binding to ::, retrying with 0.0.0.0\n")
    );
    let start = format!("unable to bind listening socket for address '{port}': Address already in use");
    assert!(e.to_string().starts_with(&start), "{e}");
}

#[test]
fn the_queue_is_as_long_as_configured() {
    let mut pool = pool(ListenAddress::Tcp("127.0.0.1:0".parse().expect("an address")));
    pool.backlog = Backlog::Connections(17);
    assert_eq!(open(&pool).expect("listens").queue().limit, 17);
    pool.backlog = Backlog::KernelMaximum;
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("reads");
    let limit = open(&pool).expect("listens").queue().limit;
    assert_eq!(limit.to_string(), most.trim());
}

#[test]
fn a_path_that_is_too_long_is_cut_with_a_warning() {
    let (folder, _, _) = at_home();
    let (log, text) = log_in(&folder);
    let long = folder.path().join("x".repeat(150));
    let listener = Sockets::default().open(&pool(ListenAddress::Unix(long.clone())), &log);
    let listener = listener.expect("listens");
    let cut = listener.key().path().expect("a path").to_owned();
    assert_eq!(cut.as_os_str().len(), 107);
    let expected = format!("WARNING: pid {}, bind(), line", std::process::id());
    assert!(text().contains(&expected), "{}", text());
    let expected = format!(
        "[pool www] cannot bind to UNIX socket '{}' as path is too long (found length: {}, maximal length: 107), trying cut socket path instead '{}'\n",
        long.display(),
        long.as_os_str().len(),
        cut.display()
    );
    assert!(text().ends_with(&expected), "{}", text());
    UnixStream::connect(&cut).expect("listens");
    // A reload finds it again.
    assert!(listener.answers_to(&Wanted::new(&ListenAddress::Unix(long))));
}

// === Who may connect ===

#[test]
fn owners_are_set_where_we_may() {
    let (_folder, path, mut pool) = at_home();
    let is_root = nix::unistd::geteuid().is_root();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let (wanted_uid, wanted_gid) = if is_root { (1234, 1235) } else { (uid, gid) };
    pool.socket_owner = Some(Identity::Id(wanted_uid));
    pool.socket_group = Some(Identity::Id(wanted_gid));
    let listener = open(&pool).expect("listens");
    let found = std::fs::metadata(&path).expect("exists");
    assert_eq!((found.uid(), found.gid()), (wanted_uid, wanted_gid));
    drop(listener);
    pool.socket_owner = Some(Identity::Name("no-such-user".into()));
    let e = open(&pool).expect_err("unknown").to_string();
    assert!(
        e.starts_with("[pool www] cannot get uid for user 'no-such-user': "),
        "{e}"
    );
    assert!(!path.exists(), "a socket of the wrong owner must not stay");
    if !is_root {
        pool.socket_owner = Some(Identity::Id(uid + 1));
        let e = open(&pool).expect_err("not allowed").to_string();
        let expected = format!("[pool www] failed to chown() the socket '{}': ", path.display());
        assert!(e.starts_with(&expected), "{e}");
    }
}

#[test]
fn an_acl_wins_over_an_owner() {
    let (folder, path, mut pool) = at_home();
    let (log, text) = log_in(&folder);
    pool.socket_mode = Mode(0o600);
    pool.socket_owner = Some(Identity::Name("nobody".into()));
    pool.socket_group = Some(Identity::Id(7));
    pool.socket_acl_users = vec!["root".into()];
    pool.socket_acl_groups = vec!["root".into()];
    let listener = match Sockets::default().open(&pool, &log) {
        Err(ListenError::Acl { why, .. }) if why.raw_os_error() == Some(95) => {
            return eprintln!("skipped: the file system of the temporary folder has no ACLs");
        }
        opened => opened.expect("listens"),
    };
    let mut stored = [0; 256];
    let length = rustix::fs::getxattr(&path, c"system.posix_acl_access", &mut stored[..]).expect("is set");
    let expected = [
        &b"\x02\0\0\0"[..],
        b"\x01\0\x06\0\xff\xff\xff\xff",
        b"\x02\0\x06\0\0\0\0\0",
        b"\x04\0\0\0\xff\xff\xff\xff",
        b"\x08\0\x06\0\0\0\0\0",
        b"\x10\0\x06\0\xff\xff\xff\xff",
        b"\x20\0\0\0\xff\xff\xff\xff",
    ]
    .concat();
    assert_eq!(stored[..length], expected);
    assert!(text().contains("[pool www] ACL set, listen.owner = 'nobody' is ignored\n"));
    assert!(text().contains("[pool www] ACL set, listen.group = '7' is ignored\n"));
    drop(listener);
}

// === From one generation to the next ===

#[test]
fn the_next_generation_has_the_same_socket_and_the_last_one_closes_it() {
    let (folder, path, pool) = at_home();
    let (log, text) = log_in(&folder);
    let mut sockets = Sockets::default();
    let first = sockets.open(&pool, &log).expect("listens");
    let waiting = UnixStream::connect(&path).expect("connects");
    sockets.announce(&log);
    let line = format!(
        "using inherited socket fd={}, \"{}\"\n",
        first.socket.as_raw_fd(),
        path.display()
    );
    assert!(text().ends_with(&line), "{}", text());
    let second = sockets.open(&pool, &log).expect("is there");
    assert!(Arc::ptr_eq(&first, &second));
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
    drop(waiting);
    let third = sockets.open(&pool, &log).expect("listens anew");
    assert_eq!(sockets.held.len(), 1);
    drop(third);
}

#[test]
fn the_same_file_by_another_path_is_the_same_socket() {
    let (folder, _, pool) = at_home();
    let link = folder.path().join("run");
    std::os::unix::fs::symlink(folder.path(), &link).expect("links");
    let mut sockets = Sockets::default();
    let first = sockets.open(&pool, &quiet()).expect("listens");
    let other = self::pool(ListenAddress::Unix(link.join("php.sock")));
    let second = sockets.open(&other, &quiet()).expect("is there");
    assert!(Arc::ptr_eq(&first, &second));
}

/// What execve(2) leaves of a listener: a descriptor that only its number names.
fn forget(listener: Arc<Listener>) {
    std::mem::forget(Arc::clone(&listener.socket));
    std::mem::forget(listener);
}

#[test]
fn what_is_exported_can_be_inherited() {
    let (folder, path, pool) = at_home();
    let (log, text) = log_in(&folder);
    let tcp = self::pool(ListenAddress::Tcp("127.0.0.1:0".parse().expect("an address")));
    let unwanted = folder.path().join("unwanted.sock");
    let unwanted = self::pool(ListenAddress::Unix(unwanted));
    let mut sockets = Sockets::default();
    let listeners = [&pool, &tcp, &unwanted].map(|pool| sockets.open(pool, &log).expect("listens"));
    let number = listeners[0].number();
    let address: std::net::SocketAddr = listeners[1].key().to_string().parse().expect("an address");
    let variables = sockets.export().expect("can be").variables.clone();
    listeners.into_iter().for_each(forget);
    let variables = variables.into_iter().map(|(name, value)| (name.into(), value));
    let mut sockets = Sockets::from_environment(variables, &log);
    assert!(text().contains(&format!("NOTICE: pid {}, inherit(), line", std::process::id())));
    let line = format!("using inherited socket fd={number}, \"{}\"\n", path.display());
    assert!(text().contains(&line), "{}", text());
    let kept = [
        sockets.open(&pool, &log).expect("is there"),
        sockets
            .open(&self::pool(ListenAddress::Tcp(address)), &log)
            .expect("is there"),
    ];
    assert_eq!(sockets.inherited.len(), 1);
    sockets.settle(&log);
    assert!(path.exists() && !listens(&unwanted));
    UnixStream::connect(&path).expect("still listens");
    TcpStream::connect(address).expect("still listens");
    drop(kept);
    assert!(!path.exists() && TcpStream::connect(address).is_err());
}

fn listens(pool: &Pool) -> bool {
    let ListenAddress::Unix(path) = &pool.listen else {
        return false;
    };
    Path::exists(path)
}

#[test]
fn a_connection_that_waits_while_pools_change_is_served() {
    let (_folder, path, pool) = at_home();
    let mut sockets = Sockets::default();
    let first = sockets.open(&pool, &quiet()).expect("listens");
    let mut client = UnixStream::connect(&path).expect("connects");
    let second = sockets.open(&pool, &quiet()).expect("is there");
    drop(first);
    let served = rustix::net::accept(&second.socket).expect("is waiting");
    rustix::io::write(&served, b"served").expect("writes");
    drop(served);
    let mut text = String::new();
    client.read_to_string(&mut text).expect("reads");
    assert_eq!(text, "served");
}
