//! Ways in for the fuzz targets, which have no process: what is read of one is bytes
//! here, and the object files are, too. Compiled with the feature `fuzzing` only.

use glasspool_abi::Pid;
use glasspool_abi::zend::{Layout, PhpBuild};

use crate::foreign::{self, Request};
use crate::memory::{TargetAddr, TargetMemory};
use crate::native::NativeStack;
use crate::wait::{self, Call};

/// What a process serves.
pub fn request(mem: &impl TargetMemory, build: &PhpBuild, sapi_globals: TargetAddr) -> Option<Request> {
    foreign::request::read(mem, build, sapi_globals)
}

/// The self-test of a process.
pub fn self_test(mem: &impl TargetMemory, build: &PhpBuild) -> bool {
    foreign::self_test::functions(mem, build).is_ok()
}

/// What a system call with these arguments means; its descriptors are those of process
/// `pid`.
pub fn call(pid: Pid, mem: &impl TargetMemory, number: u64, args: [u64; 6]) -> Call {
    wait::decode::call(pid, mem, number, args, None, &mut Vec::new())
}

/// Unwinds a stack (`bytes` from address `stack` on) from `pc` in the only object file
/// there is, mapped at `start`. `None` if it is none.
#[must_use]
pub fn unwind(
    file: &[u8],
    start: u64,
    [pc, stack, frame, link]: [u64; 4],
    bytes: &[u8],
) -> Option<NativeStack> {
    crate::native::unwind_in(file, start, [pc, stack, frame, link], bytes)
}

/// The offsets and the source line of `address` that the debug information of an object
/// file tells.
#[must_use]
pub fn described(file: &[u8], address: u64) -> (Option<Layout>, Option<String>) {
    let (dwarf, source) = crate::native::debug_information(file, address);
    (
        dwarf.and_then(|dwarf| foreign::dwarf::layout(&dwarf).ok()),
        source.map(|source| source.to_string()),
    )
}
