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
//! - [`wait`]: what a blocked target waits in: the call, the descriptor, the peer;
//! - [`native`]: the C functions under the PHP stack, and both as one stack;
//! - [`rights`]: what this reader may do with a target, and what would allow the rest;
//! - [`sample`]: the policy that joins them. Start reading there;
//! - [`foreign`]: any PHP process, of which nothing is known but its number.
//!
//! **Trust.** The target runs the application's code and may change under us, so
//! every byte of it is hostile: pointers are followed only after a look at their
//! range, every length is cut at a cap and every chain at a depth.
//!
//! This room knows no telemetry and no pool; it does not choose *when* to look, and
//! it reads argument values only of the functions that a caller lists.

#![forbid(unsafe_code)]

pub mod foreign;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod memory;
pub mod native;
pub mod php;
pub mod process;
pub mod rights;
pub mod sample;
pub mod stop;
mod syscalls;
mod task_clock;
pub mod wait;

pub use foreign::{Access, OpenError, Process, Request};
pub use memory::{MemFd, ReadError, TargetAddr, TargetMemory};
pub use php::args::{AllowList, Argument, Arguments};
pub use php::frames::{Frame, How, Kind, Partial, Stack, StackError, Want, read_held, read_stack};
pub use sample::{Options, Sample, SampleError, Stop, Target, sample, sample_with_native};
