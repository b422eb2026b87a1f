//! Why a request that head sampling did not take is exported all the same. The sampled
//! flag stays as it was decided, as other services were told so; this says the truth about
//! the span: it stands for itself, and never for a share of all.

use glasspool_abi::record::{ABORTED, End, FATAL};
use opentelemetry::KeyValue;

use crate::semconv::name;

/// The reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It failed: a fatal error, or a status of 500 and above.
    Error,
    /// It was slow.
    Slow,
    /// The client went away.
    Aborted,
    /// Its worker ended before it did.
    Killed,
}

impl Kept {
    /// Why a request that ended was kept, if sampling did not take it; `is_slow` as the
    /// observer found it.
    pub fn why(end: &End, is_slow: bool) -> Option<Kept> {
        if end.begin.sampled {
            None
        } else if end.flags & FATAL != 0 || end.status >= 500 {
            Some(Kept::Error)
        } else if end.flags & ABORTED != 0 && !is_slow {
            Some(Kept::Aborted)
        } else {
            Some(Kept::Slow)
        }
    }

    /// The attribute that says it.
    pub fn attribute(self) -> KeyValue {
        let word = match self {
            Kept::Error => "error",
            Kept::Slow => "slow",
            Kept::Aborted => "aborted",
            Kept::Killed => "killed",
        };
        KeyValue::new(name::PHP_SAMPLING_KEPT, word)
    }
}
