//! A live process through `process_vm_readv` (process_vm_readv(2)).
//!
//! The kernel checks the right at each call, and by the *file system's* rules not at
//! all: a reader that has CAP_SYS_PTRACE but not CAP_DAC_READ_SEARCH may use this and
//! not open `/proc/PID/mem`, which has mode 0600. Otherwise `/proc/PID/mem` is the better
//! way: it belongs to one address space, this belongs to a number. That its process has
//! executed another program is therefore asked for: [`VmRead::is_same_program`].

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use glasspool_abi::Pid;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use super::joined::read_joined;
use super::{Batch, ReadError, TargetAddr, TargetMemory};

/// Reads a process by its id. Never writes, never stops the target. After an exec it
/// reads the new program's memory: whoever reads must ask afterwards whether it still
/// was the same ([`VmRead::is_same_program`]), and believe nothing if not.
#[derive(Debug, Clone)]
pub struct VmRead {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    program: Option<Program>,
}

/// What tells one run of a program from the next in the same process: where its code,
/// its heap and its stack begin. The kernel places all of them anew, at random, at each
/// exec (fs/binfmt_elf.c), and nothing moves them afterwards. Without the right to know
/// they are the same numbers for every process, and then this reader cannot read either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Program {
    code: u64,
    heap: u64,
    stack: u64,
}

impl VmRead {
    /// `pidfd` (pidfd_open(2)) is of the process `pid`: it tells that process from a
    /// later one with the same number.
    #[must_use]
    pub fn new(pid: Pid, pidfd: Arc<OwnedFd>) -> VmRead {
        VmRead {
            program: Program::of(pid),
            pid,
            pidfd,
        }
    }

    /// Whether the process still runs the program that it ran when this was made. If so,
    /// all that was read meanwhile was that program's: there is no way back from an exec.
    /// About 10 us.
    #[must_use]
    pub fn is_same_program(&self) -> bool {
        Program::of(self.pid) == self.program
    }
}

impl Program {
    fn of(pid: Pid) -> Option<Program> {
        Program::parse(&crate::process::read_all(pid, "stat").ok()?)
    }

    /// `startcode`, `start_brk` and `startstack`: fields 26, 47 and 28 of
    /// proc_pid_stat(5). The third one is the first after the last parenthesis.
    fn parse(stat: &str) -> Option<Program> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Program {
            code: field(26)?,
            heap: field(47)?,
            stack: field(28)?,
        })
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
    fn a_program_is_told_from_the_next_one_of_the_same_process() {
        let own = of(std::process::id());
        assert!(own.is_same_program());
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line; echo ready; exec sh -c 'echo again; read line'"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let memory = of(child.id());
        assert!(memory.is_same_program());
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::Write::write_all(&mut stdin, b"go on\n").unwrap();
        let mut line = String::new();
        while line != "again\n" {
            line.clear();
            std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        }
        assert!(!memory.is_same_program(), "the same program, executed again");
        drop(stdin);
        child.wait().unwrap();
        assert!(!memory.is_same_program());
    }

    #[test]
    fn the_name_in_stat_may_be_anything() {
        let numbers: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a) 1 2 (b) {}", numbers.join(" "));
        let expected = Program {
            code: 26,
            heap: 47,
            stack: 28,
        };
        assert_eq!(Program::parse(&stat), Some(expected));
        assert_eq!(Program::parse("7 (a) S 1 2 3"), None);
        assert_eq!(Program::parse("7"), None);
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
