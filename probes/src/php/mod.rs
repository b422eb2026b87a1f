//! From the bytes of a target to PHP frames.
//!
//! - [`frames`]: what a stack is, and [`frames::read_stack`] for a target that stands still;
//! - [`held`]: the same for one that waits until the read is done;
//! - [`check`]: the same for a target that runs, with the check that finds torn reads;
//! - `reader`: one read, of these parts:
//! - `walk`: the chain of `zend_execute_data`, from the executor globals outwards, with
//!   the generators of `delegation`, in the copies of `regions`;
//! - `gather`: functions (`function`), lines and names for that chain, in few reads, and
//!   `decode`, which makes frames of them;
//! - [`args`]: what the calls were made with, by type, and by value where that is allowed;
//! - [`layouts`]: the offsets of each version, for processes that hand over none;
//! - `offsets`: a layout, checked once; `text` and `redact`: strings made fit to print.
//!
//! Suspended generators and fibers are not on the current chain and so not in the stack;
//! [`fibers`] finds those fibers.

pub mod args;
pub mod check;
mod decode;
mod delegation;
pub mod fibers;
pub mod frames;
mod function;
mod gather;
pub mod held;
pub mod layouts;
mod offsets;
mod reader;
pub(crate) mod redact;
mod regions;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod text;
mod walk;

pub(crate) use gather::Innermost;
