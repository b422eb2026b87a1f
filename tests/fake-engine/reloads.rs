//! A supervisor whose configuration is a small file, `FOLDER/config`, read at the start
//! and at each reload. A line each:
//!
//! - `pool NAME WORKERS [SETTING=VALUE …]`, listening on `NAME.sock` unless a setting says
//!   otherwise;
//! - `timeout SECONDS` (`process_control_timeout`), `emergency CRASHES` (within a minute),
//!   `most WORKERS` (`process.max`);
//! - `service NAME`, what telemetry calls it all: the observer has to know;
//! - `refuse REASON`: there is a mistake in it.

use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use glasspool::config::{
    EmergencyRestart, Identity, ListenAddress, LogLevel, Pool, ProcessManager, Settings,
};
use glasspool::logs::ErrorLog;
use glasspool::supervisor::{self, EngineSource, Launch};

/// Runs the supervisor with `FOLDER/config`.
pub(crate) fn supervise(folder: &Path, argv: Vec<std::ffi::OsString>) -> ExitCode {
    let settings = read(folder).expect("the first configuration is a good one");
    let log = ErrorLog::stderr(LogLevel::Debug);
    let mut launch = Launch::new(settings, log.clone());
    launch.allow_root = true;
    launch.engine = EngineSource::Program(super::own_program());
    launch.argv = argv;
    let folder = folder.to_path_buf();
    launch.reload = Box::new(move || read(&folder));
    match supervisor::run(launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log.fatal(&e);
            ExitCode::from(e.exit_code())
        }
    }
}

fn read(folder: &Path) -> Result<Settings, Vec<(LogLevel, String)>> {
    let text = std::fs::read_to_string(folder.join("config")).expect("reads");
    let (mut pools, mut service) = (Vec::new(), None);
    let mut global = glasspool::config::Global {
        pid: Some(folder.join("pid")),
        log_level: LogLevel::Debug,
        ..Default::default()
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [] => {}
            ["pool", name, workers, ref pairs @ ..] => pools.push(pool(folder, name, workers, pairs)),
            ["timeout", seconds] => {
                let seconds = seconds.parse().expect("a number");
                global.process_control_timeout = Some(Duration::from_secs(seconds));
            }
            ["most", workers] => global.process_max = Some(some(workers)),
            ["emergency", crashes] => {
                global.emergency_restart = Some(EmergencyRestart {
                    threshold: crashes.parse().expect("a number above zero"),
                    interval: Duration::from_secs(60),
                });
            }
            ["service", name] => service = Some(name.to_owned()),
            ["refuse", ref reason @ ..] => return Err(vec![(LogLevel::Error, reason.join(" "))]),
            _ => panic!("what is {line:?}?"),
        }
    }
    let mut settings = Settings::single(pools.remove(0));
    settings.pools.append(&mut pools);
    settings.global = global;
    settings.overlay.otel.service_name = service;
    Ok(settings)
}

fn pool(folder: &Path, name: &str, workers: &str, pairs: &[&str]) -> Pool {
    let workers = some(workers);
    let listen = ListenAddress::Unix(folder.join(format!("{name}.sock")));
    let mut pool = Pool::new(name, listen, workers);
    pool.catch_workers_output = true;
    for pair in pairs {
        let (setting, value) = pair.split_once('=').expect("SETTING=VALUE");
        match setting {
            "worker" => pool.env.push(("FAKE_WORKER".to_owned(), value.to_owned())),
            "engine" => pool.php.define.push(format!("fake={value}")),
            "listen" => pool.listen = ListenAddress::Unix(folder.join(value)),
            "user" => pool.user = Some(Identity::Name(value.to_owned())),
            "terminate" => pool.terminate_after = Some(Duration::from_secs(some(value).get().into())),
            "pm" => pool.manager = manager(value),
            "access_log" => pool.access_log = Some(folder.join(value)),
            _ => panic!("what is {setting}?"),
        }
    }
    pool
}

/// `dynamic:START:LEAST:MOST:RATE` or `ondemand:SECONDS`.
fn manager(text: &str) -> ProcessManager {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        ["dynamic", start, least, most, rate] => ProcessManager::Dynamic {
            start_servers: some(start),
            min_spare: some(least),
            max_spare: some(most),
            max_spawn_rate: some(rate),
        },
        ["ondemand", seconds] => ProcessManager::OnDemand {
            idle_timeout: Duration::from_secs(some(seconds).get().into()),
        },
        _ => panic!("what is {text}?"),
    }
}

fn some(text: &str) -> NonZeroU32 {
    text.parse().expect("a number above zero")
}
