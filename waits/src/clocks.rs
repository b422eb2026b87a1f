//! The clocks of the CPUs, which have it looked who is on them.

use std::io;
use std::os::fd::AsFd;

use crate::kernel;

/// Has the clocks run ([`ProgramPart::Clock`](glasspool_abi::control::ProgramPart)), or stand
/// still, as they do at first. While they run, 99 times in a second of each CPU it is looked
/// whether a registered worker has it and is in a request; then its stack is told among the
/// records ([`Record::OnCpu`](crate::Record)).
///
/// A system call for each clock, in which the kernel calls its CPU; no privilege. They go on
/// for as long as anybody holds them: whoever has them run sees to their end, also if those
/// die for whom it does.
///
/// # Errors
/// The first, if none has heard. One alone is of a CPU that was switched off since it was
/// made: it has no clock any more, also not if it comes back.
pub fn run_clocks(clocks: &[impl AsFd], run: bool) -> io::Result<()> {
    let mut heard = clocks.is_empty();
    let mut refused = None;
    for clock in clocks {
        match kernel::run_clock(clock.as_fd(), run) {
            Ok(()) => heard = true,
            Err(e) => refused = refused.or(Some(e)),
        }
    }
    refused.filter(|_| !heard).map_or(Ok(()), Err)
}
