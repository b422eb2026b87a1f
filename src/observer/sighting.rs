//! A sample of a worker as the event that telemetry tells. Pure.

use std::fmt::Write;
use std::time::Duration;

use glasspool_abi::control::Doom;
use glasspool_abi::record::Begin;
use glasspool_otel::slow::{Cause, Peer, SlowEvent, Waiting};
use glasspool_probes::native::{End, NativeStack};
use glasspool_probes::wait::{Purpose, Wait};
use glasspool_probes::{Frame, How, Kind, Sample};

use super::sampler::Why;

/// What a look came to, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Exact,
    Checked,
    Stopped,
    Partial,
    /// The kernel programs knew it; the reader did not.
    Noted,
    Failed,
}

/// Longer words for a wait, or for what is missing, are cut: paths of eight files may be in
/// them.
const MAX_WORDS: usize = 512;
/// The native text is cut here before telemetry cuts it at the end of a line.
const MAX_NATIVE_FRAMES: usize = 100;

/// The event of a sample, and how good it is. `age` is that of the request when the
/// sample was taken, by the monotonic clock.
pub(super) fn event(
    begin: &Begin,
    age: Duration,
    why: Why,
    sample: &Sample,
    depth: usize,
) -> (SlowEvent, Look) {
    let frames = &sample.stack.frames;
    let (look, how, cost) = match &sample.stack.how {
        How::Exact => (Look::Exact, "exact".to_owned(), Duration::ZERO),
        How::Checked { .. } => (Look::Checked, "checked".to_owned(), Duration::ZERO),
        How::Stopped { stop } => (Look::Stopped, "stopped".to_owned(), *stop),
        How::Partial(reason) => (Look::Partial, format!("partial: {reason}"), Duration::ZERO),
    };
    let place = frames.iter().find(|frame| !frame.internal);
    // What a worker in its crash handler waits for is us.
    let wait = sample.wait.as_ref().filter(|_| !matches!(why, Why::Crashed(_)));
    let native = sample.native.as_ref();
    let event = SlowEvent {
        cause: cause(why),
        function: frames.first().map(Frame::qualified_name),
        file: place.and_then(|frame| frame.file.clone()),
        line: place.and_then(|frame| frame.line),
        line_exact: place.is_some_and(|frame| frame.line_exact),
        stacktrace: stacktrace(frames, depth),
        wait: wait.map(|wait| cut(wait.to_string())),
        waiting: wait.map(|wait| waiting(wait, age)).unwrap_or_default(),
        native_stacktrace: native.map(native_stacktrace).unwrap_or_default(),
        missing: missing(wait, native),
        ..bare(begin, age, how, cost)
    };
    (event, look)
}

/// Why a look was taken, as telemetry tells it.
pub(super) fn cause(why: Why) -> Cause {
    match why {
        Why::Slow { .. } | Why::Saturated => Cause::Slow,
        Why::Doomed(doom) => Cause::Terminated(
            match doom {
                Doom::Timeout => "request_terminate_timeout",
                Doom::Drain => "process_control_timeout",
                Doom::Stop => "the supervisor stops at once",
                Doom::Deaf => "it does not end when told to",
            }
            .to_owned(),
        ),
        Why::Crashed(crash) => Cause::Crashed(signal_name(crash.signal)),
    }
}

/// `SIGSEGV`, or the number of a signal without a name.
pub(super) fn signal_name(signal: i32) -> String {
    let known = nix::sys::signal::Signal::try_from(signal);
    known.map_or_else(|_| format!("signal {signal}"), |known| known.as_str().to_owned())
}

/// The event of a request that is slow and could not be looked into.
pub(super) fn failed(begin: &Begin, age: Duration, reason: &str) -> SlowEvent {
    bare(begin, age, format!("failed: {reason}"), Duration::ZERO)
}

fn bare(begin: &Begin, age: Duration, how: String, cost: Duration) -> SlowEvent {
    let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    SlowEvent {
        // Not the wall clock of the sample: the span's times come from the same pair, and
        // viewers hide events that lie outside of their span.
        time_unix_ns: begin.start_unix_ns.saturating_add(age_ns),
        elapsed: age,
        how,
        cost,
        ..SlowEvent::default()
    }
}

/// As PHP itself prints a stack (`Exception::getTraceAsString`): file and line are those
/// of the call.
pub(super) fn stacktrace(frames: &[Frame], depth: usize) -> String {
    let mut text = String::new();
    for (index, frame) in frames.iter().enumerate().take(depth) {
        let separator = if index == 0 { "" } else { "\n" };
        let called_at = match frames.get(index + 1) {
            None => String::new(),
            Some(caller) if caller.internal => "[internal function]: ".to_owned(),
            Some(caller) => {
                let file = caller.file.as_deref().unwrap_or("unknown");
                format!("{file}({}): ", caller.line.unwrap_or(0))
            }
        };
        let call = match (frame.kind, &frame.file) {
            (Kind::Main, _) => "{main}".to_owned(),
            (Kind::Include, Some(file)) => format!("include('{file}')"),
            (Kind::Eval, _) => "eval()".to_owned(),
            (Kind::Include | Kind::Function | Kind::Fiber | Kind::Internal, _) => {
                format!("{}()", frame.php_name())
            }
        };
        write!(text, "{separator}#{index} {called_at}{call}").expect("writing to a string does not fail");
    }
    text
}

/// The facts of a wait of a request of that age.
fn waiting(wait: &Wait, age: Duration) -> Waiting {
    let call = wait.call.as_ref();
    let peer = call.and_then(|call| {
        let socket = call.socket()?;
        let peer = socket.peer.as_ref()?;
        Some(Peer {
            address: peer.address()?,
            port: peer.port(),
            transport: socket.transport.clone(),
        })
    });
    let file = call.and_then(|call| match &call.purpose {
        Purpose::Path(path) => Some(path.clone()),
        _ => call
            .descriptors
            .iter()
            .find_map(|one| one.path().map(str::to_owned)),
    });
    Waiting {
        alike: Some(cut(wait.alike())),
        class: Some(wait.class().as_str()),
        // The wait began in this request.
        so_far: wait.so_far.map(|so_far| so_far.min(age)),
        syscall: call.map(|call| {
            call.name
                .map_or_else(|| format!("system call {}", call.number), str::to_owned)
        }),
        peer,
        // What the kernel programs know is put on later.
        tcp: None,
        file,
    }
}

/// One frame per line, innermost first.
fn native_stacktrace(native: &NativeStack) -> String {
    let frames = native.frames.iter().take(MAX_NATIVE_FRAMES);
    let frames: Vec<_> = frames.map(ToString::to_string).collect();
    frames.join("\n")
}

/// What a look does not show and what would help, facts with the same reason together.
fn missing(wait: Option<&Wait>, native: Option<&NativeStack>) -> Option<String> {
    let of_wait = wait.into_iter().flat_map(|wait| &wait.missing);
    let of_wait = of_wait.map(|missing| (missing.what.to_string(), missing.why.to_string()));
    let of_native = native.and_then(|native| match &native.end {
        End::Root => None,
        End::NoPosition { why, .. } | End::NoMaps { why, .. } => {
            Some(("the native stack".to_owned(), why.to_string()))
        }
        end => Some(("the rest of the native stack".to_owned(), end.to_string())),
    });
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for (what, why) in of_wait.chain(of_native) {
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, whats)) if whats.contains(&what) => {}
            Some((_, whats)) => whats.push(what),
            None => reasons.push((why, vec![what])),
        }
    }
    let reasons = reasons
        .iter()
        .map(|(why, whats)| format!("{}: {why}", whats.join(", ")));
    let line = reasons.collect::<Vec<_>>().join("; ");
    (!line.is_empty()).then(|| cut(line.replace(char::is_control, " ")))
}

fn cut(mut words: String) -> String {
    if words.len() > MAX_WORDS {
        let end = (0..=MAX_WORDS).rev().find(|at| words.is_char_boundary(*at));
        words.truncate(end.unwrap_or(0));
        words.push('…');
    }
    words
}

#[cfg(test)]
#[path = "sighting_tests.rs"]
mod tests;
