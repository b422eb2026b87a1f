//! Those who read along (`glasspool tail`): each has a place in the history and a socket,
//! and gets what is new whenever there is room in it.
//!
//! A reader that does not read costs one failed send(2) per turn and delays nobody; what
//! the history has lost before he came to it is counted and told him. He is hostile:
//! his question is bounded, nothing else of him is read, and there are at most so many.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::history::History;
use crate::tail::{Entry, Filter, Kind, MAX_ENTRY_BYTES, MOST_EARLIER, Question};

/// Readers at a time.
const MOST: usize = 32;
/// Entries that one reader is given, or that are found to be none of his, in one turn.
const PER_TURN: usize = 256;
/// Between two looks whether readers are still there.
const CHECK_NS: u64 = 1_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Readers {
    all: Vec<Reader>,
    checked: u64,
}

#[derive(Debug)]
struct Reader {
    socket: OwnedFd,
    filter: Filter,
    /// The next entry that he has not been given.
    next: u64,
    /// Where he ends; never if he follows.
    until: Option<u64>,
    /// A packet that there was no room for.
    packet: Option<Vec<u8>>,
    missed: u64,
}

/// Whether a reader stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    Yes,
    /// He has all he asked for, or is gone.
    No,
}

impl Readers {
    /// Somebody wants to read. One who cannot be taken is told why.
    pub(super) fn welcome(&mut self, question: &[u8], socket: OwnedFd, history: &History) {
        let refused = if self.all.len() >= MOST {
            Err(format!(
                "{MOST} readers are here already; each ends with its connection"
            ))
        } else if !history.is_on() {
            Err("nothing is kept to be read: history_bytes of [observer] in glasspool.toml is 0".to_owned())
        } else {
            Question::parse(question)
        };
        match refused {
            Ok(question) => self.all.push(Reader::new(question, socket, history)),
            Err(reason) => {
                let entry = Entry {
                    kind: Kind::Refused,
                    message: Some(reason),
                    ..Entry::default()
                };
                // Its buffer is empty; if he is gone, nobody is to be told.
                let _gone = send(&socket, &packet(&entry));
            }
        }
    }

    /// Gives everybody what there is for him and room. Bounded work; never waits.
    pub(super) fn serve(&mut self, history: &History, now: u64) {
        if self.all.is_empty() {
            return;
        }
        self.all.retain_mut(|reader| reader.serve(history) == Stay::Yes);
        // One whose filter takes nothing is never sent anything, so his end is looked for.
        if now.saturating_sub(self.checked) >= CHECK_NS {
            self.checked = now;
            self.all.retain(Reader::is_there);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }
}

impl Reader {
    fn new(question: Question, socket: OwnedFd, history: &History) -> Reader {
        let Question {
            earlier,
            follow,
            filter,
        } = question;
        Reader {
            socket,
            next: start(&filter, earlier.min(MOST_EARLIER), history),
            filter,
            until: (!follow).then(|| history.next()),
            packet: None,
            missed: 0,
        }
    }

    fn serve(&mut self, history: &History) -> Stay {
        for _ in 0..PER_TURN {
            if self.packet.is_none() && !self.prepare(history) {
                let is_done = self.until.is_some_and(|until| self.next >= until);
                return if is_done { Stay::No } else { Stay::Yes };
            }
            let Some(packet) = &self.packet else { continue };
            match send(&self.socket, packet) {
                Ok(_) => self.packet = None,
                // He has to read first.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => return Stay::Yes,
                Err(_) => return Stay::No,
            }
        }
        Stay::Yes
    }

    /// Looks at the next entry; makes a packet of it if it is one of his. False if there
    /// is none for him.
    fn prepare(&mut self, history: &History) -> bool {
        let gone = history.first().saturating_sub(self.next);
        self.missed += gone;
        self.next += gone;
        if self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            self.packet = Some(packet(&Entry {
                kind: Kind::Missed,
                missed: Some(missed),
                ..Entry::default()
            }));
            return true;
        }
        if self.until.is_some_and(|until| self.next >= until) {
            return false;
        }
        let Some(kept) = history.get(self.next) else {
            return false;
        };
        self.next += 1;
        self.packet = kept.if_taken(&self.filter).map(|entry| packet(&entry));
        true
    }

    fn is_there(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let gone = PollFlags::HUP | PollFlags::ERR;
        let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
        polled.is_err() || !fds[0].revents().intersects(gone)
    }
}

/// The entry to begin with so that so many that the filter takes are before the end.
fn start(filter: &Filter, earlier: u32, history: &History) -> u64 {
    let (mut at, mut found) = (history.next(), 0);
    while found < earlier
        && at > history.first()
        && let Some(kept) = history.get(at - 1)
    {
        at -= 1;
        found += u32::from(kept.if_taken(filter).is_some());
    }
    at
}

fn packet(entry: &Entry) -> Vec<u8> {
    let mut packet = serde_json::to_vec(entry).unwrap_or_default();
    // All its texts are bounded where they are kept.
    debug_assert!(packet.len() <= MAX_ENTRY_BYTES, "{} bytes", packet.len());
    packet.truncate(MAX_ENTRY_BYTES);
    packet
}

fn send(socket: &OwnedFd, packet: &[u8]) -> rustix::io::Result<usize> {
    rustix::net::send(socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

    use super::super::testing::{begin_bytes, scalars};
    use super::*;

    /// A reader's end, and what he has been given.
    struct Client(OwnedFd);

    impl Client {
        fn connect(readers: &mut Readers, question: &str, history: &History) -> Client {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a pair");
            readers.welcome(question.as_bytes(), theirs, history);
            Client(ours)
        }

        /// The next entry; `None` if there is none now, `Some(None)` at the end.
        fn next(&self) -> Option<Option<Entry>> {
            let mut buffer = vec![0; MAX_ENTRY_BYTES];
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => Some(None),
                Ok((count, _)) => Some(Some(serde_json::from_slice(&buffer[..count]).expect("JSON"))),
                Err(Errno::AGAIN) => None,
                Err(e) => panic!("{e}"),
            }
        }

        fn all(&self) -> Vec<Entry> {
            std::iter::from_fn(|| self.next().flatten()).collect()
        }
    }

    fn serve(history: &mut History, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let mut end = glasspool_abi::record::Encoder::default();
            let status = if number % 2 == 0 { 200 } else { 500 };
            let times = glasspool_abi::record::EndScalars {
                status,
                ..Default::default()
            };
            end.end(&times, begin_bytes(&scalars(number, 5, true)).bytes());
            history.request(&Arc::from("www"), 7, end.bytes(), false);
        }
    }

    fn paths(entries: &[Entry]) -> Vec<&str> {
        entries.iter().filter_map(|entry| entry.path.as_deref()).collect()
    }

    #[test]
    fn a_reader_gets_the_last_that_he_asks_for_and_then_what_comes() {
        let (mut history, mut readers) = (History::new(1 << 20), Readers::default());
        serve(&mut history, 0..10);
        let question = r#"{"earlier":2,"follow":true,"filter":{"statuses":["5xx"]}}"#;
        let client = Client::connect(&mut readers, question, &history);
        readers.serve(&history, 1);
        assert_eq!(paths(&client.all()), ["/page7", "/page9"]);
        serve(&mut history, 10..13);
        readers.serve(&history, 2);
        assert_eq!(paths(&client.all()), ["/page11"]);
        assert_eq!(client.next(), None, "the connection stays");
        drop(client);
        readers.serve(&history, 2 * CHECK_NS);
        assert_eq!(readers.count(), 0);
    }

    #[test]
    fn one_who_does_not_follow_comes_to_an_end() {
        let (mut history, mut readers) = (History::new(1 << 20), Readers::default());
        serve(&mut history, 0..3);
        let client = Client::connect(&mut readers, r#"{"earlier":100}"#, &history);
        serve(&mut history, 3..5);
        readers.serve(&history, 1);
        assert_eq!(paths(&client.all()), ["/page0", "/page1", "/page2"]);
        assert_eq!(client.next(), Some(None));
        assert_eq!(readers.count(), 0);
    }

    #[test]
    fn a_reader_that_does_not_read_misses_what_is_gone_and_is_told_how_much() {
        let (mut history, mut readers) = (History::new(256 * 1024), Readers::default());
        let client = Client::connect(&mut readers, r#"{"follow":true}"#, &history);
        for turn in 0..200 {
            serve(&mut history, turn * 100..turn * 100 + 100);
            readers.serve(&history, 1);
        }
        let mut seen = client.all();
        let missed: u64 = loop {
            readers.serve(&history, 1);
            let more = client.all();
            if more.is_empty() {
                break seen.iter().filter_map(|entry| entry.missed).sum();
            }
            seen.extend(more);
        };
        assert!(missed > 0);
        assert_eq!(paths(&seen).len() as u64 + missed, 20_000);
        assert_eq!(paths(&seen).last(), Some(&"/page19999"));
    }

    #[test]
    fn who_cannot_be_taken_is_told_why() {
        let (history, mut readers) = (History::new(1 << 20), Readers::default());
        let refusal = |client: &Client| {
            let entry = client.next().flatten().expect("is answered");
            assert_eq!(entry.kind, Kind::Refused);
            assert_eq!(client.next(), Some(None));
            entry.message.expect("says why")
        };
        let client = Client::connect(&mut readers, "{", &history);
        assert!(refusal(&client).contains("makes no sense"));
        let off = Client::connect(&mut readers, "{}", &History::new(0));
        assert!(refusal(&off).contains("history_bytes"));
        let kept: Vec<_> = (0..MOST)
            .map(|_| Client::connect(&mut readers, r#"{"follow":true}"#, &history))
            .collect();
        let one_more = Client::connect(&mut readers, r#"{"follow":true}"#, &history);
        assert!(refusal(&one_more).starts_with("32 readers"));
        assert!(kept.iter().all(|client| client.next().is_none()));
    }
}
