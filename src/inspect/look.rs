//! One look at one process, in the words that all commands use. Pure: how a look is
//! had is `crew`.
//!
//! Text of the target is made fit for a terminal here, once, so that what shows it need
//! not think of it.

use std::time::Duration;

use glasspool_abi::Pid;
use glasspool_probes::native::{Woven, WovenFrame};
use glasspool_probes::php::args::CallArguments;
use glasspool_probes::wait::Wait;
use glasspool_probes::{Frame, How, Kind};

use super::console::plain;

/// What was seen of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its id.
    pub(super) pid: Pid,
    /// The pool that its title names.
    pub(super) pool: Option<String>,
    /// Version of its PHP.
    pub(super) php: String,
    /// The request that it serves. An idle worker serves none, whatever its memory still
    /// says of the last one.
    pub(super) request: Option<Request>,
    /// Since when it serves it (of a script without a request, since when it runs).
    pub(super) age: Option<Duration>,
    /// Its PHP stack, innermost first.
    pub(super) lines: Vec<Line>,
    /// Whether callers were left out because of the limit.
    pub(super) cut: bool,
    /// Why the stack is not all of it, or not certain.
    pub(super) doubt: Option<String>,
    /// What it waits in; `None` if it was running.
    pub(super) wait: Option<Waiting>,
    /// C functions further out than all of `lines`, innermost first, if asked for.
    pub(super) native: Vec<String>,
}

/// A request, as PHP knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    /// Such as `GET`; empty if unknown.
    pub(super) method: String,
    /// Path, without the query: that often holds what nobody else should see.
    pub(super) path: String,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    /// `Class->method`, `Class::method`, `function`, `{main}`, …
    pub(super) name: String,
    /// Types of its arguments, if asked for and known.
    pub(super) arguments: Option<Vec<String>>,
    /// The file of its code; builtins have none.
    pub(super) file: Option<String>,
    /// The line that it executes, or made its call in.
    pub(super) line: Option<u32>,
    /// Whether `line` is known to be that line.
    pub(super) line_exact: bool,
    /// Whether this is C code of PHP or an extension.
    pub(super) internal: bool,
    /// Where that C code was written, `file:line`, if C functions were asked for and there
    /// is debug information.
    pub(super) source: Option<String>,
    /// C functions between this frame and the next one further in, innermost first, if
    /// asked for.
    pub(super) native: Vec<String>,
}

/// What a process waits in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    /// With all details, such as `poll, fd 4: tcp 127.0.0.1:50642 -> 10.0.3.7:3306`.
    pub(super) what: String,
    /// The same for every process that waits for the same: without descriptors' numbers
    /// and our end of a connection.
    pub(super) alike: String,
    /// How long already, if known.
    pub(super) since: Option<Duration>,
}

/// What a process does, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum State {
    /// Runs PHP code or PHP's own.
    Running,
    /// Is inside a script, and waits.
    Waiting,
    /// Is in no script.
    Idle,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Waiting => "waiting",
            State::Idle => "idle",
        }
    }
}

impl Seen {
    /// What it does.
    pub(super) fn state(&self) -> State {
        match (&self.wait, self.lines.is_empty() && self.doubt.is_none()) {
            (_, true) => State::Idle,
            (Some(_), false) => State::Waiting,
            (None, false) => State::Running,
        }
    }

    /// The pool, or, of a process that belongs to none, `php`.
    pub(super) fn pool_or_program(&self) -> &str {
        self.pool.as_deref().unwrap_or("php")
    }
}

impl Request {
    /// From what PHP has been told; the query is dropped.
    pub(super) fn new(method: &str, uri: &str) -> Request {
        let end = uri.find(['?', '#']).unwrap_or(uri.len());
        Request {
            method: plain(method),
            path: plain(&uri[..end]),
        }
    }

    /// `GET /path`.
    pub(super) fn words(&self) -> String {
        match self.method.as_str() {
            "" => self.path.clone(),
            method => format!("{method} {}", self.path),
        }
    }
}

impl From<&Wait> for Waiting {
    fn from(wait: &Wait) -> Waiting {
        Waiting {
            what: plain(&wait.to_string()),
            alike: plain(&wait.alike()),
            since: wait.so_far,
        }
    }
}

impl From<&Frame> for Line {
    fn from(frame: &Frame) -> Line {
        Line {
            name: plain(&frame.php_name()),
            arguments: frame.arguments.as_ref().map(arguments),
            file: frame.file.as_deref().map(plain),
            line: frame.line,
            line_exact: frame.line_exact,
            internal: frame.internal || frame.kind == Kind::Internal,
            source: None,
            native: Vec::new(),
        }
    }
}

/// PHP's frames, each with the C functions that it called, and the C functions that
/// called PHP.
pub(super) fn woven(frames: &[WovenFrame]) -> (Vec<Line>, Vec<String>) {
    let mut lines = Vec::new();
    let mut native = Vec::new();
    for frame in frames {
        match &frame.what {
            Woven::Php(php) => {
                let mut line = Line::from(php.as_ref());
                line.native = std::mem::take(&mut native);
                let own = frame.native.as_ref().and_then(|native| native.source.as_ref());
                line.source = own.map(|source| plain(&source.to_string()));
                lines.push(line);
            }
            Woven::Native | Woven::Callback => {
                native.extend(frame.native.as_ref().map(|native| plain(&native.to_string())));
            }
        }
    }
    (lines, native)
}

/// Each by itself, `id: int`; those beyond the ones that are read as one more.
fn arguments(call: &CallArguments) -> Vec<String> {
    let mut all: Vec<String> = call
        .list
        .iter()
        .map(|argument| plain(&argument.to_string()))
        .collect();
    if call.more > 0 {
        all.push(format!("…{} more", call.more));
    }
    if call.named_extras {
        all.push("…named".to_owned());
    }
    all
}

impl Line {
    /// As PHP's own backtraces name a call: `Repo->find()`, `{main}`.
    pub(super) fn call(&self) -> String {
        match &self.arguments {
            Some(types) => format!("{}({})", self.name, types.join(", ")),
            // `{main}`, `{include}`: no call of a function.
            None if self.name.starts_with('{') && !self.name.starts_with("{closure") => self.name.clone(),
            None => format!("{}()", self.name),
        }
    }

    /// ` file:line`, with `~` before a line that may not be the very one; of C code
    /// ` (file:line)`. Empty if there is no file.
    pub(super) fn place(&self) -> String {
        let about = if self.line_exact { "" } else { "~" };
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!(" {file}:{about}{line}"),
            (Some(file), None) => format!(" {file}"),
            (None, _) => match &self.source {
                Some(source) => format!(" ({source})"),
                None => String::new(),
            },
        }
    }
}

/// What to say of how a stack was had, if it is not simply right.
pub(super) fn doubt(how: &How) -> Option<String> {
    match how {
        How::Exact | How::Checked { .. } | How::Stopped { .. } => None,
        How::Partial(reason) => Some(reason.to_string()),
    }
}

/// A time for people: `850 ms`, `12.3 s`, `4 min 10 s`, `3 h 5 min`.
pub(super) fn short(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{}.{} s", whole, time.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_loses_its_query_and_its_control_characters() {
        let request = Request::new("GET", "/a\u{1b}b?token=secret#x");
        assert_eq!(request.words(), "GET /a\\u{1b}b");
        assert_eq!(Request::new("", "/x").words(), "/x");
    }

    #[test]
    fn times_are_short() {
        let words = |ms| short(Duration::from_millis(ms));
        assert_eq!(words(0), "0 ms");
        assert_eq!(words(999), "999 ms");
        assert_eq!(words(12_345), "12.3 s");
        assert_eq!(words(250_000), "4 min 10 s");
        assert_eq!(words(11_100_000), "3 h 5 min");
    }
}
