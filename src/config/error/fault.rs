//! Every reason for refusing a configuration, but for those of one pool.

use super::{BadValue, Nearest, Place, PoolFault, Shown};
use crate::config::effective::LogLevel;

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
    #[error("more than {limit} files are included")]
    IncludeCount { limit: u32 },
    #[error("include pattern '{pattern}' is not a valid glob: {reason}")]
    BadPattern { pattern: Shown, reason: &'static str },
    /// 2 is GLOB_ABORTED of glob(3).
    #[error("Unable to globalize '{pattern}' (ret=2) from {} at line {}.", Shown::from(&*.at.file), .at.line)]
    Globalize { pattern: Shown, at: Place },

    // Syntax of the php-fpm dialect
    #[error("value is NULL for a ZEND_INI_PARSER_ENTRY")]
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
    #[error("unknown entry '{name}'")]
    UnknownEntry { name: Shown, nearest: Nearest },
    #[error("unknown entry '{name}'")]
    WrongSection { name: Shown, section: &'static str },
    #[error("unknown entry '{name}'")]
    OtherPlatform { name: &'static str, why: &'static str },
    #[error("unknown directive '{name}'")]
    UnknownDirective { name: Shown, nearest: Nearest },
    #[error("Array are not allowed in the global section")]
    GlobalArray { name: Shown, key: Shown },
    #[error("You must provide a key for field '{name}'")]
    NoKey { name: Shown },
    #[error("Keys provided to field 'access.suppress_path' are ignored")]
    SuppressKey { key: Shown },

    // Values
    #[error("unable to parse value for entry '{name}': {reason}")]
    Value {
        name: &'static str,
        reason: BadValue,
        found: Shown,
    },
    #[error("error while parsing '{name}[{key}]' : {reason}")]
    ArrayValue {
        name: &'static str,
        key: Shown,
        reason: BadValue,
        found: Shown,
    },
    #[error("Values provided to field 'access.suppress_path' must begin with '/'")]
    SuppressValue { found: Shown },
    #[error("empty value")]
    EmptyEnv { key: Shown },
    #[error("'env[{key}]' is not a name for an environment variable: '=' is not allowed in it")]
    EnvName { key: Shown },

    // [global] as a whole
    #[error("the global prefix '{path}' does not exist or is not a directory")]
    GlobalPrefix { path: Shown },
    #[error("log_limit must be greater than {limit}")]
    LogLimit { limit: usize },
    #[error("process_max can't be negative")]
    ProcessMax,
    #[error("process.priority must be included into [-19,20]")]
    Priority,
    #[error("event mechanism '{name}' is not available on this system")]
    EventMechanism { name: Shown },
    #[error("No pool defined. at least one pool section must be specified in config file")]
    NoPool { file: Shown },

    // Pools
    #[error("[pool {pool}] {fault}")]
    Pool { pool: Shown, fault: PoolFault },
    #[error("Unable to create or open slowlog({path})")]
    Slowlog { path: Shown },
    #[error("failed to open access log ({path})")]
    AccessLog { path: Shown },
    #[error("invalid port value '{found}'")]
    Port { found: Shown },
    #[error("getaddrinfo: {reason}")]
    Resolve { reason: Shown },

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
    #[error("this rule is for the pool '{pool}', which {file} does not define (known: {known})")]
    RuleOfUnknownPool { pool: Shown, file: Shown, known: Shown },
}

/// How far php-fpm would have come, which decides the lines that follow the mistake's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Stage {
    /// Before any file was read.
    Arguments,
    /// While lines were read, one after the other.
    Reading,
    /// When everything was read, looking at the whole.
    PostProcessing,
    /// When sockets are made and accounts looked up.
    Starting,
}

impl Fault {
    pub(in crate::config) fn stage(&self) -> Stage {
        match self {
            Self::GlobalPrefix { .. } => Stage::Arguments,
            Self::LogLimit { .. }
            | Self::ProcessMax
            | Self::Priority
            | Self::EventMechanism { .. }
            | Self::NoPool { .. }
            | Self::Slowlog { .. }
            | Self::AccessLog { .. } => Stage::PostProcessing,
            Self::Pool { fault, .. } => fault.stage(),
            Self::Port { .. } | Self::Resolve { .. } => Stage::Starting,
            _ => Stage::Reading,
        }
    }

    /// Whether php-fpm's own line begins with the place.
    pub(in crate::config) fn names_place(&self) -> bool {
        let unplaced = matches!(
            self,
            Self::Open { .. } | Self::IncludeDepth { .. } | Self::Globalize { .. }
        );
        self.stage() == Stage::Reading && !unplaced
    }

    pub(in crate::config) fn level(&self) -> LogLevel {
        match self {
            Self::Pool { fault, .. } => fault.level(),
            _ => LogLevel::Error,
        }
    }

    /// What the operator may write instead, where the message does not say it.
    pub(in crate::config) fn allowed(&self) -> Option<String> {
        let text = match self {
            Self::Value { reason, found, .. } | Self::ArrayValue { reason, found, .. } => {
                format!("found '{found}', allowed {}", reason.allowed())
            }
            Self::NoValue { name, hint } => format!("'{name}' has no '=', {hint}"),
            Self::UnknownEntry { nearest, .. } | Self::UnknownDirective { nearest, .. } => {
                return nearest.question();
            }
            Self::WrongSection { section, .. } => format!("it belongs into {section}"),
            Self::OtherPlatform { why, .. } => (*why).to_owned(),
            Self::GlobalArray { name, key } => format!("'{name}[{key}]' belongs into a pool section"),
            Self::NoKey { name } => format!("allowed is '{name}[key] = value'"),
            Self::SuppressKey { key } => {
                format!("found the key '{key}', allowed is 'access.suppress_path[] = /path'")
            }
            Self::SuppressValue { found } => {
                format!("found '{found}', allowed is a path from the root of the site")
            }
            Self::EmptyEnv { key } => {
                format!(
                    "'env[{key}]' needs a value that is not empty, nor no, off, false, none or null unquoted"
                )
            }
            Self::IncludeDepth { .. } => "a file that includes itself is one too many".to_owned(),
            Self::Globalize { .. } => "allowed are patterns in directories that can be read".to_owned(),
            Self::LogLimit { limit } => format!("allowed are {limit} and more"),
            Self::ProcessMax => "allowed are 0, which is without limit, and more".to_owned(),
            Self::Priority => "allowed are -19 to 20".to_owned(),
            Self::EventMechanism { .. } => "allowed is epoll; poll and select are taken for it".to_owned(),
            Self::NoPool { file } => format!("neither in {file} nor in what it includes"),
            Self::Pool { fault, .. } => return fault.allowed(),
            Self::Slowlog { .. } | Self::AccessLog { .. } => {
                "allowed are files that exist or can be made, and are writable".to_owned()
            }
            Self::Port { .. } => "allowed are 1 to 65535".to_owned(),
            Self::Resolve { .. } => {
                "allowed are port, ip:port, [ipv6]:port, host:port and a unix path without ':'".to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}
