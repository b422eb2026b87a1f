//! Everything about one moment of a blocked process.

use glasspool_abi::Pid;
use glasspool_abi::zend::Layout;

use super::{Modules, NativeStack, Seams, StackCopy, Unwinder};
use crate::memory::TargetMemory;
use crate::native::End;
use crate::php::frames::Stack;
use crate::wait::{Blocked, Wait};

/// A process may wake and sleep again while one looks; after so many looks that were
/// not of one wait, it counts as running.
const TRIES: u32 = 3;

/// A blocked process, whole. All of it is of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The PHP stack.
    pub php: Stack,
    /// The native one. Without the right to know where it is, it is empty and says why.
    pub native: NativeStack,
    /// What the process waits in; without the time so far, see [`Blocked::asleep_for`].
    pub wait: Wait,
}

/// Looks at a process that sleeps, without holding it; `None` if it runs. `read_php`
/// reads the PHP stack, and its error is the result. Takes 0.1 to 0.2 ms when the
/// object files are known, of which the process notices nothing.
pub fn read_blocked<M: TargetMemory, E>(
    pid: Pid,
    mem: &M,
    layout: &Layout,
    (unwinder, modules): (&mut Unwinder, &mut Modules),
    mut read_php: impl FnMut() -> Result<Stack, E>,
) -> Result<Option<Moment>, E> {
    for _ in 0..TRIES {
        let Some(blocked) = Blocked::read(pid) else {
            return Ok(None);
        };
        let php = read_php()?;
        let native = match native(&blocked, mem, layout, &php) {
            Ok((copy, seams)) => unwinder.unwind(modules, mem, &copy, seams),
            Err(end) => NativeStack::unknown(end),
        };
        let wait = blocked.wait(mem, native.innermost());
        if blocked.is_unchanged() {
            return Ok(Some(Moment { php, native, wait }));
        }
    }
    Ok(None)
}

/// What must be read of the native half while it is known to be still.
fn native<M: TargetMemory>(
    blocked: &Blocked,
    mem: &M,
    layout: &Layout,
    php: &Stack,
) -> Result<(StackCopy, Seams), End> {
    let position = blocked.position().map_err(|why| End::NoPosition {
        pid: blocked.pid(),
        why,
    })?;
    Ok((StackCopy::read(mem, position)?, Seams::read(mem, layout, php)?))
}
