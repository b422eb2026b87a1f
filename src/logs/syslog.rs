//! syslog(3) without libc: datagrams to the local daemon, in the form that its own
//! clients send (RFC 3164, section 4.1, without a host name).
//!
//! libc's syslog() connects with a blocking socket, so a daemon that hangs hangs its
//! clients; a message that the daemon does not take at once is given up here.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use jiff::Zoned;

use crate::config::{self, LogLevel};

/// Where the daemon listens (`_PATH_LOG`).
const DAEMON: &str = "/dev/log";

/// The way to the daemon.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    ident: String,
    facility: u8,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// Connects with the first message: as with openlog(3), a missing daemon is no error.
    pub(super) fn new(settings: &config::Syslog) -> Syslog {
        Syslog::at(Path::new(DAEMON), settings)
    }

    fn at(path: &Path, settings: &config::Syslog) -> Syslog {
        Syslog {
            path: path.to_path_buf(),
            ident: settings.ident.clone(),
            facility: settings.facility,
            socket: None,
        }
    }

    /// Sends one message, without waiting.
    ///
    /// # Errors
    /// When the daemon is not there or does not take it.
    pub(super) fn send(&mut self, level: LogLevel, message: &[u8]) -> io::Result<()> {
        let datagram = self.datagram(level, message.trim_ascii_end(), &Zoned::now())?;
        if let Some(socket) = &self.socket {
            match socket.send(&datagram) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => self.socket = None,
                sent => return sent.map(drop),
            }
        }
        // Not connected yet, or the daemon has been restarted: its socket is a new one.
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        socket.send(&datagram)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// `<priority>Mmm dd hh:mm:ss ident[pid]: message`.
    fn datagram(&self, level: LogLevel, message: &[u8], now: &Zoned) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(64 + message.len());
        let priority = u32::from(self.facility) * 8 + severity(level);
        let time = now.strftime("%b %e %H:%M:%S");
        write!(
            datagram,
            "<{priority}>{time} {}[{}]: ",
            self.ident,
            std::process::id()
        )?;
        datagram.extend(message);
        Ok(datagram)
    }
}

/// The severity of RFC 3164. php-fpm gives every message that of its configured
/// `log_level`, so that its errors cannot be told from its notices.
fn severity(level: LogLevel) -> u32 {
    match level {
        LogLevel::Alert => 1,
        LogLevel::Error => 3,
        LogLevel::Warning => 4,
        LogLevel::Notice => 5,
        LogLevel::Debug => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(path: &Path) -> UnixDatagram {
        let daemon = UnixDatagram::bind(path).expect("binds");
        daemon.set_nonblocking(true).expect("sets");
        daemon
    }

    fn receive(daemon: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let count = daemon.recv(&mut buffer).expect("something was sent");
        String::from_utf8(buffer[..count].to_vec()).expect("text")
    }

    #[test]
    fn messages_have_their_own_severity_and_survive_the_daemons_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let settings = config::Syslog {
            ident: "pools".to_owned(),
            facility: 3,
        };
        let mut syslog = Syslog::at(&path, &settings);
        assert!(syslog.send(LogLevel::Notice, b"nobody is there").is_err());
        let first = daemon(&path);
        syslog.send(LogLevel::Notice, b"[NOTICE] one\n").expect("sends");
        let one = receive(&first);
        assert!(one.starts_with("<29>"), "{one}");
        assert!(
            one.ends_with(&format!(" pools[{}]: [NOTICE] one", std::process::id())),
            "{one}"
        );
        drop(first);
        std::fs::remove_file(&path).expect("removes");
        let second = daemon(&path);
        syslog.send(LogLevel::Alert, b"[ALERT] two").expect("sends");
        assert!(receive(&second).starts_with("<25>"));
    }

    #[test]
    fn a_daemon_that_does_not_read_costs_messages_and_no_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let _daemon = daemon(&path);
        let mut syslog = Syslog::at(&path, &config::Syslog::default());
        // The queue of a datagram socket is bounded (net.unix.max_dgram_qlen).
        let refused = (0..100_000).find_map(|_| syslog.send(LogLevel::Notice, b"x").err());
        let refused = refused.expect("the queue is full at some time");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }
}
