//! From what was asked for to the processes that are meant.
//!
//! A pool is found as people find it, by the titles of its workers, which php-fpm and
//! Glasspool write alike: `php-fpm: pool NAME`. Anybody may call a process so; nothing
//! is trusted on the strength of it, for a process that is no PHP is refused when it is
//! opened.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use glasspool_abi::Pid;

/// What php-fpm puts before a pool's name (`fpm_env_setproctitle`, sapi/fpm/fpm/fpm_env.c).
const POOL_TITLE: &str = "php-fpm: pool ";
/// Of processes that start PHP and never run a script.
const MANAGER_TITLES: [&str; 2] = ["php-fpm: master process", "glasspool: engine"];
/// Titles are shorter; command lines need not be.
const CMDLINE_CAP: u64 = 4 * 1024;
/// A PHP with every extension has some 600 mappings of about 100 bytes.
const MAPS_CAP: u64 = 4 * 1024 * 1024;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// One process.
    Pid(Pid),
    /// Every worker of the pools of this name.
    Pool(String),
    /// Every process that seems to run PHP.
    All,
}

/// A process that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its id.
    pub(super) pid: Pid,
    /// The pool that its title names.
    pub(super) pool: Option<String>,
    /// Whether it was asked for by its number, rather than found: then it is an error if
    /// it turns out not to run PHP.
    pub(super) asked_for: bool,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    /// Nobody has this title.
    #[error("no process has the title `php-fpm: pool {pool}`{}", one_of(others))]
    NoPool {
        /// What was asked for.
        pool: String,
        /// The pools that there are.
        others: BTreeSet<String>,
    },
    /// There is no such process.
    #[error("cannot look into process {pid}: there is no such process")]
    NoProcess {
        /// What was asked for.
        pid: Pid,
    },
    /// There is no PHP here at all.
    #[error("no process runs PHP, as far as can be seen from here")]
    Nothing,
    /// No list of processes.
    #[error("cannot list the processes in {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn one_of(others: &BTreeSet<String>) -> String {
    let names: Vec<_> = others.iter().map(|name| super::console::plain(name)).collect();
    match names.as_slice() {
        [] => " (and no pool runs here)".to_owned(),
        names => format!(" (pools here: {})", names.join(", ")),
    }
}

/// A `/proc` to find processes in.
#[derive(Debug)]
pub(super) struct Processes {
    root: PathBuf,
}

impl Processes {
    /// This machine's, or the container's, in which we run.
    pub(super) fn here() -> Processes {
        Processes::at("/proc")
    }

    fn at(root: impl Into<PathBuf>) -> Processes {
        Processes { root: root.into() }
    }

    /// The processes that are meant, each once, by id; and what could not be found.
    ///
    /// Reads the title of every process; for [`Selector::All`] also links and, of
    /// programs that are not called after PHP, mappings: some 50 us each.
    pub(super) fn find(&self, selectors: &[Selector]) -> (Vec<Found>, Vec<TargetError>) {
        let mut found = Vec::new();
        let mut errors = Vec::new();
        let pids = if selectors
            .iter()
            .all(|selector| matches!(selector, Selector::Pid(_)))
        {
            Vec::new()
        } else {
            self.pids().unwrap_or_else(|error| {
                errors.push(error);
                Vec::new()
            })
        };
        let listed = errors.is_empty();
        for selector in selectors {
            let before = found.len();
            match selector {
                Selector::Pid(pid) => match self.exists(*pid) {
                    true => found.push(self.found(*pid, true)),
                    false => errors.push(TargetError::NoProcess { pid: *pid }),
                },
                Selector::Pool(name) => {
                    let mut others = BTreeSet::new();
                    for pid in &pids {
                        match self.pool(*pid) {
                            // A worker's child has its title until it executes another
                            // program, and workers end while one looks.
                            Some(pool) if pool == *name => found.push(Found {
                                pid: *pid,
                                pool: Some(pool),
                                asked_for: false,
                            }),
                            Some(other) => drop(others.insert(other)),
                            None => {}
                        }
                    }
                    if found.len() == before && listed {
                        let pool = name.clone();
                        errors.push(TargetError::NoPool { pool, others });
                    }
                }
                Selector::All => {
                    let likely = pids.iter().filter(|pid| self.is_like_php(**pid));
                    found.extend(likely.map(|pid| self.found(*pid, false)));
                    if found.len() == before && listed {
                        errors.push(TargetError::Nothing);
                    }
                }
            }
        }
        // One that was asked for comes before the same one that was found.
        found.sort_by_key(|one: &Found| (one.pid, !one.asked_for));
        found.dedup_by_key(|one| one.pid);
        (found, errors)
    }

    fn found(&self, pid: Pid, asked_for: bool) -> Found {
        Found {
            pid,
            pool: self.pool(pid),
            asked_for,
        }
    }

    fn pids(&self) -> Result<Vec<Pid>, TargetError> {
        let entries = fs::read_dir(&self.root).map_err(|source| TargetError::List {
            path: self.root.clone(),
            source,
        })?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names
            .filter_map(|name| name.parse().ok().filter(|pid| *pid > 0).map(Pid))
            .collect())
    }

    fn exists(&self, pid: Pid) -> bool {
        self.directory(pid).is_dir()
    }

    fn directory(&self, pid: Pid) -> PathBuf {
        self.root.join(pid.to_string())
    }

    /// The pool that a process's title names.
    fn pool(&self, pid: Pid) -> Option<String> {
        let title = self.title(pid)?;
        let name = title.strip_prefix(POOL_TITLE)?.trim_end();
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// The first argument; a title that was set replaces all of them.
    fn title(&self, pid: Pid) -> Option<String> {
        let text = read_capped(&self.directory(pid).join("cmdline"), CMDLINE_CAP).ok()?;
        let first = text.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(first).into_owned())
    }

    /// Whether a process is worth opening: its program is called after PHP, or it has
    /// loaded a library that is. One whose program may not be seen counts by its title,
    /// so that the refusal is told rather than the process left out.
    fn is_like_php(&self, pid: Pid) -> bool {
        let title = self.title(pid).unwrap_or_default();
        if title.is_empty() || MANAGER_TITLES.iter().any(|manager| title.starts_with(manager)) {
            return false;
        }
        let directory = self.directory(pid);
        match fs::read_link(directory.join("exe")) {
            Ok(exe) if has_php_name(&exe) => true,
            Ok(_) => read_capped(&directory.join("maps"), MAPS_CAP).is_ok_and(|maps| maps_php(&maps)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                title.starts_with(POOL_TITLE) || has_php_name(Path::new(&title))
            }
            Err(_) => false,
        }
    }
}

fn read_capped(path: &Path, cap: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(cap).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `php8.2`, `php-fpm`, `libphp.so`, `frankenphp`; not something in a folder called php.
fn has_php_name(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| name.contains("php"))
}

/// Whether a library called after PHP is among the mappings.
fn maps_php(maps: &[u8]) -> bool {
    let text = String::from_utf8_lossy(maps);
    text.lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]))
        .any(|path| has_php_name(Path::new(path)))
}

impl FromStr for Selector {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Selector, Infallible> {
        if let Some(name) = text.strip_prefix("pool:") {
            return Ok(Selector::Pool(name.to_owned()));
        }
        Ok(match text.parse() {
            Ok(pid) if pid > 0 => Selector::Pid(Pid(pid)),
            _ if text == "all" => Selector::All,
            _ => Selector::Pool(text.to_owned()),
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Pid(pid) => write!(f, "{pid}"),
            Selector::Pool(name) => write!(f, "pool {name}"),
            Selector::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
#[path = "targets_tests.rs"]
mod tests;
