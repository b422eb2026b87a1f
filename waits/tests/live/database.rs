//! A MariaDB of our own: private directory, private socket, port on loopback.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::php::{PATIENCE, skipped};

/// A server that is stopped, and its directory removed, on drop.
pub(crate) struct Database {
    server: Child,
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Database {
    /// Starts one, or says why not.
    pub(crate) fn start() -> Option<Database> {
        let found = Command::new("mariadbd").arg("--version").output().is_ok()
            && Command::new("mariadb-install-db").arg("--help").output().is_ok();
        if !found || !rustix::process::geteuid().is_root() {
            skipped("a database needs root, mariadbd and mariadb-install-db");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let data = directory.path().join("data");
        let installed = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--user=root",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ])
            .arg(format!("--datadir={}", data.display()))
            .output()
            .unwrap();
        assert!(installed.status.success(), "{installed:?}");
        // Free now; should somebody take it meanwhile, the server ends and the test says so.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Command::new("mariadbd")
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1"])
            .args([
                "--innodb-buffer-pool-size=8M",
                "--innodb-log-file-size=4M",
                "--skip-log-bin",
            ])
            .arg(format!("--port={port}"))
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", directory.path().join("db.sock").display()))
            .arg(format!(
                "--pid-file={}",
                directory.path().join("db.pid").display()
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut database = Database {
            server,
            directory,
            port,
        };
        let began = Instant::now();
        while UnixStream::connect(database.socket()).is_err() {
            let ended = database.server.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE * 3,
                "mariadbd: {ended:?}"
            );
            std::thread::yield_now();
        }
        Some(database)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("db.sock")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ended = self.server.kill().is_err();
        let _reaped = self.server.wait().is_err();
    }
}
