use std::time::SystemTime;

use glasspool_abi::Pid;
use glasspool_abi::slot::Crash;
use glasspool_probes::process::RunState;
use glasspool_probes::rights::Obstacle;
use glasspool_probes::wait::{Call, Class, Descriptor, Endpoint, Fact, Kind as What, Missing, Socket};
use glasspool_probes::{Partial, Stack};

use super::super::testing::{begin, stack};
use super::*;

const SLOW: Why = Why::Slow { first: true };
const S: Duration = Duration::from_secs(1);

/// A poll on a database's connection, or on whatever else.
fn polls(kind: What) -> Wait {
    let call = Call {
        number: 7,
        name: Some("poll"),
        args: [0; 6],
        purpose: Purpose::Ready,
        descriptors: vec![Descriptor { number: 4, kind }],
        more_descriptors: 0,
        limit: None,
    };
    Wait {
        call: Some(call),
        state: RunState::Sleeping,
        wchan: None,
        so_far: Some(Duration::from_millis(1200)),
        missing: Vec::new(),
    }
}

fn database() -> What {
    What::Socket(Socket {
        transport: Some("tcp".to_owned()),
        peer: Some(Endpoint::Ip("10.0.3.7:3306".parse().unwrap())),
        ..Socket::default()
    })
}

/// What is left to a reader without any right.
fn sleeps(why: &Obstacle) -> Wait {
    let missing = Missing {
        what: Fact::Call,
        pid: Pid(7),
        why: why.clone(),
    };
    Wait {
        call: None,
        state: RunState::Sleeping,
        wchan: Some("do_poll".to_owned()),
        so_far: None,
        missing: vec![missing],
    }
}

fn sample(how: How) -> Sample {
    Sample {
        stack: Stack {
            frames: stack(),
            cut: false,
            how,
        },
        wait: Some(polls(database())),
        native: None,
        cost: Duration::from_millis(3),
        taken_at: SystemTime::UNIX_EPOCH,
    }
}

#[test]
fn a_builtin_is_named_and_placed_where_it_was_called() {
    let begin = begin(3);
    let (event, look) = event(&begin, 2 * S, SLOW, &sample(How::Exact), 20);
    assert_eq!(look, Look::Exact);
    assert_eq!(event.time_unix_ns, begin.start_unix_ns + 2_000_000_000);
    assert_eq!(event.function.as_deref(), Some("mysqli_query"));
    assert_eq!(
        (event.file.as_deref(), event.line),
        (Some("/srv/db.php"), Some(42))
    );
    assert_eq!((event.cost, event.cause), (Duration::ZERO, Cause::Slow));
    let expected = "#0 /srv/db.php(42): mysqli_query()\n\
                    #1 /srv/page.php(9): Db\\Repo->find()\n\
                    #2 /srv/index.php(3): include('/srv/page.php')\n\
                    #3 {main}";
    assert_eq!(event.stacktrace, expected);
}

#[test]
fn a_wait_is_told_in_words_that_are_the_same_each_time_and_in_facts() {
    let (seen, _) = event(&begin(3), 2 * S, SLOW, &sample(How::Exact), 20);
    assert_eq!(seen.wait.as_deref(), Some("poll on fd 4 -> tcp 10.0.3.7:3306"));
    let peer = Peer {
        address: "10.0.3.7".to_owned(),
        port: Some(3306),
        transport: Some("tcp".to_owned()),
    };
    let expected = Waiting {
        alike: Some("poll on tcp 10.0.3.7:3306".to_owned()),
        class: Some("network"),
        so_far: Some(Duration::from_millis(1200)),
        syscall: Some("poll".to_owned()),
        peer: Some(peer),
        tcp: None,
        file: None,
    };
    assert_eq!(seen.waiting, expected);
    assert_eq!(seen.missing, None);
    // The clock of a wait is another than that of a request: it cannot be the longer one.
    let (young, _) = event(&begin(3), S, SLOW, &sample(How::Exact), 20);
    assert_eq!(young.waiting.so_far, Some(S));
    let on_file = Sample {
        wait: Some(polls(What::File {
            path: "/srv/lock".to_owned(),
            deleted: false,
        })),
        ..sample(How::Exact)
    };
    let (on_file, _) = event(&begin(3), S, SLOW, &on_file, 20);
    assert_eq!(on_file.waiting.file.as_deref(), Some("/srv/lock"));
    assert_eq!(
        (on_file.waiting.class, on_file.waiting.peer),
        (Some("file"), None)
    );
}

#[test]
fn what_may_not_be_known_is_said_once_with_what_would_help() {
    let why = Obstacle::NotDumpable {
        user: "www-data".to_owned(),
    };
    let blind = Sample {
        wait: Some(sleeps(&why)),
        native: Some(NativeStack::unknown(End::NoPosition { pid: Pid(7), why })),
        ..sample(How::Exact)
    };
    let (seen, _) = event(&begin(3), S, SLOW, &blind, 20);
    assert_eq!(seen.wait.as_deref(), Some("sleeping in do_poll"));
    assert_eq!(seen.waiting.class, Some(Class::Other.as_str()));
    assert_eq!(seen.waiting.syscall, None);
    assert_eq!(seen.native_stacktrace, "");
    assert_eq!(
        seen.missing.as_deref(),
        Some(
            "the system call, the native stack: it runs as www-data and is not dumpable (run as root, give \
             CAP_SYS_PTRACE, or set process.dumpable = yes)"
        )
    );
    let long = Sample {
        wait: Some(polls(What::File {
            path: "é".repeat(600),
            deleted: false,
        })),
        ..sample(How::Exact)
    };
    let (seen, _) = event(&begin(3), S, SLOW, &long, 20);
    assert!(
        seen.wait
            .is_some_and(|words| words.len() <= MAX_WORDS + '…'.len_utf8())
    );
}

#[test]
fn what_a_stop_cost_and_what_is_missing_is_told() {
    let stop = Duration::from_micros(40);
    let stopped = sample(How::Stopped { stop });
    let (stopped, look) = event(&begin(3), Duration::ZERO, SLOW, &stopped, 2);
    assert_eq!((stopped.cost, look), (stop, Look::Stopped));
    assert_eq!(stopped.stacktrace.lines().count(), 2);
    let not_stopped = Partial::NotStopped {
        tries: 3,
        stop: "not permitted".to_owned(),
    };
    let partial = sample(How::Partial(not_stopped));
    let (partial, look) = event(&begin(3), Duration::ZERO, SLOW, &partial, 2);
    assert_eq!(look, Look::Partial);
    assert!(
        partial.how.starts_with("partial: ") && partial.how.contains("not permitted"),
        "{}",
        partial.how
    );
}

#[test]
fn a_kill_has_a_reason_and_a_crash_a_signal_and_no_wait() {
    let (killed, _) = event(&begin(3), S, Why::Doomed(Doom::Timeout), &sample(How::Exact), 20);
    let reason = Cause::Terminated("request_terminate_timeout".to_owned());
    assert_eq!(killed.cause, reason);
    assert!(killed.wait.is_some());
    let crash = |signal| {
        Why::Crashed(Crash {
            signal,
            registers: [0; 2],
        })
    };
    let (crashed, _) = event(&begin(3), S, crash(11), &sample(How::Exact), 20);
    assert_eq!(crashed.cause, Cause::Crashed("SIGSEGV".to_owned()));
    assert_eq!((crashed.wait, crashed.waiting), (None, Waiting::default()));
    assert_eq!(crashed.function.as_deref(), Some("mysqli_query"));
    assert_eq!(cause(crash(63)), Cause::Crashed("signal 63".to_owned()));
}
