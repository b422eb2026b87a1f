//! `xtask apps`: WordPress and MediaWiki behind nginx and Glasspool, each request counted
//! on both sides.
//!
//! The applications' own tools make the sites; a collector writes down what arrives.
//! Nothing here measures speed, that is the benchmark's business. Start reading at
//! `stand`, then `slow` and `faults` for what is promised.

mod faults;
mod http;
pub(crate) mod jaeger;
mod load;
mod mediawiki;
mod nginx;
mod pages;
mod server;
mod sink;
mod site;
mod slow;
mod stand;
mod traced;
mod waits;
mod wordpress;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::account::Account;
use crate::report::Report;
use http::Client;
use load::Load;
use server::{Pool, Program};
use site::{Application, Page, Site};
use stand::{Setting, Stand, Transport};

/// Visitors at the same time under full load: twice the workers, so that some wait.
const VISITORS: usize = 8;
const WORKERS: u32 = 4;

/// What to prove, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Folder with the tools `wordpress` and `mediawiki`
    #[arg(long, value_name = "DIR")]
    apps: PathBuf,
    /// Program under test
    #[arg(long, value_name = "FILE", default_value = "target/release/glasspool")]
    glasspool: PathBuf,
    /// Try the checks with this php-fpm instead; what concerns spans is skipped
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Only this application
    #[arg(long, value_enum)]
    only: Option<Application>,
    /// Only the parts whose name contains this (urls, load, light, slow, opcache, early, worker, observer, engine)
    #[arg(long, value_name = "TEXT", default_value = "")]
    part: String,
    /// Length of the full load, seconds
    #[arg(long, value_name = "N", default_value_t = 30)]
    load_seconds: u64,
    /// Run everything as a user without any capability
    #[arg(long)]
    unprivileged: bool,
    /// That user
    #[arg(long, value_name = "NAME", default_value = "www-data")]
    user: String,
    /// Folder for the sites, kept and used again; a short path
    #[arg(long, value_name = "DIR")]
    site_dir: Option<PathBuf>,
    /// Leave configurations and logs for a look, in the temporary folder as gpapps-*
    #[arg(long)]
    keep: bool,
}

/// Runs the proof; true if nothing failed.
///
/// # Errors
/// When it cannot begin: a program or a tool is missing.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let setting = setting(options)?;
    let tools = absolute(&options.apps)?;
    let scratch;
    let sites = match &options.site_dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            absolute(dir)?
        }
        None => {
            scratch = tempfile::Builder::new().prefix("gpapps-").tempdir()?;
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(scratch.path(), permissions)?;
            scratch.path().to_owned()
        }
    };
    let mut report = Report::new();
    report.progress(format_args!(
        "{:?} as {}",
        setting.program,
        setting.account.label()
    ));
    for application in [Application::Wordpress, Application::Mediawiki] {
        if options.only.is_none_or(|only| only == application) {
            report.progress(format_args!("provisioning {}", application.name()));
            match Site::provision(application, &tools, &sites, &setting.account) {
                Ok(site) => prove(options, &setting, &site, &mut report),
                Err(e) => report.part(application.name(), Err(e)),
            }
        }
    }
    Ok(report.conclude())
}

fn prove(options: &Options, setting: &Setting, site: &Site, report: &mut Report) {
    let (name, seconds) = (site.application.name(), Duration::from_secs(options.load_seconds));
    let mut part = |part: &str, check: &mut dyn FnMut(&mut Report) -> Result<()>| {
        if part.contains(&options.part) {
            report.progress(format_args!("{name}: {part}"));
            let result = check(report);
            report.part(&format!("{name}: {part}"), result);
        }
    };
    part("urls", &mut |report| check_pages(setting, site, report));
    part("load", &mut |report| check_load(setting, site, seconds, report));
    if site.application == Application::Mediawiki {
        return;
    }
    part("light", &mut |report| {
        check_light_load(setting, site, seconds, report)
    });
    part("slow", &mut |report| slow::check(setting, site, report));
    part("opcache", &mut |report| {
        pages::check_opcache(setting, site, report)
    });
    part("early", &mut |report| {
        pages::check_early_answer(setting, site, report)
    });
    if setting.is_traced() {
        part("worker", &mut |report| faults::kill_worker(setting, site, report));
        part("observer", &mut |report| {
            faults::kill_observer(setting, site, report)
        });
        part("engine", &mut |report| faults::kill_engine(setting, site, report));
    } else {
        report.skip("killed worker, observer, engine", "php-fpm has no such processes");
    }
}

/// All pages that the tool promises, and what a user does there.
fn check_pages(setting: &Setting, site: &Site, report: &mut Report) -> Result<()> {
    let stand = start(setting, site)?;
    let mut client = stand.client();
    for Page { path, text } in site.pages()? {
        let reply = client.get(&path)?;
        let found = reply.text();
        report.check(
            format_args!("{}: {path}", site.application.name()),
            reply.status == 200 && found.contains(&text),
            format_args!("200 with {text:?}"),
            format_args!("{} with {:?}", reply.status, http::short(&found)),
        );
    }
    let mut visitor: Client = stand.client();
    match site.application {
        Application::Wordpress => wordpress::check(&mut visitor, report)?,
        Application::Mediawiki => mediawiki::check(&mut visitor, report)?,
    }
    stand.finish_exactly(report, &format!("{}: pages", site.application.name()))?;
    Ok(())
}

/// The application's pages as fast as they are answered.
fn check_load(setting: &Setting, site: &Site, time: Duration, report: &mut Report) -> Result<()> {
    let stand = start(setting, site)?;
    let name = site.application.name();
    put_under_load(&stand, name, &site.pages()?, time, report);
    stand.finish_exactly(report, &format!("{name}: full load"))?;
    Ok(())
}

/// A page that does nothing: so many requests that records could be overwritten and that
/// the collector does not keep up. What it does not get must have been counted.
fn check_light_load(setting: &Setting, site: &Site, time: Duration, report: &mut Report) -> Result<()> {
    let stand = start(setting, site)?;
    let page = Page {
        path: "/probe/hello.php".to_owned(),
        text: "hello from".to_owned(),
    };
    put_under_load(&stand, "light page", &[page], time, report);
    let accounts = stand.finish()?;
    let (requests, lost) = (accounts.requests(), accounts.told_losses().unwrap_or(0));
    let what =
        format!("light page: {requests} requests = spans received + {lost} that the log says were lost");
    if setting.is_traced() {
        report.equal(what, requests, accounts.received.server_spans + lost);
    } else {
        report.skip(what, "the server under test makes no spans");
    }
    Ok(())
}

fn put_under_load(stand: &Stand, name: &str, pages: &[Page], time: Duration, report: &mut Report) {
    let outcome = Load::start(stand.base(), pages, VISITORS, time).finish();
    report.check(
        format_args!(
            "{name}: {} requests in {time:?} ({:.0}/s) are all answered with the right text",
            outcome.requests, outcome.rate
        ),
        outcome.failed == 0 && outcome.requests > 0,
        "no failure",
        format_args!("{} failures: {:?}", outcome.failed, outcome.messages),
    );
}

/// A stand for the application's own pages.
fn start(setting: &Setting, site: &Site) -> Result<Stand> {
    let pool = Pool::of(WORKERS);
    match site.application {
        Application::Wordpress => Stand::start(setting, site, &pool, Transport::Grpc),
        Application::Mediawiki => {
            let settings = site.dir.join("with-uploads.php");
            std::fs::write(&settings, mediawiki::settings(&site.docroot()))?;
            let line = format!("env[MW_CONFIG_FILE] = {}", settings.display());
            Stand::start(
                setting,
                site,
                &Pool {
                    lines: vec![line],
                    ..pool
                },
                Transport::Http,
            )
        }
    }
}

fn setting(options: &Options) -> Result<Setting> {
    let account = Account::choose(options.unprivileged.then_some(options.user.as_str()))?;
    let program = match &options.server {
        Some(path) => Program::PhpFpm(path.clone()),
        None => Program::Glasspool(absolute(&options.glasspool).context("run `make build` first")?),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace");
    let python = root.join("target/venv/bin/python");
    ensure!(
        python.exists(),
        "{} is missing: run `make deps` first",
        python.display()
    );
    Ok(Setting {
        account,
        program,
        python,
        sink_tool: root.join("tests/tools/otlp-sink"),
        keep: options.keep,
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("no such file or folder: {}", path.display()))
}
