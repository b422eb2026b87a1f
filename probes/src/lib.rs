//! Seeing inside a process: the PHP stack of a worker, read from outside.
//!
//! Nothing runs in the target and nothing is asked of it: its memory is read, and
//! PHP's own structures are decoded with the offsets of its build. What a sample
//! costs the target is nothing at all, except where a running target must be held
//! for the read (tens of microseconds), and a target that is blocked in the kernel
//! is never held: a ptrace stop makes timed socket calls fail with EINTR (signal(7),
//! "Interruption of system calls ... by stop signals").
//!
//! - [`memory`]: bytes of a target, from a descriptor or from a test's array;
//! - [`php`]: from bytes to frames, and the check that finds a torn read;
//! - [`process`]: what `/proc` says of a target without any privilege;
//! - [`stop`]: holding a running target, for as long as one read;
//! - [`sample`]: the policy that joins them. Start reading there.
//!
//! **Trust.** The target runs the application's code and may change under us, so
//! every byte of it is hostile: pointers are followed only after a look at their
//! range, every length is cut at a cap and every chain at a depth.
//!
//! This room knows no telemetry and no pool; it does not choose *when* to look, and
//! it reads no argument values.

#![forbid(unsafe_code)]

pub mod memory;
pub mod php;
pub mod process;
pub mod sample;
pub mod stop;
mod syscalls;

pub use memory::{MemFd, ReadError, TargetAddr, TargetMemory};
pub use php::frames::{Frame, How, Kind, Partial, Stack, StackError, read_held, read_stack};
pub use sample::{Options, Sample, SampleError, Stop, Target, sample};
