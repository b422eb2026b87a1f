//! From the bytes of a target to PHP frames.
//!
//! - [`frames`]: what a stack is, and [`frames::read_stack`] for a target that stands still;
//! - [`check`]: the same for a target that runs, with the check that finds torn reads;
//! - `walk`: the chain of `zend_execute_data`, from the executor globals outwards;
//! - `decode`: functions, lines and names for that chain, in few reads;
//! - `offsets`: the engine's layout, checked once; `text`: strings made fit to print.
//!
//! Argument values are deliberately not read. Suspended generators and fibers are
//! not on the current chain and so not in the stack.

pub mod check;
mod decode;
pub mod frames;
mod offsets;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod walk;

pub(crate) use decode::Innermost;
