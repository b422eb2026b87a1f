//! A provisioned application: its folder, its pages, its database while it is in use.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::account::Account;

/// The applications there are tools for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Application {
    Wordpress,
    Mediawiki,
}

impl Application {
    pub(super) fn name(self) -> &'static str {
        match self {
            Application::Wordpress => "wordpress",
            Application::Mediawiki => "mediawiki",
        }
    }

    /// Short, as the path of the database's socket must be.
    fn folder(self) -> &'static str {
        match self {
            Application::Wordpress => "wp",
            Application::Mediawiki => "mw",
        }
    }
}

/// An application that answers once something serves its document root.
#[derive(Debug)]
pub(super) struct Site {
    pub application: Application,
    pub dir: PathBuf,
    /// Where its database listens on 127.0.0.1; spans of waits name it.
    pub port: u16,
    tool: PathBuf,
    account: Account,
}

/// A page, and a text that it must contain.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub path: String,
    pub text: String,
}

impl Site {
    /// Runs the application's tool `tools/NAME` on a folder below `sites`; what is there
    /// already is reused. As root the tool installs the packages that it needs, without
    /// root it names those that are missing.
    pub(super) fn provision(
        application: Application,
        tools: &Path,
        sites: &Path,
        account: &Account,
    ) -> Result<Site> {
        let dir = match account {
            Account::Root { .. } => sites.join(application.folder()),
            Account::Caller | Account::Dropped { .. } => sites.join(format!("{}-u", application.folder())),
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        account.own(&dir)?;
        let tool = tools.join(application.name());
        let site = Site {
            application,
            dir,
            // Free now; should somebody take it meanwhile, the database does not start.
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            tool,
            account: account.clone(),
        };
        if application == Application::Wordpress {
            // One that was left behind has another port.
            site.ask("db-stop", &[])?;
        }
        site.ask("provision", &[])?;
        Ok(site)
    }

    /// The pages that the tool promises.
    pub(super) fn pages(&self) -> Result<Vec<Page>> {
        let text = self.ask("urls", &[])?;
        let pages = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(pages
            .map(|(path, text)| Page {
                path: path.to_owned(),
                text: text.to_owned(),
            })
            .collect())
    }

    /// A complete nginx.conf that passes PHP to `socket`.
    pub(super) fn nginx_conf(&self, socket: &Path, listen: &str) -> Result<String> {
        self.ask("nginx", &[&format!("unix:{}", socket.display()), listen])
    }

    pub(super) fn docroot(&self) -> PathBuf {
        self.dir.join("docroot")
    }

    fn ask(&self, verb: &str, arguments: &[&str]) -> Result<String> {
        let mut command: Command = self.account.command(&self.tool);
        command.arg(verb).arg(&self.dir).args(arguments);
        let output = command.env("DB_PORT", self.port.to_string()).output();
        let output = output.with_context(|| format!("cannot run {}", self.tool.display()))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} {verb}: {}: {}",
                self.tool.display(),
                output.status,
                message.trim_end()
            );
        }
        String::from_utf8(output.stdout).context("the tool does not speak UTF-8")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.application == Application::Wordpress {
            // A database that is not running is no fault here.
            self.ask("db-stop", &[]).map(drop).unwrap_or_default();
        }
    }
}
