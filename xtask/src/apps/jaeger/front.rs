//! The site with a slow query: WordPress behind nginx, or one script behind the program's
//! own HTTP server, each with a MariaDB.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::backend::Jaeger;
use super::{Options, SLOW_SECONDS};
use crate::account::Account;
use crate::apps::absolute;
use crate::apps::http::Client;
use crate::apps::nginx::Nginx;
use crate::apps::server::{Pool, Program, Server};
use crate::apps::site::{Application, Site};
use crate::process::{Output, Process};
use crate::report::Report;
use crate::run;

pub(super) const SERVICE: &str = "e2e-jaeger";
/// The program, and a database, come up in a second; a busy machine has more time.
const START_TIME: Duration = Duration::from_secs(60);

/// Asks the database of this folder, as the page's argument says.
const SCRIPT: &str = r"<?php
class Shop {
    function __construct(private mysqli $db) {}
    function slow_sql($seconds) { return $this->db->query('SELECT SLEEP(' . (int) $seconds . ')'); }
}
(new Shop(new mysqli('127.0.0.1', 'root', '', '', PORT)))->slow_sql($_GET['slow_sql'] ?? 0);
echo 'asked';
";

/// A running site. What it started ends with this value, in this order.
#[derive(Debug)]
pub(super) struct Front {
    nginx: Option<Nginx>,
    program: Serving,
    _site: Option<Site>,
    _database: Option<Process>,
    _folder: TempDir,
    base: String,
}

#[derive(Debug)]
enum Serving {
    Pool(Server),
    Folder(Process),
}

impl Front {
    /// Starts it, or says what it needs that is not here.
    pub(super) fn start(
        options: &Options,
        jaeger: &Jaeger,
        report: &mut Report,
    ) -> Result<Result<Front, &'static str>> {
        let program = absolute(&options.glasspool).context("run `make build` first")?;
        let mut folder = tempfile::Builder::new();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let folder = folder.prefix("gpjaeger-").permissions(permissions).tempdir()?;
        match &options.wordpress {
            Some(tool) => {
                report.progress("provisioning wordpress");
                Front::wordpress(&program, &absolute(tool)?, jaeger, folder).map(Ok)
            }
            None => Front::script(&program, jaeger, folder),
        }
    }

    fn wordpress(program: &Path, tool: &Path, jaeger: &Jaeger, folder: TempDir) -> Result<Front> {
        let account = Account::choose(None)?;
        let tools = tool.parent().context("the tool is in no folder")?;
        let site = Site::provision(Application::Wordpress, tools, folder.path(), &account)?;
        let socket = folder.path().join("php.sock");
        let program = Program::Glasspool(program.to_path_buf());
        let environment = variables(jaeger);
        let server = Server::start(
            &program,
            &Pool::of(2),
            &account,
            folder.path(),
            &socket,
            &environment,
        )?;
        let nginx = Nginx::start(&site, &account, folder.path(), &socket)?;
        Ok(Front {
            base: nginx.base.clone(),
            nginx: Some(nginx),
            program: Serving::Pool(server),
            _site: Some(site),
            _database: None,
            _folder: folder,
        })
    }

    fn script(program: &Path, jaeger: &Jaeger, folder: TempDir) -> Result<Result<Front, &'static str>> {
        let Some((database, port)) = database(folder.path())? else {
            return Ok(Err("a database needs root, mariadbd and mariadb-install-db"));
        };
        let site = folder.path().join("site");
        std::fs::create_dir(&site)?;
        std::fs::write(site.join("index.php"), SCRIPT.replace("PORT", &port.to_string()))?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(&site)
            .args(["--listen", "127.0.0.1:0", "--workers", "2", "--slow", "1s"])
            .envs(variables(jaeger))
            .envs([("OTEL_TRACES_EXPORTER", "otlp")]);
        let mut process = Process::spawn("glasspool", &mut command, Output::Log, None)?;
        let greeting = process.wait_for("serves", START_TIME, |line| line.contains(" at http://"))?;
        let base = greeting
            .text
            .split_once(" at ")
            .and_then(|(_, rest)| rest.split_once(' '));
        let base = base.context("it does not say where it serves")?.0.to_owned();
        Ok(Ok(Front {
            base,
            nginx: None,
            program: Serving::Folder(process),
            _site: None,
            _database: Some(database),
            _folder: folder,
        }))
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// The page that waits for the database.
    pub(super) fn slow_path(&self) -> String {
        format!("/?slow_sql={SLOW_SECONDS}")
    }

    /// The function of the application that asks it.
    pub(super) fn function(&self) -> &'static str {
        match self.program {
            Serving::Pool(_) => "Test_Pages::slow_sql",
            Serving::Folder(_) => "Shop::slow_sql",
        }
    }

    /// Stops it in order, so that everything is sent.
    pub(super) fn finish(self) -> Result<()> {
        if let Some(nginx) = self.nginx {
            nginx.finish()?;
        }
        match self.program {
            Serving::Pool(server) => server.finish().map(drop),
            Serving::Folder(mut process) => process.stop(Some(Signal::TERM), START_TIME).map(drop),
        }
    }
}

fn variables(jaeger: &Jaeger) -> [(&'static str, String); 4] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp.clone()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
        ("OTEL_SERVICE_NAME", SERVICE.to_owned()),
        // An early span must not need this.
        ("OTEL_BSP_SCHEDULE_DELAY", "5000".to_owned()),
    ]
}

/// A MariaDB of our own below that folder, and its port on loopback; `None` if it cannot be
/// had here.
fn database(folder: &Path) -> Result<Option<(Process, u16)>> {
    let works = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok();
    let found = works("mariadbd", "--version") && works("mariadb-install-db", "--help");
    if !found || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let data = folder.join("data");
    let mut install = Command::new("mariadb-install-db");
    install
        .args(["--no-defaults", "--user=root", "--skip-test-db"])
        .arg("--auth-root-authentication-method=normal")
        .arg(format!("--datadir={}", data.display()));
    run::output(&mut install)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("mariadbd");
    command
        .args([
            "--no-defaults",
            "--user=root",
            "--bind-address=127.0.0.1",
            "--skip-log-bin",
        ])
        .args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"])
        .arg(format!("--port={port}"))
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", folder.join("db.sock").display()))
        .arg(format!("--pid-file={}", folder.join("db.pid").display()));
    let process = Process::spawn("mariadbd", &mut command, Output::Log, None)?;
    let by = Instant::now() + START_TIME;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > by {
            bail!(
                "mariadbd does not listen after {START_TIME:?}: {}",
                process.tail()
            );
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(Some((process, port)))
}
