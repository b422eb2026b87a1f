//! A sample of a worker as the event that telemetry tells. Pure.

use std::fmt::Write;
use std::time::Duration;

use glasspool_abi::record::Begin;
use glasspool_otel::slow::SlowEvent;
use glasspool_probes::process::{Wait, syscall_name};
use glasspool_probes::{Frame, How, Kind, Sample};

/// What a look came to, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Exact,
    Checked,
    Stopped,
    Partial,
    Failed,
}

/// The event of a sample, and how good it is. `age` is that of the request when the
/// sample was taken, by the monotonic clock.
pub(super) fn event(begin: &Begin, age: Duration, sample: &Sample, depth: usize) -> (SlowEvent, Look) {
    let frames = &sample.stack.frames;
    let (look, how, cost) = match &sample.stack.how {
        How::Exact => (Look::Exact, "exact".to_owned(), Duration::ZERO),
        How::Checked { .. } => (Look::Checked, "checked".to_owned(), Duration::ZERO),
        How::Stopped { stop } => (Look::Stopped, "stopped".to_owned(), *stop),
        How::Partial(reason) => (Look::Partial, format!("partial: {reason}"), Duration::ZERO),
    };
    let place = frames.iter().find(|frame| !frame.internal);
    let event = SlowEvent {
        function: frames.first().map(name),
        file: place.and_then(|frame| frame.file.clone()),
        line: place.and_then(|frame| frame.line),
        line_exact: place.is_some_and(|frame| frame.line_exact),
        stacktrace: stacktrace(frames, depth),
        wait: sample.wait.as_ref().map(wait),
        ..bare(begin, age, how, cost)
    };
    (event, look)
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
        stacktrace: String::new(),
        function: None,
        file: None,
        line: None,
        line_exact: false,
        how,
        wait: None,
        cost,
    }
}

/// As PHP itself prints a stack (`Exception::getTraceAsString`): file and line are those
/// of the call.
fn stacktrace(frames: &[Frame], depth: usize) -> String {
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

fn name(frame: &Frame) -> String {
    frame.qualified_name()
}

fn wait(wait: &Wait) -> String {
    match (wait.syscall, &wait.wchan) {
        (Some(number), _) => {
            syscall_name(number).map_or_else(|| format!("system call {number}"), str::to_owned)
        }
        (None, Some(function)) => format!("kernel function {function}"),
        (None, None) => "something in the kernel".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use glasspool_probes::{Partial, Stack};

    use super::super::testing::{begin, stack};
    use super::*;

    fn sample(how: How) -> Sample {
        Sample {
            stack: Stack {
                frames: stack(),
                cut: false,
                how,
            },
            wait: Some(Wait {
                syscall: None,
                wchan: Some("do_poll".to_owned()),
            }),
            cost: Duration::from_millis(3),
            taken_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_builtin_is_named_and_placed_where_it_was_called() {
        let begin = begin(3);
        let (event, look) = event(&begin, Duration::from_secs(1), &sample(How::Exact), 20);
        assert_eq!(look, Look::Exact);
        assert_eq!(event.time_unix_ns, begin.start_unix_ns + 1_000_000_000);
        assert_eq!(event.function.as_deref(), Some("mysqli_query"));
        assert_eq!(
            (event.file.as_deref(), event.line),
            (Some("/srv/db.php"), Some(42))
        );
        assert_eq!(event.wait.as_deref(), Some("kernel function do_poll"));
        assert_eq!(event.cost, Duration::ZERO);
        let expected = "#0 /srv/db.php(42): mysqli_query()\n\
                        #1 /srv/page.php(9): Db\\Repo->find()\n\
                        #2 /srv/index.php(3): include('/srv/page.php')\n\
                        #3 {main}";
        assert_eq!(event.stacktrace, expected);
    }

    #[test]
    fn what_a_stop_cost_and_what_is_missing_is_told() {
        let stop = Duration::from_micros(40);
        let (stopped, look) = event(&begin(3), Duration::ZERO, &sample(How::Stopped { stop }), 2);
        assert_eq!((stopped.cost, look), (stop, Look::Stopped));
        assert_eq!(stopped.stacktrace.lines().count(), 2);
        let not_stopped = Partial::NotStopped {
            tries: 3,
            stop: "not permitted".to_owned(),
        };
        let (partial, look) = event(&begin(3), Duration::ZERO, &sample(How::Partial(not_stopped)), 2);
        assert_eq!(look, Look::Partial);
        assert!(
            partial.how.starts_with("partial: ") && partial.how.contains("not permitted"),
            "{}",
            partial.how
        );
    }
}
