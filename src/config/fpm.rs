//! Reads a php-fpm.conf and what it includes into sections as written; `check` judges the whole afterwards.
//!
//! Order matters as in php-fpm: a scalar's last line wins, the current section goes on through an include and
//! back, and the first mistake stops everything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::directives::{self, Array, Directive, Placed, RawGlobal, RawPool, Scalar};
use super::effective::{Environment, LogLevel, Notice};
use super::error::{BadValue, ConfigError, Fault, Nearest, Place, Shown};
use super::ini::{self, Statement};
use super::values::{self, ProcessManager};

/// Most bytes of one load, over all files. Ten thousand pools of a hundred lines stay far below.
const MAX_TOTAL_BYTES: u64 = 16 * 1024 * 1024;
/// Deepest chain of files, the first one included: php-fpm's own limit.
const MAX_FILES_DEEP: usize = 5;

/// As glob(3): above all `*` leaves out hidden files, which editors put beside the real ones.
const LIKE_GLOB_3: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Everything that was read, in file order.
#[derive(Debug, Default)]
pub(super) struct RawFpm {
    pub(super) global: RawGlobal,
    pub(super) pools: Vec<RawPool>,
    pub(super) notices: Vec<Notice>,
}

/// Reads `path` and its includes; relative include patterns start at `include_root`.
pub(super) fn read(
    path: &Path,
    include_root: &Path,
    environment: &Environment,
) -> Result<RawFpm, ConfigError> {
    let mut reader = Reader {
        include_root,
        environment,
        raw: RawFpm::default(),
        pool_index: BTreeMap::new(),
        current: None,
        bytes_left: MAX_TOTAL_BYTES,
    };
    reader.file(path, None, 1)?;
    Ok(reader.raw)
}

struct Reader<'a> {
    include_root: &'a Path,
    environment: &'a Environment,
    raw: RawFpm,
    /// Lower case section name to its place in `raw.pools`.
    pool_index: BTreeMap<String, usize>,
    /// The pool that lines go to; `None` is `[global]`.
    current: Option<usize>,
    bytes_left: u64,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, included_at: Option<&Place>, depth: usize) -> Result<(), ConfigError> {
        let opened = File::open(path).map_err(|e| ConfigError::io(path, included_at, e))?;
        let mut text = Vec::new();
        let read = opened.take(self.bytes_left + 1).read_to_end(&mut text);
        let read = read.map_err(|e| ConfigError::io(path, included_at, e))? as u64;
        let too_large = Fault::TooLarge {
            what: "php-fpm.conf with its includes",
            limit: MAX_TOTAL_BYTES,
        };
        self.bytes_left = self
            .bytes_left
            .checked_sub(read)
            .ok_or_else(|| ConfigError::at(&Place::line(path, 1), too_large))?;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let place = Place::line(path, index + 1);
            let statement = ini::parse_line(line, self.environment);
            match statement.map_err(|fault| ConfigError::at(&place, fault))? {
                None => {}
                Some(Statement::Scalar { name, value }) if name == "include" => {
                    self.include(&value, &place, depth)?;
                }
                Some(statement) => self.statement(statement, &place)?,
            }
        }
        Ok(())
    }

    fn include(&mut self, pattern: &str, place: &Place, depth: usize) -> Result<(), ConfigError> {
        if depth >= MAX_FILES_DEEP {
            return Err(ConfigError::at(
                place,
                Fault::IncludeDepth {
                    limit: MAX_FILES_DEEP,
                },
            ));
        }
        let shown = Shown::from(pattern);
        // `join` keeps an absolute pattern as it is.
        let root = glob::Pattern::escape(&self.include_root.to_string_lossy());
        let full = Path::new(&root).join(pattern);
        let paths = glob::glob_with(&full.to_string_lossy(), LIKE_GLOB_3);
        let bad = |e: glob::PatternError| Fault::BadPattern {
            pattern: shown.clone(),
            reason: e.msg,
        };
        let paths = paths.map_err(|e| ConfigError::at(place, bad(e)))?;
        let mut found: Vec<PathBuf> = Vec::new();
        for path in paths {
            found.push(path.map_err(|e| {
                let path = e.path().to_path_buf();
                ConfigError::io(&path, Some(place), e.into())
            })?);
        }
        if found.is_empty() {
            let directory = full.parent().unwrap_or(Path::new("/"));
            let wild = directory.to_string_lossy().contains(['*', '?', '[']);
            if !wild && std::fs::read_dir(directory).is_err() {
                let fault = Fault::Globalize {
                    pattern: shown,
                    place: place.clone(),
                };
                return Err(ConfigError::at(place, fault));
            }
            let (file, line) = (Shown::from(place.file.as_path()), place.line);
            let text = format!("Nothing matches the include pattern '{shown}' from {file} at line {line}.");
            let notice = Notice {
                level: LogLevel::Warning,
                place: Some(place.clone()),
                text,
            };
            self.raw.notices.push(notice);
        }
        found.sort();
        found
            .iter()
            .filter(|path| !path.is_dir())
            .try_for_each(|path| self.file(path, Some(place), depth + 1))
    }

    fn statement(&mut self, statement: Statement, place: &Place) -> Result<(), ConfigError> {
        let done = match statement {
            Statement::Section(name) => {
                self.section(name, place);
                Ok(())
            }
            Statement::Scalar { name, value } => self.scalar(&name, value, place),
            Statement::Array { name, key, value } => self.array(&name, &key, value),
        };
        done.map_err(|fault| ConfigError::at(place, fault))
    }

    fn section(&mut self, name: String, place: &Place) {
        let folded = name.to_ascii_lowercase();
        self.current = (folded != "global").then(|| {
            let pools = &mut self.raw.pools;
            *self.pool_index.entry(folded).or_insert_with(|| {
                pools.push(RawPool::new(name, place.clone()));
                pools.len() - 1
            })
        });
    }

    fn scalar(&mut self, name: &str, value: String, place: &Place) -> Result<(), Fault> {
        match self.current.map(|index| &mut self.raw.pools[index]) {
            None => {
                let elsewhere = directives::find(directives::POOL, name).map(|_| "a pool section");
                let directive = known(directives::GLOBAL, name, elsewhere)?;
                set(&mut self.raw.global, directive, value, None, place)?;
                refuse_in_global(&self.raw.global)
            }
            Some(pool) => {
                let elsewhere = directives::find(directives::GLOBAL, name).map(|_| "[global]");
                let directive = known(directives::POOL, name, elsewhere)?;
                let pool_name = pool.name.clone();
                set(pool, directive, value, Some(&pool_name), place)?;
                refuse_in_pool(pool)
            }
        }
    }

    fn array(&mut self, name: &str, key: &str, value: String) -> Result<(), Fault> {
        let Some(pool) = self.current.map(|index| &mut self.raw.pools[index]) else {
            return Err(Fault::GlobalArray {
                name: Shown::from(name),
                key: Shown::from(key),
            });
        };
        let Some(array) = Array::ALL.into_iter().find(|array| array.name() == name) else {
            let nearest = Nearest::among(name, Array::ALL.map(Array::name));
            return Err(Fault::UnknownDirective {
                name: Shown::from(name),
                nearest,
            });
        };
        if array != Array::SuppressPath && key.is_empty() {
            return Err(Fault::NoKey { name: array.name() });
        }
        let flag = |value: &str| {
            let bad = |reason| Fault::ArrayValue {
                name: array.name(),
                key: Shown::from(key),
                reason,
                found: Shown::from(value),
            };
            values::boolean(value)
                .map(|on| String::from(if on { "1" } else { "0" }))
                .map_err(bad)
        };
        // `$pool` means the pool in values; php-fpm leaves flags alone, where it could only be wrong.
        let text = |value: String, pool: &RawPool| value.replace("$pool", &pool.name);
        match array {
            Array::SuppressPath => return Err(Fault::Unsupported { name: array.name() }),
            Array::Env if value.is_empty() => {
                return Err(Fault::EmptyEnv {
                    key: Shown::from(key),
                });
            }
            Array::Env if key.contains('=') => {
                return Err(Fault::EnvName {
                    key: Shown::from(key),
                });
            }
            Array::Env => pool.env.push((key.to_owned(), text(value, pool))),
            Array::PhpValue => pool.php_values.push((key.to_owned(), text(value, pool))),
            Array::PhpFlag => pool.php_values.push((key.to_owned(), flag(&value)?)),
            Array::PhpAdminValue => pool.php_admin_values.push((key.to_owned(), text(value, pool))),
            Array::PhpAdminFlag => pool.php_admin_values.push((key.to_owned(), flag(&value)?)),
        }
        Ok(())
    }
}

fn known<S>(
    table: &'static [Directive<S>],
    name: &str,
    elsewhere: Option<&'static str>,
) -> Result<&'static Directive<S>, Fault> {
    directives::find(table, name).ok_or_else(|| match elsewhere {
        Some(section) => Fault::WrongSection {
            name: Shown::from(name),
            section,
        },
        None => {
            let names = table.iter().map(|directive| directive.name);
            Fault::UnknownEntry {
                name: Shown::from(name),
                nearest: Nearest::among(name, names),
            }
        }
    })
}

fn set<S>(
    section: &mut S,
    directive: &'static Directive<S>,
    value: String,
    pool: Option<&str>,
    place: &Place,
) -> Result<(), Fault> {
    let bad = |reason| Fault::Value {
        name: directive.name,
        reason,
        found: Shown::from(value.as_str()),
    };
    match &directive.scalar {
        Scalar::Text(field) => {
            let text = match pool {
                Some(pool) => value.replace("$pool", pool),
                None if value.contains("$pool") => return Err(bad(BadValue::PoolVariable)),
                None => value,
            };
            // An empty text is php-fpm's way to say "not set".
            *field(section) = (!text.is_empty()).then(|| placed(text, place));
        }
        Scalar::Integer(field) => {
            *field(section) = Some(placed(values::integer(&value).map_err(bad)?, place))
        }
        Scalar::Time(field) => *field(section) = Some(placed(values::time(&value).map_err(bad)?, place)),
        Scalar::Boolean(field) => {
            *field(section) = Some(placed(values::boolean(&value).map_err(bad)?, place))
        }
        Scalar::LogLevel(field) => {
            *field(section) = Some(placed(values::log_level(&value).map_err(bad)?, place));
        }
        Scalar::ProcessManager(field) => {
            *field(section) = Some(placed(values::process_manager(&value).map_err(bad)?, place));
        }
        Scalar::Mode(field) => *field(section) = Some(placed(values::mode(&value).map_err(bad)?, place)),
        Scalar::Unsupported => return Err(Fault::Unsupported { name: directive.name }),
    }
    Ok(())
}

fn placed<T>(value: T, place: &Place) -> Placed<T> {
    Placed {
        value,
        place: place.clone(),
    }
}

/// Values that are right in php-fpm and cannot be had here yet.
fn refuse_in_global(global: &RawGlobal) -> Result<(), Fault> {
    if global.daemonize.as_ref().is_some_and(|daemonize| daemonize.value) {
        return Err(Fault::Daemonize);
    }
    if global
        .error_log
        .as_ref()
        .is_some_and(|log| log.value.eq_ignore_ascii_case("syslog"))
    {
        return Err(Fault::Syslog);
    }
    Ok(())
}

fn refuse_in_pool(pool: &RawPool) -> Result<(), Fault> {
    match pool.pm.as_ref().map(|pm| pm.value) {
        Some(ProcessManager::Dynamic) => Err(Fault::ProcessManager { pm: "dynamic" }),
        Some(ProcessManager::OnDemand) => Err(Fault::ProcessManager { pm: "ondemand" }),
        Some(ProcessManager::Static) | None => Ok(()),
    }
}
