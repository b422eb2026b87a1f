//! Reads a php-fpm.conf and what it includes into sections as written; `check` judges the whole afterwards.
//!
//! Order matters as in php-fpm: a scalar's last line wins, the current section goes on through an include and
//! back, and the first mistake stops everything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assign;
use super::directives::{PoolLines, RawGlobal, RawPool};
use super::effective::{Environment, LogLevel, Notice};
use super::error::{ConfigError, Fault, Place, Shown};
use super::ini::{self, Statement};

/// Most bytes of one load, over all files. Ten thousand pools of a hundred lines stay far below.
const MAX_TOTAL_BYTES: u64 = 16 * 1024 * 1024;
/// Most files of one load, each counted as often as it is included: empty ones cost time and no bytes.
const MAX_FILES: u32 = 65_536;
/// Deepest chain of files, the first one included: php-fpm's own limit.
const MAX_FILES_DEEP: usize = 5;

/// As glob(3): above all `*` leaves out hidden files, which editors put beside the real ones.
const LIKE_GLOB_3: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Everything that was read, in file order.
#[derive(Debug, Clone, Default)]
pub(super) struct RawFpm {
    pub(super) global: RawGlobal,
    pub(super) pools: Vec<RawPool>,
}

/// Reads `path` and its includes; relative include patterns start at `include_root`.
pub(super) fn read(
    path: &Path,
    include_root: &Path,
    environment: &Environment,
    notices: &mut Vec<Notice>,
) -> Result<RawFpm, ConfigError> {
    let mut reader = Reader {
        include_root,
        environment,
        notices,
        raw: RawFpm::default(),
        pool_index: BTreeMap::new(),
        current: None,
        bytes_left: MAX_TOTAL_BYTES,
        files_left: MAX_FILES,
    };
    reader.file(path, None, 1)?;
    Ok(reader.raw)
}

struct Reader<'a> {
    include_root: &'a Path,
    environment: &'a Environment,
    notices: &'a mut Vec<Notice>,
    raw: RawFpm,
    /// Lower case section name to its place in `raw.pools`.
    pool_index: BTreeMap<String, usize>,
    /// The pool that lines go to; `None` is `[global]`.
    current: Option<usize>,
    bytes_left: u64,
    files_left: u32,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, included_at: Option<&Place>, depth: usize) -> Result<(), ConfigError> {
        self.count_file(included_at, depth)?;
        let opened = File::open(path).map_err(|e| ConfigError::open(path, included_at, e))?;
        let mut text = Vec::new();
        let read = opened.take(self.bytes_left + 1).read_to_end(&mut text);
        let read = read.map_err(|e| ConfigError::open(path, included_at, e))? as u64;
        let too_large = Fault::TooLarge {
            what: "php-fpm.conf with its includes",
            limit: MAX_TOTAL_BYTES,
        };
        self.bytes_left = self
            .bytes_left
            .checked_sub(read)
            .ok_or_else(|| ConfigError::at(&Place::line(path, 1), too_large))?;
        let file: Arc<Path> = path.into();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let place = Place::line(Arc::clone(&file), index + 1);
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

    fn count_file(&mut self, included_at: Option<&Place>, depth: usize) -> Result<(), ConfigError> {
        if depth > MAX_FILES_DEEP {
            let fault = Fault::IncludeDepth {
                limit: MAX_FILES_DEEP,
            };
            return Err(ConfigError::new(included_at, fault));
        }
        let left = self.files_left.checked_sub(1);
        self.files_left =
            left.ok_or_else(|| ConfigError::new(included_at, Fault::IncludeCount { limit: MAX_FILES }))?;
        Ok(())
    }

    fn include(&mut self, pattern: &str, place: &Place, depth: usize) -> Result<(), ConfigError> {
        let shown = Shown::from(&*self.include_root.join(pattern));
        // `join` keeps an absolute pattern as it is.
        let root = glob::Pattern::escape(&self.include_root.to_string_lossy());
        let full = Path::new(&root).join(pattern);
        let paths = glob::glob_with(&full.to_string_lossy(), LIKE_GLOB_3);
        let bad = |e: glob::PatternError| Fault::BadPattern {
            pattern: shown.clone(),
            reason: e.msg,
        };
        let paths = paths.map_err(|e| ConfigError::at(place, bad(e)))?;
        let globalize = || {
            let (pattern, at) = (shown.clone(), place.clone());
            ConfigError::at(place, Fault::Globalize { pattern, at })
        };
        let mut found: Vec<PathBuf> = Vec::new();
        for path in paths {
            found.push(path.map_err(|e| {
                let unreadable = format!("{}: {}", e.path().display(), e.error());
                globalize().found(Shown::sentence(&unreadable))
            })?);
        }
        if found.is_empty() {
            let directory = full.parent().unwrap_or(Path::new("/"));
            let wild = directory.to_string_lossy().contains(['*', '?', '[']);
            if !wild && std::fs::read_dir(directory).is_err() {
                return Err(globalize());
            }
            let (file, line) = (Shown::from(&*place.file), place.line);
            let text = format!("Nothing matches the include pattern '{shown}' from {file} at line {line}.");
            let notice = Notice {
                level: LogLevel::Warning,
                place: Some(place.clone()),
                text,
            };
            self.notices.push(notice);
        }
        found.sort();
        found.iter().filter(|path| !path.is_dir()).try_for_each(|path| {
            self.file(path, Some(place), depth + 1)
                .map_err(|e| e.included(place, path))
        })
    }

    fn statement(&mut self, statement: Statement, place: &Place) -> Result<(), ConfigError> {
        let done = match statement {
            Statement::Section(name) => {
                self.section(name, place);
                Ok(())
            }
            Statement::Scalar { name, value } => self.scalar(&name, value, place),
            Statement::Array { name, key, value } => {
                let pool = self.current.map(|index| &mut self.raw.pools[index]);
                assign::array(pool, &name, &key, value)
            }
        };
        done.map_err(|fault| ConfigError::at(place, fault))
    }

    fn section(&mut self, name: String, place: &Place) {
        let folded = name.to_ascii_lowercase();
        self.current = (folded != "global").then(|| {
            let pools = &mut self.raw.pools;
            *self.pool_index.entry(folded).or_insert_with(|| {
                pools.push(RawPool {
                    name,
                    place: place.clone(),
                    lines: PoolLines::default(),
                });
                pools.len() - 1
            })
        });
    }

    fn scalar(&mut self, name: &str, value: String, place: &Place) -> Result<(), Fault> {
        match self.current {
            None => assign::global(&mut self.raw.global, name, value, place, self.notices),
            Some(index) => assign::pool(&mut self.raw.pools[index], name, value, place, self.notices),
        }
    }
}
