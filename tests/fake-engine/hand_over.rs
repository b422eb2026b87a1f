//! A process that has listening sockets and becomes another program: what php-fpm does
//! at a reload, and what a service manager does at a start.

use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use glasspool::config::{ListenAddress, LogLevel, Pool};
use glasspool::logs::ErrorLog;
use glasspool::supervisor::Sockets;
use rustix::io::FdFlags;

/// The pool whose socket is passed on.
pub(crate) fn pool(folder: &Path, workers: NonZeroU32) -> Pool {
    Pool::new("www", ListenAddress::Unix(folder.join("php.sock")), workers)
}

/// Opens the pool's socket, and one that nobody wants, and passes both on as php-fpm does.
pub(crate) fn like_php_fpm(folder: &Path, program: &[&str]) -> ExitCode {
    let log = ErrorLog::stderr(LogLevel::Notice);
    let mut sockets = Sockets::default();
    let mut unwanted = pool(folder, NonZeroU32::MIN);
    unwanted.listen = ListenAddress::Unix(folder.join("unwanted.sock"));
    let listeners = [pool(folder, NonZeroU32::MIN), unwanted].map(|pool| sockets.open(&pool, &log));
    let listeners = listeners.map(|listener| listener.expect("listens"));
    let handover = sockets.export().expect("can be passed on");
    let mut command = command(program);
    command.envs(handover.variables.iter().map(|(name, value)| (name, value)));
    for listener in &listeners {
        eprintln!("passes on fd={}, \"{}\"", listener.number(), listener.key());
    }
    panic!("{}", command.exec());
}

/// Opens the pool's socket and passes it on as systemd does.
pub(crate) fn like_a_service_manager(folder: &Path, program: &[&str]) -> ExitCode {
    let socket = UnixListener::bind(folder.join("php.sock")).expect("binds");
    assert_eq!(
        socket.as_raw_fd(),
        3,
        "the first that is free, SD_LISTEN_FDS_START"
    );
    rustix::io::fcntl_setfd(&socket, FdFlags::empty()).expect("sets");
    let mut command = command(program);
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "php.socket")
        // execve(2) keeps the pid.
        .env("LISTEN_PID", std::process::id().to_string());
    panic!("{}", command.exec());
}

/// Becomes the program, with nothing.
pub(crate) fn plainly(program: &[&str]) -> ExitCode {
    panic!("{}", command(program).exec());
}

fn command(program: &[&str]) -> Command {
    let (program, arguments) = program.split_first().expect("names a program");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
