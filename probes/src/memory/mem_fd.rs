//! A live process through an open `/proc/PID/mem`.
//!
//! The kernel checks the right to read at `open`, not at `read` (`fs/proc/base.c`,
//! `mem_open`), so a descriptor that the worker opened itself and handed over can be
//! read by a process with no privilege at all, also after the worker has dropped its
//! own. It belongs to one address space: after an exit or exec reads return 0 bytes,
//! and a reused pid is never read by mistake.

use std::os::fd::AsFd;

use rustix::io::{Errno, pread};

use super::joined::read_joined;
use super::{Batch, ReadError, TargetAddr, TargetMemory};

/// Reads the address space that a `/proc/PID/mem` descriptor belongs to, about half a
/// microsecond per call. Never writes, never stops the target.
#[derive(Debug, Clone, Copy)]
pub struct MemFd<F> {
    fd: F,
}

impl<F: AsFd> MemFd<F> {
    /// `fd` is an open `/proc/PID/mem` (an `OwnedFd`, `BorrowedFd`, `File`, `Arc` of one).
    pub fn new(fd: F) -> MemFd<F> {
        MemFd { fd }
    }
}

impl<F: AsFd> TargetMemory for MemFd<F> {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        // The file offset is signed, and `pread` on the descriptor would refuse it
        // with EINVAL, which says less.
        if i64::try_from(addr.0).is_err() {
            return Err(ReadError::Fault { addr });
        }
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            return match pread(self.fd.as_fd(), &mut *buf, addr.0) {
                Ok(0) => Err(ReadError::Gone),
                Ok(got) => Ok(got),
                Err(Errno::INTR) => continue,
                Err(Errno::PERM | Errno::ACCESS) => Err(ReadError::Denied),
                Err(Errno::SRCH) => Err(ReadError::Gone),
                Err(_) => Err(ReadError::Fault { addr }),
            };
        }
    }

    fn read_batch(&self, batch: &mut Batch) -> Result<(), ReadError> {
        read_joined(self, batch)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn own_memory() -> MemFd<File> {
        MemFd::new(File::open("/proc/self/mem").unwrap())
    }

    fn address_of(bytes: &[u8]) -> TargetAddr {
        TargetAddr(bytes.as_ptr().addr() as u64)
    }

    #[test]
    fn joined_and_single_requests_give_the_same_bytes() {
        let near: Vec<u8> = (0..=255).cycle().take(40_000).collect();
        let far = Box::new([7_u8; 100]);
        let mut batch = Batch::default();
        let base = address_of(&near);
        let wanted = [(30_000, 50), (0, 10), (5, 300), (4_000, 1), (39_990, 10)];
        let slices = wanted.map(|(skip, len)| batch.want(base.plus(skip).unwrap(), len));
        let apart = batch.want(address_of(far.as_slice()), 100);
        let fault = batch.want(TargetAddr(8), 16);
        let again = batch.want(base, 10);
        own_memory().read_batch(&mut batch).unwrap();
        for ((skip, len), slice) in wanted.into_iter().zip(slices) {
            let skip = usize::try_from(skip).unwrap();
            assert_eq!(batch.get(slice), &near[skip..skip + len]);
        }
        assert_eq!(batch.get(apart), far.as_slice());
        assert_eq!(batch.get(fault), b"");
        assert_eq!(batch.get(again), &near[..10]);

        batch.clear();
        let unanswered = batch.want(base, 10);
        assert_eq!(batch.get(unanswered), b"", "an old answer is none");
        own_memory().read_batch(&mut batch).unwrap();
        assert_eq!(batch.get(unanswered), &near[..10]);
    }

    #[test]
    fn a_dead_process_is_gone_not_faulty() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let memory = MemFd::new(File::open(format!("/proc/{}/mem", child.id())).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(memory.read(TargetAddr(0x1000), &mut [0; 8]), Err(ReadError::Gone));
    }

    #[test]
    fn addresses_no_file_offset_can_hold_are_faults() {
        let addr = TargetAddr(u64::MAX - 3);
        assert_eq!(
            own_memory().read(addr, &mut [0; 8]),
            Err(ReadError::Fault { addr })
        );
    }
}
