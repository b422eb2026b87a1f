//! Writing lines somewhere without ever waiting for whoever reads there.
//!
//! A terminal can be stopped (Ctrl-S), a pipe's reader can hang, a disk can be full.
//! None of that may hold up the program, so what is not taken at once is lost, counted,
//! and told when lines go through again.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::syslog::Syslog;
use crate::config::LogLevel;

/// Bytes that a pipe with room takes at once and undivided (PIPE_BUF, pipe(7)).
const PIECE_BYTES: usize = 4096;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    to: To,
    /// Lines that were not taken since the last that was.
    lost: u64,
    /// Why not.
    reason: Option<io::Error>,
    /// Whether the last line was only taken in part.
    torn: bool,
}

#[derive(Debug)]
enum To {
    /// Written as a whole: a local disk does not wait for anybody.
    Regular(OwnedFd),
    /// A pipe, a FIFO or a device.
    Stream(OwnedFd),
    Socket(OwnedFd),
    Syslog(Syslog),
}

/// How a line fared.
type Put = Result<(), (usize, io::Error)>;

impl Sink {
    /// To what the descriptor stands for. Takes over the descriptor.
    pub(super) fn to(fd: OwnedFd) -> io::Result<Sink> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        Ok(Sink::new(match kind {
            FileType::RegularFile => To::Regular(fd),
            FileType::Socket => To::Socket(fd),
            _ => To::Stream(unblocked(fd.as_fd()).unwrap_or(fd)),
        }))
    }

    /// To the system's log daemon.
    pub(super) fn syslog(syslog: Syslog) -> Sink {
        Sink::new(To::Syslog(syslog))
    }

    fn new(to: To) -> Sink {
        Sink {
            to,
            lost: 0,
            reason: None,
            torn: false,
        }
    }

    /// Takes the place of another, and tells of what that one lost.
    pub(super) fn succeed(&mut self, other: &mut Sink) {
        self.lost = self.lost.saturating_add(std::mem::take(&mut other.lost));
        self.reason = other.reason.take();
        self.torn = other.torn;
    }

    /// The descriptor that standard error can be tied to; syslog has none.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.to {
            To::Regular(fd) | To::Stream(fd) | To::Socket(fd) => Some(fd.as_fd()),
            To::Syslog(_) => None,
        }
    }

    /// Writes a line that ends in a newline, or counts it as lost. `report` makes the line
    /// that tells of those lost before.
    pub(super) fn write(&mut self, level: LogLevel, line: &[u8], report: impl FnOnce(&str) -> Vec<u8>) {
        if self.lost > 0 {
            let reason = self.reason.as_ref().map(ToString::to_string).unwrap_or_default();
            let what = match self.lost {
                1 => "1 line of this log was not taken and is lost".to_owned(),
                many => format!("{many} lines of this log were not taken and are lost"),
            };
            let text = format!("{what}: {reason}");
            let told = self.try_write(LogLevel::Warning, &report(&text));
            if !told {
                self.lost = self.lost.saturating_add(1);
                return;
            }
            self.lost = 0;
            self.reason = None;
        }
        if !self.try_write(level, line) {
            self.lost = self.lost.saturating_add(1);
        }
    }

    fn try_write(&mut self, level: LogLevel, line: &[u8]) -> bool {
        let put = match self.torn {
            true => self.put(level, &[b"\n", line].concat()),
            false => self.put(level, line),
        };
        match put {
            Ok(()) => {
                self.torn = false;
                true
            }
            Err((taken, reason)) => {
                self.torn |= taken > 0;
                self.reason = Some(reason);
                false
            }
        }
    }

    fn put(&mut self, level: LogLevel, line: &[u8]) -> Put {
        match &mut self.to {
            To::Regular(fd) => in_pieces(line, line.len(), |piece| rustix::io::write(&fd, piece)),
            To::Stream(fd) => in_pieces(line, PIECE_BYTES, |piece| {
                // Also where the descriptor could not be made non-blocking, a pipe with
                // room for a piece does not make its writer wait.
                let mut ready = [PollFd::new(&*fd, PollFlags::OUT)];
                match rustix::event::poll(&mut ready, Some(&Timespec::default()))? {
                    0 => Err(Errno::AGAIN),
                    _ => rustix::io::write(&*fd, piece),
                }
            }),
            To::Socket(fd) => in_pieces(line, line.len(), |piece| {
                rustix::net::send(&*fd, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }),
            To::Syslog(syslog) => syslog.send(level, line).map_err(|e| (0, e)),
        }
    }
}

fn in_pieces(line: &[u8], piece: usize, mut write: impl FnMut(&[u8]) -> rustix::io::Result<usize>) -> Put {
    let mut taken = 0;
    while taken < line.len() {
        let end = line.len().min(taken.saturating_add(piece.max(1)));
        match rustix::io::retry_on_intr(|| write(&line[taken..end])) {
            Ok(0) => return Err((taken, io::ErrorKind::WriteZero.into())),
            Ok(count) => taken += count,
            Err(e) => return Err((taken, e.into())),
        }
    }
    Ok(())
}

/// The same pipe or terminal once more, as a description of its own that does not block.
/// Setting the flag on the one there is would set it for everybody who shares it.
fn unblocked(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .append(true)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    opened.map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn report(text: &str) -> Vec<u8> {
        format!("report: {text}\n").into_bytes()
    }

    fn read(reader: &OwnedFd) -> String {
        let mut buffer = vec![0; 1 << 20];
        let count = rustix::io::read(reader, &mut buffer).expect("reads");
        String::from_utf8(buffer[..count].to_vec()).expect("text")
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_they_are_counted() {
        let (reader, writer) = rustix::pipe::pipe().expect("makes");
        let mut sink = Sink::to(writer.try_clone().expect("clones")).expect("knows pipes");
        for number in 0..100_000 {
            sink.write(LogLevel::Notice, format!("line {number}\n").as_bytes(), report);
        }
        let text = read(&reader);
        assert!(text.len() >= 60_000, "a pipe has 64 KiB of room");
        let before = text.lines().count();
        sink.write(LogLevel::Notice, b"flows again\n", report);
        let text = read(&reader);
        let expected = format!(
            "report: {} lines of this log were not taken and are lost: {}\nflows again\n",
            100_000 - before,
            io::Error::from(Errno::AGAIN)
        );
        assert_eq!(text, expected);
        // The description that others write to still waits for its reader.
        let flags = rustix::fs::fcntl_getfl(&writer).expect("asks");
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[test]
    fn a_line_of_several_pieces_that_is_cut_off_does_not_spoil_the_next() {
        let (reader, writer) = rustix::pipe::pipe().expect("makes");
        let mut sink = Sink::to(writer).expect("knows pipes");
        // Five pieces, and a pipe has room for sixteen.
        let long = [vec![b'x'; 4 * PIECE_BYTES], b"\n".to_vec()].concat();
        while sink.lost == 0 {
            sink.write(LogLevel::Notice, &long, report);
        }
        assert!(sink.torn);
        let _taken = read(&reader);
        sink.write(LogLevel::Notice, b"next\n", report);
        let text = read(&reader);
        assert!(
            text.starts_with("\nreport: 1 line of") && text.ends_with("\nnext\n"),
            "{text}"
        );
    }

    #[test]
    fn a_full_disk_is_told_when_there_is_room_again() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let mut sink = Sink::to(full.into()).expect("a device");
        sink.write(LogLevel::Notice, b"lost\n", report);
        assert_eq!(sink.lost, 1);
        let mut file = tempfile::tempfile().expect("makes");
        let mut next = Sink::to(file.try_clone().expect("clones").into()).expect("a file");
        next.succeed(&mut sink);
        let mut sink = next;
        sink.write(LogLevel::Notice, b"kept\n", report);
        let mut text = String::new();
        std::io::Seek::rewind(&mut file).expect("rewinds");
        file.read_to_string(&mut text).expect("reads");
        assert!(
            text.starts_with("report: 1 line of") && text.ends_with("kept\n"),
            "{text}"
        );
    }
}
