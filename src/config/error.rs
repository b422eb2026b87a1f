//! What can be wrong with a configuration, as one catalogue.
//!
//! Where php-fpm has a message for the same mistake its text is kept word for word (log tools and php-fpm's own tests
//! match it) and what was found or allowed follows it. php-fpm calls a scalar "entry" and an array "directive";
//! so do these texts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Longest excerpt of the operator's text in a message, in characters.
const SHOWN_CHARS: usize = 120;

/// A configuration that was refused: where, and why. `Display` is always one line.
#[derive(Debug, thiserror::Error)]
#[error("{}{fault}", Prefix(.place.as_ref()))]
pub struct ConfigError {
    place: Option<Place>,
    #[source]
    source: Option<io::Error>,
    /// Boxed to keep the results of this room small: the largest fault carries four texts.
    fault: Box<Fault>,
}

impl ConfigError {
    /// Where the mistake stands; absent when no line can be blamed (a file that cannot be opened, no pool at all).
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The reason without its place: for post-validation mistakes this is the line that php-fpm itself logs.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    pub(super) fn at(place: &Place, fault: Fault) -> Self {
        Self {
            place: Some(place.clone()),
            source: None,
            fault: Box::new(fault),
        }
    }

    pub(super) fn without_place(fault: Fault) -> Self {
        Self {
            place: None,
            source: None,
            fault: Box::new(fault),
        }
    }

    pub(super) fn io(path: &Path, place: Option<&Place>, source: io::Error) -> Self {
        let fault = Fault::Open {
            path: Shown::from(path),
        };
        Self {
            place: place.cloned(),
            source: Some(source),
            fault: Box::new(fault),
        }
    }
}

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named: on the command line, by an `include`, or by discovery.
    pub file: PathBuf,
    /// Line, counted from one.
    pub line: usize,
    /// Column in characters, counted from one; known for TOML only.
    pub column: Option<usize>,
}

impl Place {
    pub(super) fn line(file: &Path, line: usize) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            column: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Shown::from(self.file.as_path()), self.line)?;
        self.column.map_or(Ok(()), |column| write!(f, ":{column}"))
    }
}

struct Prefix<'a>(Option<&'a Place>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |place| write!(f, "[{place}] "))
    }
}

/// A piece of the operator's text made fit for one line of a log: control characters escaped, length bounded.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    /// A sentence that may quote the operator's text, so several times as long as an excerpt.
    pub(super) fn sentence(text: &str) -> Self {
        Self::bounded(text, 5 * SHOWN_CHARS)
    }

    fn bounded(text: &str, limit: usize) -> Self {
        let mut shown = String::new();
        for (count, c) in text.chars().enumerate() {
            if count == limit {
                shown.push('…');
                break;
            }
            if c.is_control() {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        Self(shown)
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Self::bounded(text, SHOWN_CHARS)
    }
}

impl From<&Path> for Shown {
    fn from(path: &Path) -> Self {
        // A path is worth its full length; PATH_MAX bounds it.
        Self::bounded(&path.to_string_lossy(), usize::MAX)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0)
    }
}

/// The nearest known name, ready to end a message; empty when nothing is near.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nearest(Option<&'static str>);

impl Nearest {
    /// Below this Jaro-Winkler similarity (0 to 1) a suggestion misleads more than it helps.
    const SIMILAR: f64 = 0.8;

    pub(super) fn among(name: &str, known: impl IntoIterator<Item = &'static str>) -> Self {
        // The comparison is quadratic, so a hostile name is cut first.
        let name: String = name
            .chars()
            .take(SHOWN_CHARS)
            .flat_map(char::to_lowercase)
            .collect();
        let scored = known
            .into_iter()
            .map(|known| (strsim::jaro_winkler(&name, known), known));
        let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
        Self(
            best.filter(|(score, _)| *score >= Self::SIMILAR)
                .map(|(_, known)| known),
        )
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .map_or(Ok(()), |name| write!(f, " (did you mean '{name}'?)"))
    }
}

/// Every reason for refusing a configuration.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it means and shows its fields"
)]
pub enum Fault {
    // Files
    #[error("failed to open configuration file '{path}'")]
    Open { path: Shown },
    #[error("file is larger than the {limit} bytes allowed for {what}")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("line is longer than {limit} bytes")]
    LongLine { limit: usize },
    #[error("line contains a NUL byte; configuration files are text")]
    Nul,
    #[error("line is not valid UTF-8 at byte {offset}")]
    NotUtf8 { offset: usize },
    #[error("failed to include more than {limit} files recursively")]
    IncludeDepth { limit: usize },
    #[error("include pattern '{pattern}' is not a valid glob: {reason}")]
    BadPattern { pattern: Shown, reason: &'static str },
    #[error("Unable to globalize '{pattern}' (ret=2) from {place}: the directory cannot be read")]
    Globalize { pattern: Shown, place: Place },

    // Syntax of the php-fpm dialect
    #[error("value is NULL for a ZEND_INI_PARSER_ENTRY: '{name}' has no '=' ({hint})")]
    NoValue { name: Shown, hint: &'static str },
    #[error("syntax error in section header: found '{found}', allowed is '[name]' alone on its line")]
    Section { found: Shown },
    #[error("syntax error: found '{found}' where a name was expected, allowed is 'name = value'")]
    Name { found: Shown },
    #[error("syntax error: '{found}' after '{name}[', allowed is '{name}[key] = value'")]
    Array { name: Shown, found: Shown },
    #[error("syntax error, unexpected '{found}' in the value of '{name}': quote the value")]
    Unquoted { name: Shown, found: Shown },
    #[error("syntax error, missing closing {delimiter} in the value of '{name}'")]
    Unterminated { name: Shown, delimiter: &'static str },
    #[error(
        "syntax error in the value of '{name}': unquoted {operator} computes with integers, found '{found}': quote the value if it is text"
    )]
    Operand {
        name: Shown,
        operator: char,
        found: Shown,
    },
    #[error(
        "PHP constant '{constant}' in the value of '{name}' is not known outside PHP: write its value, or quote the text"
    )]
    Constant { name: Shown, constant: Shown },

    // Names
    #[error("unknown entry '{name}'{nearest}")]
    UnknownEntry { name: Shown, nearest: Nearest },
    #[error("unknown entry '{name}' (it belongs into {section})")]
    WrongSection { name: Shown, section: &'static str },
    #[error("unknown directive '{name}'{nearest}")]
    UnknownDirective { name: Shown, nearest: Nearest },
    #[error("directive '{name}' is not supported yet: remove it or comment it out")]
    Unsupported { name: &'static str },
    #[error("Array are not allowed in the global section: found '{name}[{key}]'")]
    GlobalArray { name: Shown, key: Shown },
    #[error("You must provide a key for field '{name}'")]
    NoKey { name: &'static str },

    // Values
    #[error("unable to parse value for entry '{name}': {reason} (found '{found}')")]
    Value {
        name: &'static str,
        reason: BadValue,
        found: Shown,
    },
    #[error("error while parsing '{name}[{key}]' : {reason} (found '{found}')")]
    ArrayValue {
        name: &'static str,
        key: Shown,
        reason: BadValue,
        found: Shown,
    },
    #[error("empty value for 'env[{key}]'")]
    EmptyEnv { key: Shown },
    #[error("'env[{key}]' is not a name for an environment variable: '=' is not allowed in it")]
    EnvName { key: Shown },
    #[error(
        "'daemonize = yes' is not supported: set it to no and let the service manager keep glasspool in the background"
    )]
    Daemonize,
    #[error("'pm = {pm}' is not supported yet, allowed is static")]
    ProcessManager { pm: &'static str },
    #[error("'error_log = syslog' is not supported yet: name a file, or /dev/stderr")]
    Syslog,

    // The whole, after reading
    #[error("the global prefix '{path}' does not exist or is not a directory")]
    GlobalPrefix { path: Shown },
    #[error("No pool defined. at least one pool section must be specified in config file ({file})")]
    NoPool { file: Shown },
    #[error("[pool {pool}] {fault}")]
    Pool { pool: Shown, fault: PoolFault },

    // glasspool.toml
    #[error("{reason}")]
    Toml { reason: Shown },
    #[error("unknown key '{key}'{nearest}{allowed}")]
    UnknownKey {
        key: Shown,
        nearest: Shown,
        allowed: Shown,
    },
    #[error("[pool.{pool}] overrides a pool that {file} does not define (known: {known})")]
    UnknownPool { pool: Shown, file: Shown, known: Shown },
}

/// Why a value does not fit its directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it means")]
pub enum BadValue {
    #[error("is not a valid number (greater or equal than zero)")]
    Integer,
    #[error("invalid time value, allowed is a number with s, m, h or d")]
    Time,
    #[error("unknown suffix used in time value, allowed are s, m, h and d")]
    TimeSuffix,
    #[error("invalid boolean value, allowed are yes and no")]
    Boolean,
    #[error("invalid value for 'log_level', allowed are debug, notice, warning, error and alert")]
    LogLevel,
    #[error("invalid process manager (static, dynamic or ondemand)")]
    ProcessManager,
    #[error("invalid socket mode, allowed are octal digits up to 0777")]
    Mode,
    #[error("Can't use '$pool' when the pool is not defined")]
    PoolVariable,
}

/// Why one pool is refused.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it means and shows its fields"
)]
pub enum PoolFault {
    #[error("user has not been defined")]
    NoUser,
    #[error("cannot get uid for user '{name}'")]
    UnknownUser { name: Shown },
    #[error("cannot get gid for group '{name}'")]
    UnknownGroup { name: Shown },
    #[error("please specify user and group other than root")]
    Root,
    #[error("no listen address have been defined!")]
    NoListen,
    #[error("invalid port value '{found}' in 'listen', allowed are 1 to 65535")]
    Port { found: Shown },
    #[error(
        "cannot resolve listen address '{address}': {reason} (allowed are port, ip:port, [ipv6]:port, host:port and a unix path without ':')"
    )]
    Resolve { address: Shown, reason: Shown },
    #[error(
        "cannot bind to UNIX socket '{path}' as path is too long (found length: {found}, maximal length: {limit})"
    )]
    LongSocketPath { path: Shown, found: usize, limit: usize },
    #[error("unable to set listen address as it's already used in another pool '{other}'")]
    ListenTwice { other: Shown },
    #[error("the process manager is missing (static, dynamic or ondemand)")]
    NoProcessManager,
    #[error("pm.max_children must be a positive value")]
    MaxChildren,
    #[error("'slowlog' must be specified for use with '{directive}'")]
    NoSlowlog { directive: &'static str },
    #[error("'request_slowlog_trace_depth' ({found}) must be a positive value")]
    TraceDepth { found: i32 },
    #[error("the chroot path '{path}' does not exist or is not a directory")]
    ChrootMissing { path: Shown },
    #[error("the chdir path '{path}' does not exist or is not a directory")]
    ChdirMissing { path: Shown },
    #[error(
        "the chdir path '{chdir}' within the chroot path '{chroot}' ('{whole}') does not exist or is not a directory"
    )]
    ChdirInChroot {
        chdir: Shown,
        chroot: Shown,
        whole: Shown,
    },
}
