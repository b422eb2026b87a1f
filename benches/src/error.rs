//! Why a measurement could not be made.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The errors of this crate. A measurement that merely comes out badly is a result, not an error.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Somebody pressed Ctrl-C, or asked by SIGTERM or SIGHUP.
    #[error("interrupted by a signal; everything that was started has been stopped")]
    Interrupted,
    /// A file or directory.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A system call that is not about a file.
    #[error("{what}: {source}")]
    System {
        /// The call and its object.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be executed at all.
    #[error("cannot run {program}: {source} (is it installed?)")]
    Spawn {
        /// As given.
        program: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program did not end in time, ended badly, or said what nobody understands.
    #[error("{program}: {reason}{}", tail(output))]
    Tool {
        /// Its name.
        program: String,
        /// What is wrong.
        reason: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A server did not come up or did not stay up.
    #[error("{server} {reason}{}", tail(log))]
    Server {
        /// Which one.
        server: String,
        /// What is wrong.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// An answer was not what the script writes.
    #[error("{from} answered {path} with the wrong content: {found}")]
    Answer {
        /// Who answered.
        from: String,
        /// What was asked for.
        path: String,
        /// The beginning of the answer.
        found: String,
    },
    /// The two servers do not run the same PHP.
    #[error("the servers cannot be compared, PHP differs in {0}")]
    Unequal(String),
    /// An event did not happen.
    #[error("no {what} within {limit:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
}

impl BenchError {
    /// For `map_err` on file operations.
    pub fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }

    /// For `map_err` on system calls.
    pub fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}

/// The last lines of an output, set off from the message.
fn tail(output: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = &lines[lines.len().saturating_sub(LINES)..];
    kept.iter().map(|line| format!("\n    | {line}")).collect()
}
