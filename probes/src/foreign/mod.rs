//! Any PHP process of this machine: a stock php-fpm or php-cgi worker, a script on the
//! command line, a program that embeds libphp; also in another root directory, mount
//! or pid namespace, as seen from here.
//!
//! Nobody hands over where such a process keeps its globals, so it is found out:
//!
//! - `maps`: the files it has mapped; one of them exports `executor_globals`;
//! - `binary`: that file: the symbols, the version, the kind of VM. Read once for all
//!   processes that run the same file;
//! - [`crate::php::layouts`]: the offsets of that version; `dwarf`: the same out of debug
//!   information, for builds that have no table;
//! - `self_test`: whether they fit this very process, before anything is believed;
//! - `request`: what the process serves; `params`: what the web server has said of it.
//!
//! Start reading at [`Process::open`].

mod binary;
pub(crate) mod dwarf;
mod maps;
mod open;
mod params;
pub(crate) mod request;
pub(crate) mod self_test;
mod version;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;

pub use binary::VmKind;
pub use request::Request;

use crate::memory::{LiveMemory, TargetAddr};
use crate::native::Natives;
use crate::php::frames::StackError;
use crate::process;
use crate::rights::Obstacle;
use crate::sample::{Options, Sample, SampleError, Subject, sample_subject};
use binary::Binary;

/// How a process is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// The way to its memory.
    pub way: Way,
    /// Whether to read PHP versions whose offsets were taken from somebody else's copy
    /// of the headers and never tried on a process: 8.0, 8.1 and 8.3.
    pub unverified_layouts: bool,
    /// Whether to take the offsets from debug information even where a table has them, to
    /// try one against the other.
    pub debug_information: bool,
}

/// Where the offsets of a process were taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayoutFrom {
    /// The table for its version ([`crate::php::layouts`]).
    Table,
    /// The debug information of its very build.
    DebugInformation,
}

/// The way to a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Way {
    /// `/proc/PID/mem`, and where that is refused `process_vm_readv`.
    #[default]
    Any,
    /// `/proc/PID/mem` only.
    Mem,
    /// `process_vm_readv` only.
    VmRead,
}

/// Why a process cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such process, or there is none any more. Ordinary.
    #[error("cannot look into process {pid}: there is no such process")]
    Gone {
        /// The process.
        pid: Pid,
    },
    /// The kernel refuses.
    #[error("cannot {what} of process {pid}: {why}")]
    Denied {
        /// The process.
        pid: Pid,
        /// What was refused.
        what: &'static str,
        /// Why, and what to grant.
        why: Obstacle,
    },
    /// It runs no PHP.
    #[error(
        "process {pid} ({program}) is not a PHP process: no file that it has mapped exports executor_globals"
    )]
    NotPhp {
        /// The process.
        pid: Pid,
        /// The program that it runs.
        program: String,
    },
    /// It runs a PHP that this version of Glasspool cannot read.
    #[error("cannot read PHP frames of process {pid}: {php}: {why}")]
    Unsupported {
        /// The process.
        pid: Pid,
        /// Its version and build, as far as known.
        php: String,
        /// What is not supported, and what is.
        why: String,
    },
    /// The file or the memory is not what it should be.
    #[error("cannot make sense of process {pid} ({file}): {why}")]
    Garbled {
        /// The process.
        pid: Pid,
        /// The file with PHP in it.
        file: String,
        /// What does not fit.
        why: String,
    },
    /// A system call failed for another reason.
    #[error("cannot {what} of process {pid}")]
    Kernel {
        /// The process.
        pid: Pid,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// A PHP process that can be looked into, for as long as it runs this program.
///
/// Holds its pidfd and the way to its memory. A later process with the same number is
/// never read by mistake.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    memory: LiveMemory,
    build: PhpBuild,
    binary: Arc<Binary>,
    layout_from: LayoutFrom,
    sapi_globals: Option<TargetAddr>,
    /// Whether a stack of this process has been seen that made sense.
    proven: AtomicBool,
}

impl Process {
    /// Finds the PHP in a process. Costs 5-40 ms for the first process that runs a
    /// given file, and well under 1 ms for the others. Changes nothing in the process
    /// and never stops it.
    pub fn open(pid: Pid, access: Access) -> Result<Process, OpenError> {
        open::open(pid, access)
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd: readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !process::has_exited(&*self.pidfd)
    }

    /// Whether what was read up to now was this process's, and of this program.
    fn is_there(&self) -> bool {
        self.is_alive() && self.memory.is_same_program()
    }

    /// The PHP inside it: version, API number, offsets.
    #[must_use]
    pub fn build(&self) -> &PhpBuild {
        &self.build
    }

    /// Where its offsets were taken from.
    #[must_use]
    pub fn layout_from(&self) -> LayoutFrom {
        self.layout_from
    }

    /// The file with PHP in it, as the process itself would name it.
    #[must_use]
    pub fn file(&self) -> &str {
        self.binary.path()
    }

    /// How its VM dispatches; `None` if the file does not say so in a known way.
    #[must_use]
    pub fn vm_kind(&self) -> Option<VmKind> {
        self.binary.vm_kind()
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &LiveMemory {
        &self.memory
    }

    /// Takes one sample, as [`crate::sample()`] does of a worker. Blocks for 0.1 ms
    /// typically, some milliseconds at worst.
    pub fn sample(&self, options: &Options) -> Result<Sample, SampleError> {
        self.sample_and(options, None)
    }

    /// The same with native frames, as [`crate::sample_with_native()`].
    pub fn sample_with_native(&self, options: &Options, natives: Natives<'_>) -> Result<Sample, SampleError> {
        self.sample_and(options, Some(natives))
    }

    fn sample_and(&self, options: &Options, natives: Option<Natives<'_>>) -> Result<Sample, SampleError> {
        let subject = Subject {
            pid: self.pid,
            memory: &self.memory,
            calls: None,
            build: &self.build,
            vm_registers: self.vm_kind() == Some(VmKind::Hybrid),
            saved_registers: None,
        };
        let sample = sample_subject(&subject, options, natives).map_err(|error| match error {
            // What cannot be read of a process that has ended says nothing.
            SampleError::Read { .. } if !self.is_there() => SampleError::Gone { pid: self.pid },
            error => error,
        })?;
        if !self.is_there() {
            return Err(SampleError::Gone { pid: self.pid });
        }
        if !self.proven.load(Ordering::Relaxed) {
            match self_test::judge(&sample.stack) {
                self_test::Verdict::Sane => self.proven.store(true, Ordering::Relaxed),
                self_test::Verdict::Nothing => {}
                self_test::Verdict::Insane(why) => {
                    return Err(SampleError::Read {
                        pid: self.pid,
                        source: StackError::Nonsense {
                            php: self.build.version.clone(),
                            why,
                        },
                    });
                }
            }
        }
        Ok(sample)
    }

    /// What the process serves or runs, from PHP's `SG(request_info)`. `None` if the
    /// file does not export `sapi_globals`, or nothing of it can be read.
    ///
    /// PHP leaves it in place when a request ends: see [`Request::stale`].
    #[must_use]
    pub fn request(&self) -> Option<Request> {
        request::read(&self.memory, &self.build, self.sapi_globals?).filter(|_| self.is_there())
    }
}
