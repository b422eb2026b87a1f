//! `glasspool serve DIR`: PHP with tracing in one command and with no configuration.
//!
//! The program becomes a supervisor with one pool on a private socket, and an HTTP
//! front in a process of its own beside it.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;

use super::Failure;
use crate::config::{Exporter, Identity, ListenAddress, LogLevel, PhpValue, Pool, Settings};
use crate::logs::ErrorLog;
use crate::supervisor::{self, Announcement, CompanionSpec, Launch};

const EXAMPLES: &str = "\
Examples:
  glasspool serve .                                  this folder at http://127.0.0.1:8000
  glasspool serve public --listen 127.0.0.1:8080 --workers 8
  glasspool serve public --slow 100ms                explains requests from a tenth of a second on
  glasspool serve . --php /usr/bin/php-cgi8.2        another PHP
Scripts run, other files are sent, and index.php gets what is neither. Each request becomes a line
at the terminal, a slow one with its PHP stack. Ctrl-C ends it.";

/// What to serve, and how.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArguments {
    /// The folder with the site's index.php
    #[arg(value_name = "DIR")]
    root: PathBuf,
    /// Address and port of the HTTP server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: String,
    /// PHP workers, so requests at a time
    #[arg(long, value_name = "N", default_value = "4")]
    workers: NonZeroU32,
    /// The PHP executable to use [default: php-fpm, php-cgi or php, the first that fits]
    #[arg(long, value_name = "PATH")]
    php: Option<PathBuf>,
    /// Explain requests that take longer than this (ms, s, m)
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = duration)]
    slow: Duration,
    /// User that PHP runs as, when started by root [default: who starts it]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

pub(super) fn run(arguments: ServeArguments, say: impl Fn(&str) + 'static) -> Result<ExitCode, Failure> {
    let root = arguments.root.canonicalize();
    let root = root
        .with_context(|| format!("cannot serve {}", arguments.root.display()))
        .map_err(Failure::config)?;
    if !root.is_dir() {
        return Err(Failure::config(anyhow!(
            "cannot serve {}: it is not a directory",
            root.display()
        )));
    }
    // Before anything is started: a taken port is the usual trouble.
    let (http, address) = TcpListener::bind(arguments.listen.as_str())
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)))
        .with_context(|| {
            format!(
                "cannot listen on {} (choose another with --listen)",
                arguments.listen
            )
        })
        .map_err(Failure::config)?;
    let folder = private_folder().map_err(Failure::config)?;
    let socket = folder.path().join("php.sock");
    let front = [
        "front".into(),
        "--root".into(),
        root.clone().into(),
        "--fastcgi".into(),
        socket.clone().into(),
    ];

    let log = ErrorLog::stderr(LogLevel::Warning);
    let mut launch = Launch::new(settings(&arguments, socket), log.clone());
    // As `php -S` does: PHP is whoever started it, also when that is root.
    launch.allow_root = true;
    launch.companion = Some(CompanionSpec {
        name: "HTTP front",
        arguments: front.to_vec(),
        stdin: http.into(),
    });
    let slow = arguments.slow;
    launch.announce = Some(Box::new(move |up: &Announcement| {
        say(&greeting(&root.display().to_string(), address, up, slow));
    }));
    let ended = supervisor::run(launch);
    // The socket is gone by now, and the folder goes with this value.
    drop(folder);
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => Err(Failure {
            code: e.exit_code(),
            error: e.into(),
            log,
        }),
    }
}

/// A folder that only we can enter, removed when dropped.
fn private_folder() -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = tempfile::Builder::new();
    builder
        .prefix("glasspool-")
        .permissions(std::fs::Permissions::from_mode(0o700));
    builder.tempdir().context("cannot make a temporary folder")
}

fn settings(arguments: &ServeArguments, socket: PathBuf) -> Settings {
    let mut pool = Pool::new("serve", ListenAddress::Unix(socket), arguments.workers);
    pool.user = arguments.user.clone().map(Identity::Name);
    pool.slow_after = Some(arguments.slow);
    // A developer's variables reach the application, and its output the terminal.
    pool.clear_env = false;
    pool.catch_workers_output = true;
    // Once is enough: else the front prints the same messages from FCGI_STDERR.
    pool.php_values.push(PhpValue {
        name: "fastcgi.logging".to_owned(),
        value: "0".to_owned(),
        admin: true,
    });
    let mut settings = Settings::single(pool);
    settings.overlay.php.binary = arguments.php.clone();
    settings.overlay.otel.traces = Some(Exporter::Console);
    settings.overlay.otel.logs = Some(Exporter::None);
    settings.overlay.otel.metrics = Some(Exporter::None);
    // Somebody waits for the span to appear.
    settings.overlay.otel.flush = Some(Duration::from_millis(100));
    settings
}

fn greeting(root: &str, address: SocketAddr, up: &Announcement, slow: Duration) -> String {
    let workers = match up.workers {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    };
    let slow = match slow {
        whole if whole.subsec_millis() == 0 => format!("{} s", whole.as_secs()),
        part => format!("{} ms", part.as_millis()),
    };
    format!(
        "Glasspool serves {root} at http://{address} (PHP {}, {workers}, requests slower than {slow} are explained)",
        up.php
    )
}

/// A whole number with `ms`, `s` or `m`.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let count = digits
        .parse::<u32>()
        .ok()
        .filter(|count| *count > 0)
        .map(u64::from);
    match (count, unit) {
        (Some(count), "ms") => Ok(Duration::from_millis(count)),
        (Some(count), "s") => Ok(Duration::from_secs(count)),
        (Some(count), "m") => Ok(Duration::from_secs(count * 60)),
        (Some(_) | None, _) => Err("expected a number above zero and ms, s or m, such as 250ms".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "250", "0s", "-1s", "1h", "1.5s", "99999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_greeting_says_what_runs_and_where() {
        let up = Announcement {
            php: "8.2.36".into(),
            workers: 4,
        };
        let address = "127.0.0.1:8000".parse().expect("an address");
        assert_eq!(
            greeting("/site", address, &up, Duration::from_millis(250)),
            "Glasspool serves /site at http://127.0.0.1:8000 (PHP 8.2.36, 4 workers, requests slower than 250 ms are explained)"
        );
    }
}
