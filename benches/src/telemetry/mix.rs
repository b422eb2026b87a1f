//! Clients that ask for every outcome there is, in a fixed mix, and note what became of each.
//!
//! Threads with blocking sockets: half of them make a connection for each request, half keep theirs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glasspool_fastcgi::Role;
use glasspool_fastcgi::client::{Event, RequestEncoder, ResponseReader};

use crate::BenchError;
use crate::load::request;
use crate::stop::Stop;

/// No request takes longer, those that are killed for taking too long included.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

/// How requests end: the outcome's name, its share of 10,000, and the status that clients see; none if the worker
/// dies of it.
const MIX: [(&str, u64, Option<&str>); 10] = [
    ("timeout", 2, None),
    ("killed", 5, None),
    ("slow", 5, Some("200")),
    ("gone", 50, Some("200")),
    ("fatal", 300, Some("500")),
    ("error", 300, Some("500")),
    ("not-found", 300, Some("404")),
    ("exit", 300, Some("200")),
    ("line", 300, Some("200")),
    ("ok", 8438, Some("200")),
];
const WHOLE: u64 = 10_000;
/// Without a factor in common with the whole, so that outcomes are spread over the run.
const STRIDE: u64 = 7_919;
/// Those of them that write a line into PHP's error log.
const WRITE_A_LINE: [&str; 2] = ["fatal", "line"];
/// What requests are counted as whose worker died.
pub(super) const KILLED: &str = "killed";

/// What was asked for, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Requests by the status that they must have.
    pub(super) by_status: BTreeMap<String, u64>,
    /// Those that wrote a line into PHP's error log.
    pub(super) lines: u64,
    /// Those that ended otherwise.
    pub(super) wrong: u64,
    /// The first of them in words.
    pub(super) first_wrong: Option<String>,
}

/// Sends so many requests from so many clients.
///
/// # Errors
/// A signal to us.
pub(super) fn run(
    socket: &Path,
    scripts: &Path,
    requests: u64,
    clients: u64,
    stop: &Stop,
) -> Result<Sent, BenchError> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|number| {
                let over = &over;
                let client = move || {
                    let mut client = Client::new(socket, scripts, number % 2 == 1);
                    let mine = (number..requests).step_by(usize::try_from(clients).unwrap_or(1));
                    mine.take_while(|_| !over.load(Ordering::Relaxed))
                        .for_each(|request| client.ask(request));
                    client.sent
                };
                scope.spawn(client)
            })
            .collect();
        let mut interrupted = Ok(());
        while threads.iter().any(|thread| !thread.is_finished()) && interrupted.is_ok() {
            interrupted = stop.pause(TICK);
        }
        over.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for sent in threads
            .into_iter()
            .map(|thread| thread.join().expect("clients do not panic"))
        {
            for (status, count) in sent.by_status {
                *all.by_status.entry(status).or_default() += count;
            }
            all.lines += sent.lines;
            all.wrong += sent.wrong;
            all.first_wrong = all.first_wrong.or(sent.first_wrong);
        }
        interrupted.map(|()| all)
    })
}

/// How the request of that number ends.
fn outcome(number: u64) -> (&'static str, Option<&'static str>) {
    let mut place = number.wrapping_mul(STRIDE) % WHOLE;
    for (name, share, status) in MIX {
        match place.checked_sub(share) {
            Some(rest) => place = rest,
            None => return (name, status),
        }
    }
    unreachable!("the shares are the whole")
}

struct Client<'a> {
    socket: &'a Path,
    scripts: &'a Path,
    keep: bool,
    connection: Option<UnixStream>,
    sent: Sent,
}

impl<'a> Client<'a> {
    fn new(socket: &'a Path, scripts: &'a Path, keep: bool) -> Self {
        Self {
            socket,
            scripts,
            keep,
            connection: None,
            sent: Sent::default(),
        }
    }

    fn ask(&mut self, number: u64) {
        let (name, expected) = outcome(number);
        let asked = self.try_ask(name);
        let found = match &asked {
            Ok(status) => status.as_deref(),
            Err(_) => None,
        };
        // Who hangs up sees no answer.
        let right = name == "gone" && asked.is_ok() || found == expected;
        if !right {
            self.sent.wrong += 1;
            self.sent
                .first_wrong
                .get_or_insert_with(|| format!("{name} (number {number}): {asked:?}"));
        }
        self.sent.lines += u64::from(WRITE_A_LINE.contains(&name));
        let status = expected.unwrap_or(KILLED).to_owned();
        *self.sent.by_status.entry(status).or_default() += 1;
    }

    /// The answer's status; `None` if the connection ended before the request did.
    fn try_ask(&mut self, name: &str) -> std::io::Result<Option<String>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => UnixStream::connect(self.socket)?,
        };
        connection.set_read_timeout(Some(PATIENCE))?;
        let params = request::params(self.scripts, "/outcome.php", &format!("o={name}"));
        let mut bytes = Vec::new();
        RequestEncoder::begin(&mut bytes, 1, Role::Responder, self.keep);
        RequestEncoder::params(&mut bytes, 1, params.iter().map(|(name, value)| (name, value)));
        RequestEncoder::stdin_end(&mut bytes, 1);
        connection.write_all(&bytes)?;
        if name == "gone" {
            return Ok(None);
        }
        let status = read_answer(&mut connection)?;
        if self.keep && status.is_some() {
            self.connection = Some(connection);
        }
        Ok(status)
    }
}

fn read_answer(connection: &mut UnixStream) -> std::io::Result<Option<String>> {
    let (mut reader, mut input, mut body) = (ResponseReader::new(), Vec::new(), Vec::new());
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match connection.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            read => read?,
        };
        input.extend_from_slice(&buffer[..count]);
        loop {
            let fed = reader.feed(&input).map_err(std::io::Error::other)?;
            if let Some(Event::Stdout(range)) = &fed.event {
                body.extend_from_slice(&input[range.clone()]);
            }
            input.drain(..fed.consumed);
            match fed.event {
                None => break,
                Some(Event::End(_)) => return Ok(Some(status(&body))),
                Some(_) => {}
            }
        }
    }
}

/// `404` of `Status: 404 Not Found`; without that line it is 200 (RFC 3875, 6.3.3).
fn status(answer: &[u8]) -> String {
    let head = String::from_utf8_lossy(&answer[..answer.len().min(256)]).into_owned();
    let line = head.lines().find_map(|line| line.strip_prefix("Status: "));
    line.map_or("200", |line| line.split(' ').next().unwrap_or(line))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_what_it_says() {
        assert_eq!(MIX.iter().map(|(_, share, _)| share).sum::<u64>(), WHOLE);
        let mut counts = BTreeMap::<_, u64>::new();
        for number in 0..WHOLE {
            *counts.entry(outcome(number).0).or_default() += 1;
        }
        for (name, share, _) in MIX {
            assert_eq!(counts[name], share, "{name}");
        }
    }

    #[test]
    fn statuses_are_read() {
        assert_eq!(status(b"Status: 404 Not Found\r\nX: y\r\n\r\n"), "404");
        assert_eq!(status(b"Content-type: text/html\r\n\r\nok"), "200");
    }
}
