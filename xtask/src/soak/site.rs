//! What is reloaded: two pools of one supervisor, on a unix socket and on TCP, with a
//! script that says which generation of the configuration answers.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::account::Account;
use crate::process::{Output, Process};

/// PHP and its engine come up in less than a second; a busy machine has more time.
const START_TIME: Duration = Duration::from_secs(60);
/// Says the generation; takes long enough to still run when a reload comes.
const SCRIPT: &str = "<?php usleep(2000); echo 'soak generation ', getenv('GENERATION'), \".\\n\";\n";
/// Its name.
pub(super) const PATH: &str = "/soak.php";

/// The running server and its files.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) process: Process,
    account: Account,
    dir: TempDir,
    tcp: SocketAddrV4,
    generation: u32,
}

/// What the pools' sections say beyond what is always there.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    /// Lines of `[global]`.
    pub(super) global: String,
    /// Where the second pool listens, if elsewhere.
    pub(super) listen: Option<SocketAddrV4>,
    /// User of the first pool, if another.
    pub(super) user: Option<String>,
    /// A line of the first pool.
    pub(super) pool: String,
}

impl Site {
    /// Starts it and waits until it serves.
    pub(super) fn start(program: &Path, keep: bool) -> Result<Self> {
        let account = Account::choose(None)?;
        let mut dir = tempfile::Builder::new()
            .prefix("gpsoak-")
            .tempdir()
            .context("no temporary folder")?;
        dir.disable_cleanup(keep);
        // The pools' user must get in.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        std::fs::write(dir.path().join("soak.php"), SCRIPT)?;
        let conf = dir.path().join("php-fpm.conf");
        let ini = dir.path().join("php.ini");
        std::fs::write(
            dir.path().join("glasspool.toml"),
            format!("[php]\nini = {:?}\n", ini.display().to_string()),
        )?;
        let tcp = free_address()?;
        write_files(dir.path(), &account, tcp, 0, &Changes::default(), "")?;
        let mut command = Command::new(program);
        command.args([
            OsString::from("-F"),
            "-O".into(),
            "-y".into(),
            conf.into_os_string(),
        ]);
        let mut process = Process::spawn("glasspool", &mut command, Output::Log, None)?;
        process.wait_for(READY, START_TIME, |line| line.contains(READY))?;
        Ok(Self {
            process,
            account,
            dir,
            tcp,
            generation: 0,
        })
    }

    pub(super) fn is_root(&self) -> bool {
        matches!(self.account, Account::Root { .. })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn unix(&self) -> PathBuf {
        self.dir().join("unix.sock")
    }

    /// Both sockets, for people.
    pub(super) fn addresses(&self) -> [Address; 2] {
        [Address::Unix(self.unix()), Address::Tcp(self.tcp)]
    }

    /// The one that answers when the last reload was done.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The user whom the pools run as, if the server can choose.
    pub(super) fn user(&self) -> Option<&str> {
        match &self.account {
            Account::Root { web } => Some(&web.name),
            Account::Caller | Account::Dropped { .. } => None,
        }
    }

    /// Writes a good configuration whose scripts say `generation`.
    pub(super) fn write_generation(&mut self, generation: u32) -> Result<()> {
        self.generation = generation;
        self.write(&Changes::default(), "")
    }

    /// Writes the configuration of this generation with these changes, and this php.ini.
    pub(super) fn write(&self, changes: &Changes, ini: &str) -> Result<()> {
        write_files(self.dir(), &self.account, self.tcp, self.generation, changes, ini)
    }

    /// Lets it finish. It must end by itself and well.
    pub(super) fn finish(mut self) -> Result<()> {
        let status = self.process.stop(Some(Signal::QUIT), Duration::from_secs(60))?;
        ensure!(status.success(), "glasspool ended with {status}");
        self.process.all_lines()?;
        Ok(())
    }
}

/// The line that ends a start and a successful reload.
pub(super) const READY: &str = "ready to handle connections";

/// A socket of the server.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddrV4),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(_) => f.write_str("the unix socket"),
            Self::Tcp(_) => f.write_str("the TCP socket"),
        }
    }
}

/// What the script writes when `generation` answers.
pub(super) fn answer_of(generation: u32) -> String {
    format!("soak generation {generation}.")
}

/// An address that nobody listens on now.
pub(super) fn free_address() -> Result<SocketAddrV4> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind 127.0.0.1")?;
    let port = listener.local_addr()?.port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn write_files(
    dir: &Path,
    account: &Account,
    tcp: SocketAddrV4,
    generation: u32,
    changes: &Changes,
    ini: &str,
) -> Result<()> {
    let conf = conf(dir, account, tcp, generation, changes);
    replace(&dir.join("php-fpm.conf"), &conf)?;
    replace(&dir.join("php.ini"), &format!("memory_limit = 64M\n{ini}"))
}

/// Whoever reads sees the old file or the new one.
fn replace(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn conf(dir: &Path, account: &Account, tcp: SocketAddrV4, generation: u32, changes: &Changes) -> String {
    let listen = changes.listen.unwrap_or(tcp);
    let dir = dir.display();
    let mut conf = format!(
        "[global]\nerror_log = {dir}/error.log\ndaemonize = no\n{}",
        changes.global
    );
    let mut pool = |name: &str, user: Option<&str>, lines: &str| {
        writeln!(conf, "\n[{name}]\n{lines}\nenv[GENERATION] = {generation}")
            .expect("a string takes everything");
        if let Account::Root { web } = account {
            let user = user.unwrap_or(&web.name);
            writeln!(conf, "user = {user}\ngroup = {}", web.gid).expect("a string takes everything");
        }
    };
    // A fixed number of workers, and one that changes by itself.
    pool(
        "unix",
        changes.user.as_deref(),
        &format!(
            "listen = {dir}/unix.sock\npm = static\npm.max_children = 3\n{}",
            changes.pool
        ),
    );
    pool(
        "tcp",
        None,
        &format!(
            "listen = {listen}\npm = dynamic\npm.max_children = 4\npm.start_servers = 2\n\
             pm.min_spare_servers = 1\npm.max_spare_servers = 3\npm.max_requests = 500"
        ),
    );
    conf
}
