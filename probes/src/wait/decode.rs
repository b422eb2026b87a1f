//! What the arguments of a system call say. By name, not by number, so that one match
//! serves every architecture; layouts are those of 64-bit Linux.

use std::time::Duration;

use glasspool_abi::Pid;

use super::descriptor::{Descriptor, Descriptors, printable};
use super::socket::Endpoint;
use super::{Call, Fact, Kind, MAX_DESCRIPTORS, Missing, Purpose};
use crate::memory::{ReadError, TargetAddr, TargetMemory};
use crate::process;
use crate::rights::Obstacle;

/// `struct pollfd`: a descriptor and two 16-bit sets of events.
const POLLFD: usize = 8;
/// Most descriptors of one call that are read; a poll of a thousand is not PHP's.
const MAX_WATCHED: usize = 64;
/// A longer path is cut.
const PATH_CAP: usize = 512;
/// `sizeof(struct sockaddr_un)` is 110, and no address of a socket is longer but for
/// netlink's and packet's.
const SOCKADDR_CAP: usize = 128;

/// `LOCK_EX` of flock(2).
const LOCK_EX: u64 = 2;
/// `F_SETLKW` and `F_OFD_SETLKW` of fcntl(2): lock, and wait for it.
const WAITING_LOCKS: [u64; 2] = [7, 38];
/// `F_WRLCK`, the first field of `struct flock`.
const F_WRLCK: u16 = 1;
/// `TIMER_ABSTIME` of clock_nanosleep(2).
const TIMER_ABSTIME: u64 = 1;
/// `P_PID` of waitid(2).
const P_PID: u64 = 1;

/// Reads what one call leads to.
struct Reader<'a, M> {
    pid: Pid,
    mem: &'a M,
    args: [u64; 6],
    descriptors: Descriptors,
    missing: &'a mut Vec<Missing>,
}

/// What a call is about: the part of [`Call`] that depends on the arguments.
struct Meaning {
    purpose: Purpose,
    watched: Vec<i32>,
    limit: Option<Duration>,
}

/// Decodes one call; `innermost` is the innermost native function, where known.
pub(crate) fn call<M: TargetMemory>(
    pid: Pid,
    mem: &M,
    number: u64,
    args: [u64; 6],
    innermost: Option<&str>,
    missing: &mut Vec<Missing>,
) -> Call {
    let own_name = process::syscall_name(number);
    let name = match own_name {
        Some("restart_syscall") => innermost.and_then(restarted_in).or(own_name),
        _ => own_name,
    };
    let mut reader = Reader {
        pid,
        mem,
        args,
        descriptors: Descriptors::of(pid),
        missing,
    };
    let meaning = reader.meaning(name);
    let kept = meaning.watched.len().min(MAX_DESCRIPTORS);
    let mut descriptors: Vec<Descriptor> = meaning.watched[..kept]
        .iter()
        .map(|&number| reader.describe(number))
        .collect();
    let mut limit = meaning.limit;
    match (&meaning.purpose, descriptors.first_mut()) {
        (Purpose::Connect, Some(first)) => reader.aim(first, args[1], args[2]),
        (Purpose::Transfer | Purpose::Accept, Some(first)) => {
            if name == Some("sendto") && args[4] != 0 {
                reader.aim(first, args[4], args[5]);
            }
            if let Kind::Socket(socket) = &first.kind {
                let sends = matches!(
                    name,
                    Some("write" | "writev" | "sendto" | "sendmsg" | "sendmmsg" | "sendfile")
                );
                limit = if sends {
                    socket.send_limit
                } else {
                    socket.receive_limit
                };
            }
        }
        _ => {}
    }
    Call {
        number,
        name,
        args,
        purpose: meaning.purpose,
        more_descriptors: meaning.watched.len() - kept,
        descriptors,
        limit,
    }
}

/// The call that a function of the C library makes, if it is one that the kernel
/// restarts under another name (those with a relative time limit).
fn restarted_in(function: &str) -> Option<&'static str> {
    let name = function.trim_start_matches("__").trim_start_matches("libc_");
    match name {
        "poll" | "poll_chk" | "GI_poll" | "GI___poll" => Some("poll"),
        "nanosleep" | "GI_nanosleep" | "GI___nanosleep" | "usleep" | "sleep" => Some("clock_nanosleep"),
        "clock_nanosleep" | "clock_nanosleep_time64" | "GI___clock_nanosleep" => Some("clock_nanosleep"),
        _ if name.contains("futex") => Some("futex"),
        _ => None,
    }
}

impl<M: TargetMemory> Reader<'_, M> {
    fn meaning(&mut self, name: Option<&str>) -> Meaning {
        let args = self.args;
        let on_first = |purpose| Meaning {
            purpose,
            watched: vec![as_fd(args[0])],
            limit: None,
        };
        let nothing = |purpose| Meaning {
            purpose,
            watched: Vec::new(),
            limit: None,
        };
        match name.unwrap_or_default() {
            "poll" => self.ready(Self::polled, millis(args[2])),
            "ppoll" => {
                let limit = self.timespec(args[2]);
                self.ready(Self::polled, limit)
            }
            "select" => {
                let limit = self.pair(args[4]).and_then(|pair| time(pair, 1_000_000));
                self.ready(Self::selected, limit)
            }
            "pselect6" => {
                let limit = self.timespec(args[4]);
                self.ready(Self::selected, limit)
            }
            "epoll_wait" | "epoll_pwait" => self.ready(Self::epolled, millis(args[3])),
            "read" | "readv" | "pread64" | "write" | "writev" | "pwrite64" | "recvfrom" | "recvmsg"
            | "sendto" | "sendmsg" | "sendmmsg" => on_first(Purpose::Transfer),
            // From the second to the first, and the other way round.
            "sendfile" => Meaning {
                purpose: Purpose::Transfer,
                watched: vec![as_fd(args[0]), as_fd(args[1])],
                limit: None,
            },
            "copy_file_range" => Meaning {
                purpose: Purpose::Transfer,
                watched: vec![as_fd(args[0]), as_fd(args[2])],
                limit: None,
            },
            "connect" => on_first(Purpose::Connect),
            "accept" | "accept4" => on_first(Purpose::Accept),
            "close" | "fstat" => on_first(Purpose::Other),
            "fsync" | "fdatasync" | "ftruncate" => on_first(Purpose::Sync),
            "flock" => on_first(Purpose::Lock {
                exclusive: args[1] & LOCK_EX != 0,
            }),
            "fcntl" if WAITING_LOCKS.contains(&args[1]) => {
                let kind = self.bytes::<2>(args[2]).map(u16::from_le_bytes);
                on_first(Purpose::Lock {
                    exclusive: kind == Some(F_WRLCK),
                })
            }
            "fcntl" => on_first(Purpose::Other),
            "nanosleep" => Meaning {
                limit: self.timespec(args[0]),
                ..nothing(Purpose::Sleep)
            },
            "clock_nanosleep" => Meaning {
                // An absolute time is one of a clock that only the target may have.
                limit: self.timespec(args[2]).filter(|_| args[1] & TIMER_ABSTIME == 0),
                ..nothing(Purpose::Sleep)
            },
            "wait4" => nothing(Purpose::Child(a_pid(args[0]))),
            "waitid" => nothing(Purpose::Child(a_pid(args[1]).filter(|_| args[0] == P_PID))),
            "futex" => nothing(Purpose::Futex),
            "open" | "stat" | "lstat" | "unlink" | "rename" => nothing(self.path(args[0])),
            "openat" | "newfstatat" | "unlinkat" | "renameat2" => nothing(self.path(args[1])),
            "restart_syscall" => nothing(Purpose::Restarted),
            _ => nothing(Purpose::Other),
        }
    }

    fn ready(&mut self, watched: impl FnOnce(&mut Self) -> Vec<i32>, limit: Option<Duration>) -> Meaning {
        Meaning {
            purpose: Purpose::Ready,
            watched: watched(self),
            limit,
        }
    }

    /// The descriptors of an array of `struct pollfd`. A negative one is ignored by
    /// the kernel (poll(2)).
    fn polled(&mut self) -> Vec<i32> {
        let count = usize::try_from(self.args[1]).map_or(MAX_WATCHED, |count| count.min(MAX_WATCHED));
        let mut bytes = vec![0; count * POLLFD];
        let got = self.prefix(self.args[0], &mut bytes);
        let fds = bytes[..got]
            .chunks_exact(POLLFD)
            .filter_map(|entry| entry.first_chunk());
        fds.map(|fd| i32::from_le_bytes(*fd))
            .filter(|&fd| fd >= 0)
            .collect()
    }

    /// The descriptors in the three sets of a select. The kernel writes its answer
    /// into the sets at its return only (fs/select.c, `core_sys_select`), so until
    /// then they are the question.
    fn selected(&mut self) -> Vec<i32> {
        let count = usize::try_from(self.args[0]).map_or(1024, |count| count.min(1024));
        let mut fds = Vec::new();
        for set in [self.args[1], self.args[2], self.args[3]] {
            // A set is an array of 64-bit words.
            let mut bytes = vec![0; count.div_ceil(64) * 8];
            let got = if set == 0 { 0 } else { self.prefix(set, &mut bytes) };
            let in_set = (0..count.min(got * 8)).filter(|fd| bytes[fd / 8] & (1 << (fd % 8)) != 0);
            fds.extend(in_set.filter_map(|fd| i32::try_from(fd).ok()));
        }
        fds.sort_unstable();
        fds.dedup();
        fds.truncate(MAX_WATCHED);
        fds
    }

    /// The descriptors that an epoll instance watches.
    fn epolled(&mut self) -> Vec<i32> {
        let epoll = as_fd(self.args[0]);
        self.descriptors
            .epoll_targets(epoll, MAX_WATCHED)
            .unwrap_or_else(|| vec![epoll])
    }

    fn describe(&mut self, number: i32) -> Descriptor {
        let (descriptor, obstacles) = self.descriptors.describe(number);
        for (what, why) in obstacles {
            self.miss(what, why);
        }
        descriptor
    }

    /// Gives a socket without a peer the address that the call names.
    fn aim(&mut self, descriptor: &mut Descriptor, addr: u64, len: u64) {
        let Kind::Socket(socket) = &mut descriptor.kind else {
            return;
        };
        if socket.peer.is_some() {
            return;
        }
        let len = usize::try_from(len).map_or(SOCKADDR_CAP, |len| len.min(SOCKADDR_CAP));
        let mut bytes = vec![0; len];
        let got = self.prefix(addr, &mut bytes);
        socket.peer = Endpoint::from_sockaddr(&bytes[..got]);
    }

    fn path(&mut self, addr: u64) -> Purpose {
        let mut bytes = vec![0; PATH_CAP];
        let got = self.prefix(addr, &mut bytes);
        let text = bytes[..got].split(|&byte| byte == 0).next().unwrap_or_default();
        if text.is_empty() {
            Purpose::Other
        } else {
            Purpose::Path(printable(text))
        }
    }

    fn timespec(&mut self, addr: u64) -> Option<Duration> {
        time(self.pair(addr)?, 1_000_000_000)
    }

    /// Two 64-bit numbers; of a null pointer, none.
    fn pair(&mut self, addr: u64) -> Option<(i64, i64)> {
        if addr == 0 {
            return None;
        }
        let bytes = self.bytes::<16>(addr)?;
        let (first, second) = (bytes.first_chunk()?, bytes.last_chunk()?);
        Some((i64::from_le_bytes(*first), i64::from_le_bytes(*second)))
    }

    fn bytes<const N: usize>(&mut self, addr: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (self.prefix(addr, &mut bytes) == N).then_some(bytes)
    }

    /// How many bytes could be read. Notes it if reading is not permitted.
    fn prefix(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        match self.mem.read_prefix(TargetAddr(addr), buf) {
            Ok(got) => got.min(buf.len()),
            Err(ReadError::Denied) => {
                let why = Obstacle::of(self.pid);
                self.miss(Fact::Arguments, why);
                0
            }
            Err(ReadError::Gone | ReadError::Fault { .. }) => 0,
        }
    }

    /// Each kind of fact is missed once; the obstacle is the same each time.
    fn miss(&mut self, what: Fact, why: Obstacle) {
        if self.missing.iter().all(|missing| missing.what != what) {
            self.missing.push(Missing {
                what,
                pid: self.pid,
                why,
            });
        }
    }
}

/// Descriptors are 32 bits wide; what is above them in the register is noise.
fn as_fd(arg: u64) -> i32 {
    let [a, b, c, d, ..] = arg.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// A time limit in milliseconds, negative for none.
fn millis(arg: u64) -> Option<Duration> {
    u64::try_from(as_fd(arg)).ok().map(Duration::from_millis)
}

/// A process id; zero and below mean any, or any of a group.
fn a_pid(arg: u64) -> Option<Pid> {
    Some(Pid(as_fd(arg))).filter(|pid| pid.0 > 0)
}

/// Seconds, and a fraction of which `per_second` are one.
fn time((seconds, fraction): (i64, i64), per_second: u32) -> Option<Duration> {
    let fraction = u32::try_from(fraction)
        .ok()
        .filter(|&fraction| fraction < per_second)?;
    let nanos = fraction * (1_000_000_000 / per_second);
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
