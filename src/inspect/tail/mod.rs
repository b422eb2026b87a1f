//! `glasspool tail`: what happens in all pools, as it happens: requests, slow ones with
//! their stacks, what workers print, what the supervisor logs, kills and full pools.
//!
//! Asks the observer, over a socket that the supervisor passes on (`crate::tail` has the
//! words). The observer's packets are taken as hostile too: what is in them was written by
//! clients and scripts.

mod show;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use glasspool_abi::trace::sampling::Glob;
use jiff::tz::TimeZone;
use regex_lite::Regex;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use self::show::Show;
use super::{Console, DONE, INCOMPLETE};
use crate::tail::{Entry, Filter, Kind, MAX_ENTRY_BYTES, MOST_EARLIER, Question, Statuses};

/// How often an observer that has ended is asked for again: a new one is there in a moment.
const ATTEMPTS: u32 = 50;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  glasspool tail                            the last ten, then everything as it happens
  glasspool tail --pool www --status 5xx    failures of a pool
  glasspool tail --slow -n 100 --no-follow  slow requests and looks at them, the last hundred
  glasspool tail --path '/checkout/*' --json
  glasspool tail --trace 0af7651916cd43dd8448eb211c80319c -n 1000 --no-follow
  glasspool tail --grep out.of.memory
  glasspool tail 4711                       of the supervisor with that pid
What is shown is kept by the observer in memory (history_bytes of [observer] in glasspool.toml).
Only root and the supervisor's own user may read it. Ctrl-C ends it.
Exit status: 0 all was shown, 1 nothing can be read (standard error says why), 64 wrong arguments.";

/// What to show, and how.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct TailArguments {
    /// Begin with so many of what has happened before
    #[arg(short = 'n', long = "lines", value_name = "N", default_value = "10",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(MOST_EARLIER)))]
    earlier: u32,
    /// End when that is shown
    #[arg(long)]
    no_follow: bool,
    /// Only of this pool; may be given more than once
    #[arg(long, value_name = "NAME")]
    pool: Vec<String>,
    /// Only requests with this status, such as 404 or 5xx; may be given more than once
    #[arg(long, value_name = "STATUS")]
    status: Vec<Statuses>,
    /// Only slow requests, and looks at them
    #[arg(long)]
    slow: bool,
    /// Only requests with this path; * stands for any text, ? for one character
    #[arg(long, value_name = "GLOB", value_parser = Glob::new)]
    path: Option<Glob>,
    /// Only of the trace whose id begins so
    #[arg(long, value_name = "ID", value_parser = trace_id)]
    trace: Option<String>,
    /// Only of the worker with this pid
    #[arg(long, value_name = "PID")]
    worker: Option<i32>,
    /// Only what matches this regular expression as it is shown
    #[arg(long, value_name = "REGEX")]
    grep: Option<Pattern>,
    /// One JSON object a line rather than text
    #[arg(long)]
    json: bool,
}

/// A regular expression of a command line.
#[derive(Debug, Clone)]
struct Pattern(Regex);

impl std::str::FromStr for Pattern {
    type Err = regex_lite::Error;

    fn from_str(text: &str) -> Result<Pattern, regex_lite::Error> {
        Regex::new(text).map(Pattern)
    }
}

fn trace_id(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if (1..=32).contains(&text.len()) && is_hex {
        return Ok(text);
    }
    Err("expected up to 32 hexadecimal digits".to_owned())
}

impl TailArguments {
    fn question(&self) -> Question {
        Question {
            earlier: self.earlier,
            follow: !self.no_follow,
            filter: Filter {
                pools: self.pool.clone(),
                statuses: self.status.clone(),
                slow: self.slow,
                path: self.path.clone(),
                trace: self.trace.clone(),
                worker: self.worker,
            },
        }
    }
}

/// How a connection came to its end.
enum End {
    /// All that was asked for was shown.
    Shown,
    /// Whoever reads our output has gone.
    NobodyReads,
    /// The observer is gone, or there is none yet.
    Gone(String),
    /// It cannot be had.
    Refused(String),
}

/// Shows what is asked for. `connect` makes a connection to the supervisor.
pub(crate) fn run_tail(
    arguments: &TailArguments,
    connect: &dyn Fn() -> anyhow::Result<OwnedFd>,
    console: &mut Console<'_>,
) -> ExitCode {
    let mut question = arguments.question();
    let mut show = Show::new(console.colour && !arguments.json, TimeZone::system());
    let (mut attempts, mut complained) = (0, false);
    loop {
        let before = show.entries();
        let ended = match connect() {
            Ok(socket) => read_all(&socket, &question, arguments, &mut show, console),
            Err(e) if attempts == 0 && show.entries() == 0 => return fail(console, format_args!("{e:#}")),
            Err(_) => return fail(console, "the supervisor has ended"),
        };
        match ended {
            Ok(End::Shown | End::NobodyReads) => return DONE.into(),
            Ok(End::Refused(reason)) => return fail(console, reason),
            Ok(End::Gone(reason)) => {
                attempts = if show.entries() > before { 0 } else { attempts + 1 };
                if attempts >= ATTEMPTS {
                    return fail(console, reason);
                }
                if !complained && show.entries() > 0 {
                    complained = true;
                    console.complain("the observer has ended; waiting for the next one");
                }
            }
            Err(e) => return fail(console, e),
        }
        if show.entries() > 0 {
            // A new observer has no earlier entries but those that came meanwhile.
            question.earlier = MOST_EARLIER;
        }
        // Nobody unparks this thread.
        std::thread::park_timeout(BETWEEN_ATTEMPTS);
    }
}

fn fail(console: &mut Console<'_>, why: impl fmt::Display) -> ExitCode {
    console.complain(why);
    INCOMPLETE.into()
}

fn read_all(
    socket: &OwnedFd,
    question: &Question,
    arguments: &TailArguments,
    show: &mut Show,
    console: &mut Console<'_>,
) -> io::Result<End> {
    let request = [b"tail ", &serde_json::to_vec(question)?[..]].concat();
    match rustix::net::send(socket, &request, SendFlags::NOSIGNAL) {
        // One who may not ask has been told so already.
        Ok(_) | Err(Errno::PIPE) => {}
        Err(e) => return Err(e.into()),
    }
    let mut packet = vec![0; MAX_ENTRY_BYTES];
    loop {
        if !console.wait(socket)? {
            return Ok(End::NobodyReads);
        }
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut packet[..], RecvFlags::empty()));
        let bytes = match received {
            Ok((0, _)) if question.follow => return Ok(End::Gone("the observer has ended".to_owned())),
            Ok((0, _)) => return Ok(End::Shown),
            Ok((count, _)) => &packet[..count],
            Err(e) => return Ok(End::Gone(format!("the connection broke: {e}"))),
        };
        if let Some(reason) = bytes.strip_prefix(b"failed: ") {
            let reason = super::console::plain(&String::from_utf8_lossy(reason));
            let is_passing = reason.starts_with("no observer");
            return Ok(if is_passing {
                End::Gone(reason)
            } else {
                End::Refused(reason)
            });
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(bytes) else {
            return Ok(End::Refused(
                "the observer speaks something else: is it of another version?".to_owned(),
            ));
        };
        if entry.kind == Kind::Refused {
            return Ok(End::Refused(super::console::plain(
                &entry.message.unwrap_or_default(),
            )));
        }
        let text = show.entry(&entry);
        // What was missed is told whatever is looked for.
        let wanted = arguments
            .grep
            .as_ref()
            .is_none_or(|Pattern(regex)| regex.is_match(&text.plain));
        if !wanted && entry.kind != Kind::Missed {
            continue;
        }
        let line = if arguments.json {
            [bytes, b"\n"].concat()
        } else {
            text.shown.into_bytes()
        };
        match console.out.write_all(&line).and_then(|()| console.out.flush()) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(End::NobodyReads),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        tail: TailArguments,
    }

    fn parse(line: &str) -> Result<TailArguments, clap::Error> {
        let words = std::iter::once("tail").chain(line.split_whitespace());
        Program::try_parse_from(words).map(|program| program.tail)
    }

    #[test]
    fn what_is_asked_is_what_was_written() {
        let asked = parse(
            "-n 5 --no-follow --pool www --pool api --status 5xx --slow --path /a* --trace 0AF --worker 7",
        );
        let question = asked.expect("is right").question();
        assert_eq!((question.earlier, question.follow), (5, false));
        let filter = question.filter;
        assert_eq!(filter.pools, ["www", "api"]);
        assert_eq!(
            (filter.trace.as_deref(), filter.worker, filter.slow),
            (Some("0af"), Some(7), true)
        );
        let plain = parse("").expect("is right").question();
        assert_eq!((plain.earlier, plain.follow), (10, true));
        assert_eq!(plain.filter, Filter::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "-n -1",
            "-n 1000000",
            "--status 600",
            "--trace xyz",
            "--grep (",
            "--worker www",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    /// What is shown when the observer sends these packets and closes, and the exit status.
    fn shown(arguments: &str, packets: &[&[u8]]) -> (String, String, ExitCode) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
        for packet in packets {
            rustix::net::send(&theirs, packet, SendFlags::NOSIGNAL).expect("has room");
        }
        rustix::net::shutdown(&theirs, rustix::net::Shutdown::Write).expect("shuts down");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let arguments = parse(arguments).expect("is right");
        let connect = || Ok(ours.try_clone()?);
        let code = run_tail(&arguments, &connect, &mut Console::plain(&mut out, &mut err));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(out), text(err), code)
    }

    #[test]
    fn what_comes_is_shown_and_looked_through() {
        let line = br#"{"time":"2026-01-02T03:04:05.678Z","kind":"line","pool":"www","pid":7,"message":"out of memory"}"#;
        let other = br#"{"kind":"line","message":"fine"}"#;
        let missed = br#"{"kind":"missed","missed":312}"#;
        let (out, _, code) = shown("--no-follow --grep of.mem", &[line, other, missed]);
        assert!(out.contains("www 7 line: out of memory\n"), "{out}");
        assert!(
            out.contains("312 entries missed") && !out.contains("fine"),
            "{out}"
        );
        assert_eq!(code, ExitCode::SUCCESS);
        let (out, _, _) = shown("--no-follow --json", &[line, other]);
        let expected = [&line[..], b"\n", other, b"\n"].concat();
        assert_eq!(out.as_bytes(), expected);
    }

    #[test]
    fn it_ends_when_nobody_reads_it_although_nothing_happens() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let flags = SocketFlags::CLOEXEC;
        let (ours, _theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::plain(&mut out, &mut err);
        console.sink = Some(writer.as_fd());
        let connect = || Ok(ours.try_clone()?);
        let code = run_tail(&parse("").expect("is right"), &connect, &mut console);
        assert_eq!(code, ExitCode::SUCCESS);
    }

    #[test]
    fn a_refusal_is_told() {
        let refused = br#"{"kind":"refused","message":"32 readers\u001b[2J"}"#;
        let (out, err, code) = shown("", &[refused]);
        assert_eq!((out.as_str(), code), ("", ExitCode::from(INCOMPLETE)));
        assert_eq!(err, "glasspool: 32 readers\\u{1b}[2J\n");
        let (_, err, code) = shown("", &[b"failed: only root and the supervisor's own user may ask"]);
        assert!(err.contains("only root") && code == ExitCode::from(INCOMPLETE));
        let (_, err, _) = shown("", &[b"\xff nonsense"]);
        assert!(err.contains("another version"), "{err}");
    }
}
