//! The access log of a pool: one line a request, in one write(2), made before PHP ends
//! the request, as php-fpm does: shutdown functions and what they cost are not in it.
//!
//! A line is put together in one buffer that is used again; the format has been read
//! before. Where the log is a pipe whose reader has gone to sleep, lines are dropped and
//! counted, for php-fpm's worker hangs there for good.

mod format;
mod json;
mod time;
mod times;

use std::io::Write;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use glasspool_abi::control;
use glasspool_abi::times::Known;
use glasspool_abi::trace::{SpanId, TraceId};
use glasspool_fastcgi::Params;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;

pub(crate) use self::format::Fixed;
use self::format::{CpuShare, Format, Item, Unit};
use self::json::Json;
use super::account::Account;
use super::clock;

/// Longest line with its newline, bytes: php-fpm's own, whatever `log_limit` says.
const LINE_BYTES: usize = 1024;
/// How long a line waits for the reader of a pipe. The lines after one that was dropped
/// do not wait.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A worker's side of it.
#[derive(Debug)]
pub(crate) struct AccessLog {
    file: OwnedFd,
    /// Not a regular file: a write may have to wait for a reader.
    may_block: bool,
    format: Format,
    /// Lines are JSON, whatever the format says.
    json: Option<Json>,
    wants_cpu: bool,
    wants_times: bool,
    suppress: Vec<String>,
    zone: TimeZone,
    line: Vec<u8>,
    /// Lines dropped since the last that was written.
    dropped: u64,
}

/// What is known of a request when its line is written.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) params: &'a Params,
    pub(crate) script: Option<&'a [u8]>,
    /// What the path fix-ups left of the URI, usually SCRIPT_NAME.
    pub(crate) uri: Option<&'a [u8]>,
    pub(crate) peer: Option<IpAddr>,
    /// Of basic authentication, as PHP understood it.
    pub(crate) user: &'a [u8],
    pub(crate) status: u32,
    pub(crate) content_length: u64,
    /// Bytes.
    pub(crate) memory_peak: u64,
    /// When its first byte came: wall clock and monotonic, nanoseconds.
    pub(crate) began: (u64, u64),
    /// User and system CPU time of the worker then, nanoseconds.
    pub(crate) began_cpu: (u64, u64),
    /// The trace and our span in it.
    pub(crate) ids: Option<(TraceId, SpanId)>,
    /// How long it had waited before it came here, nanoseconds, where somebody says so.
    pub(crate) queued_ns: Option<u64>,
    /// Tells where its time went.
    pub(crate) account: &'a Account,
}

/// What became of a line, where there is something to say about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It was cut.
    Cut,
    /// It was written, but so many before it were not.
    Dropped(u64),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Cut => write!(
                f,
                "the log buffer is full ({LINE_BYTES}). The access log request has been truncated."
            ),
            Trouble::Dropped(lines) => write!(
                f,
                "the access log took nothing for a while: {lines} lines were dropped"
            ),
        }
    }
}

/// Figures of a request up to now.
struct Spent {
    wall_ns: u64,
    cpu_user_ns: u64,
    cpu_system_ns: u64,
    now_unix_ns: u64,
    /// Where `wall_ns` went, if a line says so.
    times: Known,
}

impl AccessLog {
    /// A log that writes to `file`, with local times of `zone`; an error says what is
    /// wrong with the format.
    pub(crate) fn new(
        file: OwnedFd,
        settings: &control::AccessLog,
        fixed: Fixed<'_>,
        zone: TimeZone,
    ) -> Result<AccessLog, String> {
        let json = settings.json.then(|| Json::new(fixed));
        let format = match &json {
            Some(_) => Format::default(),
            None => Format::parse(&settings.format, fixed)?,
        };
        let is_file = rustix::fs::fstat(&file)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Ok(AccessLog {
            file,
            may_block: !is_file,
            // Without the kernel programs, times are asked for only of requests that left the CPU.
            wants_cpu: json.is_some() || format.wants_cpu() || format.wants_times(),
            wants_times: json.is_some() || format.wants_times(),
            format,
            json,
            suppress: settings.suppress.clone(),
            zone,
            line: Vec::with_capacity(2 * LINE_BYTES),
            dropped: 0,
        })
    }

    /// Whether lines show headers of the response.
    pub(crate) fn wants_headers(&self) -> bool {
        !self.format.headers.is_empty()
    }

    /// Takes note of a header of the response under way. Of several with the same name
    /// the first counts.
    pub(crate) fn header(&mut self, line: &[u8]) {
        for header in &mut self.format.headers {
            if header.value.is_none()
                && let Some(value) = line.strip_prefix(&header.name[..])
            {
                let value = value.trim_ascii_start();
                header.value = Some(value[..value.len().min(LINE_BYTES)].to_vec());
            }
        }
    }

    /// Writes the line of a request, unless it is of those that nobody wants to see.
    pub(crate) fn write(&mut self, facts: &Facts<'_>) -> Option<Trouble> {
        if self.is_suppressed(facts) {
            return None;
        }
        let cut = match &self.json {
            Some(json) => {
                let spent = self.spent(facts);
                self.line.clear();
                json.render(&mut self.line, facts, &spent);
                false
            }
            None => self.render(facts),
        };
        for header in &mut self.format.headers {
            header.value = None;
        }
        if self.line.is_empty() {
            return None;
        }
        if cut {
            self.line.truncate(LINE_BYTES - 1);
        }
        self.line.push(b'\n');
        if self.may_block && !self.has_room() {
            self.dropped += 1;
            return None;
        }
        // A full disk must not end requests.
        let _failed = rustix::io::write(&self.file, &self.line);
        match std::mem::take(&mut self.dropped) {
            0 => cut.then_some(Trouble::Cut),
            lost => Some(Trouble::Dropped(lost)),
        }
    }

    /// `access.suppress_path`: a plain GET or HEAD of one of these that went well.
    fn is_suppressed(&self, facts: &Facts<'_>) -> bool {
        if self.suppress.is_empty() {
            return false;
        }
        let param = |name: &[u8]| facts.params.get(name).unwrap_or_default();
        matches!(param(b"REQUEST_METHOD"), b"GET" | b"HEAD")
            && param(b"QUERY_STRING").is_empty()
            && (200..300).contains(&facts.status)
            && facts.content_length == 0
            && facts
                .uri
                .is_some_and(|uri| self.suppress.iter().any(|path| path.as_bytes() == uri))
    }

    /// Puts the line together without its newline; true if it is longer than allowed.
    fn render(&mut self, facts: &Facts<'_>) -> bool {
        let spent = self.spent(facts);
        self.line.clear();
        for item in &self.format.items {
            let (times, headers) = (&mut self.format.times, &self.format.headers);
            let line = &mut self.line;
            match item {
                Item::Text(text) => line.extend_from_slice(text),
                Item::Cpu(share) => number(line, format_args!("{:.2}", spent.cpu_percent(*share))),
                Item::Duration(unit) => duration(line, spent.wall_ns / 1_000, *unit),
                Item::Param(name) => or_dash(line, facts.params.get(name)),
                Item::Script => or_dash(line, facts.script),
                Item::ContentLength => number(line, format_args!("{}", facts.content_length)),
                Item::Method => or_dash(line, facts.params.get(b"REQUEST_METHOD")),
                Item::Memory(unit) => number(line, format_args!("{}", facts.memory_peak / unit)),
                Item::Header(index) => or_dash(line, headers[*index].value.as_deref()),
                Item::Query => line.extend_from_slice(query(facts)),
                Item::QueryMark if query(facts).is_empty() => {}
                Item::QueryMark => line.push(b'?'),
                Item::Uri => line.extend_from_slice(facts.uri.unwrap_or_default()),
                Item::Peer => match facts.peer {
                    Some(peer) => number(line, format_args!("{peer}")),
                    None => line.push(b'-'),
                },
                Item::Status => number(line, format_args!("{}", facts.status)),
                Item::Began(index) => {
                    line.extend_from_slice(times[*index].at(facts.began.0 / 1_000_000_000, &self.zone));
                }
                Item::Written(index) => {
                    line.extend_from_slice(times[*index].at(spent.now_unix_ns / 1_000_000_000, &self.zone));
                }
                Item::User => line.extend_from_slice(facts.user),
                Item::Trace => match facts.ids {
                    Some((trace, _)) => number(line, format_args!("{trace}")),
                    None => line.push(b'-'),
                },
                Item::Span => match facts.ids {
                    Some((_, span)) => number(line, format_args!("{span}")),
                    None => line.push(b'-'),
                },
                Item::Part(part) => part.write(line, facts.queued_ns, &spent.times),
            }
            if line.len() >= LINE_BYTES {
                return true;
            }
        }
        false
    }

    fn spent(&self, facts: &Facts<'_>) -> Spent {
        let cpu = if self.wants_cpu {
            clock::cpu_ns()
        } else {
            facts.began_cpu
        };
        let cpu_user_ns = cpu.0.saturating_sub(facts.began_cpu.0);
        let cpu_system_ns = cpu.1.saturating_sub(facts.began_cpu.1);
        let (now_ns, times) = if self.wants_times {
            facts.account.so_far(facts.began.1, cpu_user_ns + cpu_system_ns)
        } else {
            (clock::monotonic_ns(), Known::Nothing)
        };
        let wall_ns = now_ns.saturating_sub(facts.began.1);
        Spent {
            wall_ns,
            cpu_user_ns,
            cpu_system_ns,
            now_unix_ns: facts.began.0.saturating_add(wall_ns),
            times,
        }
    }

    /// Whether a write will not have to wait.
    fn has_room(&self) -> bool {
        let patience = if self.dropped == 0 {
            PATIENCE
        } else {
            Timespec::default()
        };
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        let ready = rustix::event::poll(&mut fds, Some(&patience));
        // A broken pipe is ready too: the write fails and costs nothing.
        ready.is_ok_and(|count| count > 0)
    }
}

impl Spent {
    fn cpu_percent(&self, share: CpuShare) -> f64 {
        let cpu = match share {
            CpuShare::Total => self.cpu_user_ns + self.cpu_system_ns,
            CpuShare::User => self.cpu_user_ns,
            CpuShare::System => self.cpu_system_ns,
        };
        if self.wall_ns == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let ratio = cpu as f64 / self.wall_ns as f64;
        ratio * 100.0
    }
}

fn query<'a>(facts: &Facts<'a>) -> &'a [u8] {
    facts.params.get(b"QUERY_STRING").unwrap_or_default()
}

fn or_dash(line: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) if !text.is_empty() => line.extend_from_slice(text),
        _ => line.push(b'-'),
    }
}

fn number(line: &mut Vec<u8>, number: std::fmt::Arguments<'_>) {
    line.write_fmt(number).expect("a vector takes everything");
}

fn duration(line: &mut Vec<u8>, us: u64, unit: Unit) {
    match unit {
        Unit::Seconds => {
            let ms = (us + 500) / 1_000;
            number(line, format_args!("{}.{:03}", ms / 1_000, ms % 1_000));
        }
        Unit::Milliseconds => number(line, format_args!("{}.{:03}", us / 1_000, us % 1_000)),
        Unit::Microseconds => number(line, format_args!("{us}")),
    }
}
