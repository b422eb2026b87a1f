//! Stock PHP as the FastCGI side: `php-cgi8.2` for most tests, because it needs no configuration, and
//! `php-fpm8.2` for what only it can do. `GLASSPOOL_TEST_PHP_CGI` and `GLASSPOOL_TEST_PHP_FPM` name others.

use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// A PHP process of ours; stopped when dropped.
pub(super) struct Php(Child);

impl Php {
    /// Starts php-cgi on a new socket at `socket`. `None`, and a line that says so, if it is not installed.
    ///
    /// The listening socket is its standard input (FastCGI specification, section 2.2), so it can be connected
    /// to before PHP has started.
    pub(super) fn cgi(socket: &Path) -> Option<Self> {
        let program = program("GLASSPOOL_TEST_PHP_CGI", "php-cgi8.2");
        let listener = OwnedFd::from(UnixListener::bind(socket).unwrap());
        let mut command = Command::new(&program);
        command
            .args([
                "-n",
                "-d",
                "post_max_size=64M",
                "-d",
                "display_errors=0",
                "-d",
                "log_errors=1",
            ])
            .stdin(listener)
            .stderr(Stdio::null());
        spawn(command, "php8.2-cgi")
    }

    /// Starts php-fpm with one worker, all its files in `directory`; gives its socket when it is ready.
    pub(super) fn fpm(directory: &Path) -> Option<(Self, PathBuf)> {
        let program = program("GLASSPOOL_TEST_PHP_FPM", "/usr/sbin/php-fpm8.2");
        let socket = directory.join("fpm.sock");
        let config = directory.join("php-fpm.conf");
        let mut text = format!(
            "[global]\nerror_log = /proc/self/fd/2\n[www]\nlisten = {}\npm = static\npm.max_children = 1\n",
            socket.display()
        );
        let mut command = Command::new(&program);
        command
            .args(["-n", "-F", "-y"])
            .arg(&config)
            .stderr(Stdio::piped());
        if geteuid().is_root() {
            // php-fpm wants to be told that it is meant.
            command.arg("-R");
            text.push_str("user = root\ngroup = root\n");
        }
        std::fs::write(&config, text).unwrap();
        let mut php = spawn(command, "php8.2-fpm")?;
        let log = BufReader::new(php.0.stderr.take().expect("it is piped"));
        let mut lines = log.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains("ready to handle connections")),
            "php-fpm starts"
        );
        Some((php, socket))
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // php-fpm takes its workers along on TERM; they would outlive a KILL.
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).expect("the process is ours and has not been waited for");
        self.0.wait().expect("the process is ours");
    }
}

fn program(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}

fn spawn(mut command: Command, package: &str) -> Option<Php> {
    match command.stdout(Stdio::null()).spawn() {
        Ok(child) => Some(Php(child)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!(
                "{:?} is missing: run `make deps` (Debian package {package})",
                command.get_program()
            )
        }
        Err(error) => panic!("cannot start {:?}: {error}", command.get_program()),
    }
}
