//! A live process through `process_vm_readv` (process_vm_readv(2)).
//!
//! The kernel checks the right at each call, and by the *file system's* rules not at
//! all: a reader that has CAP_SYS_PTRACE but not CAP_DAC_READ_SEARCH may use this and
//! not open `/proc/PID/mem`, which has mode 0600. Otherwise `/proc/PID/mem` is the better
//! way: it belongs to one address space, this belongs to a number.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::Pid;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use super::joined::read_joined;
use super::{Batch, ReadError, TargetAddr, TargetMemory};

/// Reads a process by its id. Never writes, never stops the target. Between an exec
/// and the next look at the program it reads the new program's memory.
#[derive(Debug, Clone)]
pub struct VmRead {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
}

impl VmRead {
    /// `pidfd` (pidfd_open(2)) is of the process `pid`: it tells that process from a
    /// later one with the same number.
    #[must_use]
    pub fn new(pid: Pid, pidfd: Arc<OwnedFd>) -> VmRead {
        VmRead { pid, pidfd }
    }
}

impl TargetMemory for VmRead {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let fault = ReadError::Fault { addr };
        let remote = RemoteIoVec {
            base: usize::try_from(addr.0).map_err(|_| fault.clone())?,
            len: buf.len(),
        };
        let pid = nix::unistd::Pid::from_raw(self.pid.0);
        let got = loop {
            match process_vm_readv(pid, &mut [IoSliceMut::new(buf)], &[remote]) {
                Err(Errno::EINTR) => {}
                Ok(0) => return Err(fault),
                Ok(got) => break got,
                Err(Errno::ESRCH) => return Err(ReadError::Gone),
                Err(Errno::EPERM | Errno::EACCES) => return Err(ReadError::Denied),
                Err(_) => return Err(fault),
            }
        };
        // Only after the read it is known whose bytes they were.
        if crate::process::has_exited(&*self.pidfd) {
            return Err(ReadError::Gone);
        }
        Ok(got)
    }

    fn read_batch(&self, batch: &mut Batch) -> Result<(), ReadError> {
        read_joined(self, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pid: u32) -> VmRead {
        let pid = Pid(pid.try_into().unwrap());
        let raw = rustix::process::Pid::from_raw(pid.0).unwrap();
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).unwrap();
        VmRead::new(pid, Arc::new(pidfd))
    }

    #[test]
    fn bytes_prefixes_and_faults() {
        let bytes = *b"glasspool";
        let addr = TargetAddr(bytes.as_ptr().addr() as u64);
        let mut buf = [0; 9];
        of(std::process::id()).read(addr, &mut buf).unwrap();
        assert_eq!(buf, bytes);
        for addr in [TargetAddr(8), TargetAddr(u64::MAX - 3)] {
            let read = of(std::process::id()).read(addr, &mut buf);
            assert_eq!(read, Err(ReadError::Fault { addr }));
        }
    }

    #[test]
    fn a_dead_process_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let memory = of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(memory.read(TargetAddr(0x1000), &mut [0; 8]), Err(ReadError::Gone));
    }
}
