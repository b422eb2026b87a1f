//! The native half of a moment: what must be read while a process stands still, and what
//! can wait until it runs on.

use glasspool_abi::Pid;
use glasspool_abi::zend::Layout;

use super::{End, Modules, NativeStack, Seams, StackCopy, Start, Unwinder};
use crate::memory::TargetMemory;
use crate::php::frames::Stack;
use crate::rights::Obstacle;
use crate::stop::Registers;
use crate::wait::Blocked;

/// What native frames are found with.
#[derive(Debug)]
pub struct Natives<'a> {
    /// Of the process that is looked at.
    pub unwinder: &'a mut Unwinder,
    /// The object files of all processes.
    pub modules: &'a mut Modules,
}

/// The top of a native stack with what it has to do with the PHP stack of the same
/// moment; or why there is none.
#[derive(Debug)]
pub(crate) struct Copied(Result<(StackCopy, Seams), End>);

impl Copied {
    /// Of a process that sleeps.
    pub(crate) fn of_blocked<M: TargetMemory>(
        blocked: &Blocked<'_>,
        mem: &M,
        layout: &Layout,
        php: &Stack,
    ) -> Copied {
        let pid = blocked.pid();
        Copied(match blocked.position() {
            Ok(position) => copy(mem, position, layout, php),
            Err(why) => Err(End::NoPosition { pid, why }),
        })
    }

    /// Of a process that is held.
    pub(crate) fn of_held<M: TargetMemory>(
        pid: Pid,
        registers: Option<&Registers>,
        mem: &M,
        layout: &Layout,
        php: &Stack,
    ) -> Copied {
        Copied(match registers {
            Some(registers) => copy(mem, registers, layout, php),
            None => Err(End::NoPosition {
                pid,
                why: Obstacle::Absent,
            }),
        })
    }

    /// From the copy to frames. The process may run meanwhile: of its memory only the
    /// build-ids of its files are read.
    pub(crate) fn unwind<M: TargetMemory>(self, mem: &M, natives: &mut Natives<'_>) -> NativeStack {
        match self.0 {
            Ok((copy, seams)) => natives.unwinder.unwind(natives.modules, mem, &copy, seams),
            Err(end) => NativeStack::unknown(end),
        }
    }
}

fn copy<M: TargetMemory>(
    mem: &M,
    start: impl Into<Start>,
    layout: &Layout,
    php: &Stack,
) -> Result<(StackCopy, Seams), End> {
    Ok((StackCopy::read(mem, start)?, Seams::read(mem, layout, php)?))
}
