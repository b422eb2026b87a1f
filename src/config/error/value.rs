//! Why one value does not fit its directive.

/// Why a value does not fit its directive: php-fpm's words, and what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it means")]
pub enum BadValue {
    #[error("is not a valid number (greater or equal than zero)")]
    Integer,
    /// php-fpm has the words and yet takes a negative number, which then fails at the start.
    #[error("is not a valid number (greater or equal than zero)")]
    Count,
    #[error("invalid time value")]
    Time,
    #[error("unknown suffix used in time value")]
    TimeSuffix,
    #[error("invalid boolean value")]
    Boolean,
    #[error("invalid value for 'log_level'")]
    LogLevel,
    #[error("invalid value")]
    Facility,
    #[error("must be greater than zero or 'unlimited'")]
    CoreLimit,
    #[error("is not a valid number (greater or equal than zero)")]
    CoreNumber,
    #[error("invalid process manager (static, dynamic or ondemand)")]
    ProcessManager,
    #[error("invalid socket mode")]
    Mode,
    #[error("Can't use '$pool' when the pool is not defined")]
    PoolVariable,
}

impl BadValue {
    /// What the directive takes, to follow "allowed".
    pub fn allowed(self) -> &'static str {
        match self {
            Self::Integer => "is a whole number from -2147483648 to 2147483647",
            Self::Count => "is a whole number from 0 to 2147483647",
            Self::Time | Self::TimeSuffix => "is a whole number of seconds, or one with s, m, h or d",
            Self::Boolean => "are yes, no, on, off, true, false, 1 and 0, lower case in quotes",
            Self::LogLevel => "are debug, notice, warning, error and alert",
            Self::Facility => {
                "are auth, authpriv, cron, daemon, ftp, kern, lpr, mail, news, syslog, user, uucp and local0 to local7"
            }
            Self::CoreLimit | Self::CoreNumber => {
                "is a whole number of bytes from 0 to 2147483647, or unlimited"
            }
            Self::ProcessManager => "are static, dynamic and ondemand",
            Self::Mode => "are octal digits from 0 to 0777",
            Self::PoolVariable => "is '$pool' in pool sections only",
        }
    }
}
