//! Where the numbers were measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::BenchError;
use crate::process::run_tool;
use crate::stop::Stop;

const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// The machine, and the programs on it.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// When the run began, seconds since the epoch.
    pub time_unix_s: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// Of the first processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Whether the processor says that a hypervisor is below it.
    pub virtual_machine: bool,
    /// All of it.
    pub memory_mb: u64,
    /// Load averages when the run began; much above 0 means noise.
    pub load_average: String,
    /// First line of `--version` (`-v`) of each program that was found.
    pub versions: Vec<String>,
}

impl Machine {
    /// Looks; runs each of `programs` with its flag once.
    ///
    /// # Errors
    /// [`BenchError::Interrupted`]. What cannot be found out is left empty.
    pub fn inspect(programs: &[(&Path, &str)], dir: &Path, stop: &Stop) -> Result<Self, BenchError> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo
                .lines()
                .find(|line| line.split(':').next().map(str::trim) == Some(name));
            line.and_then(|line| line.split_once(':'))
                .map_or("", |(_, value)| value.trim())
        };
        let meminfo = read("/proc/meminfo");
        let total_kb = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let uname = rustix::system::uname();
        let mut versions = Vec::new();
        for (program, flag) in programs {
            let mut command = Command::new(program);
            command.arg(flag);
            match run_tool(command, &dir.join("version"), VERSION_LIMIT, stop) {
                Ok(text) => versions.push(format!(
                    "{}: {}",
                    program.display(),
                    text.lines().next().unwrap_or("")
                )),
                Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                // wrk prints its version and fails.
                Err(BenchError::Tool { output, .. }) => {
                    versions.push(format!(
                        "{}: {}",
                        program.display(),
                        output.lines().next().unwrap_or("")
                    ));
                }
                Err(_) => {}
            }
        }
        Ok(Self {
            time_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
            cpu: field("model name").to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            virtual_machine: field("flags").split_whitespace().any(|flag| flag == "hypervisor"),
            memory_mb: total_kb.and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024,
            load_average: read("/proc/loadavg")
                .split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
            versions,
        })
    }
}
