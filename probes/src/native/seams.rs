//! Where PHP frames and native ones touch: the C function of each builtin, and the
//! frames that C code called into.

use glasspool_abi::zend::Layout;

use crate::memory::{Batch, ReadError, Slice, TargetAddr, TargetMemory};
use crate::php::frames::Stack;

/// `ZEND_CALL_TOP`: PHP's own C code called this frame, and `execute_ex` returns to it
/// at its end (Zend/zend_compile.h).
const CALL_TOP: u32 = 1 << 17;

/// What one PHP frame has to do with native ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seam {
    /// The C function of a builtin.
    pub handler: Option<TargetAddr>,
    /// Whether C code called it: then it is the outermost one of a run of `execute_ex`.
    pub top: bool,
    /// The name, to show for the handler.
    pub name: String,
}

/// A seam for each frame of a PHP stack, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seams(pub Vec<Seam>);

impl Seams {
    /// Reads the seams of `php`, in one batch; at the same moment as the stack.
    pub fn read<M: TargetMemory>(mem: &M, layout: &Layout, php: &Stack) -> Result<Seams, ReadError> {
        let mut batch = Batch::default();
        let flags: Vec<Option<Slice>> = php
            .frames
            .iter()
            .map(|frame| Some(batch.want(frame.addr.plus(u64::from(layout.ex_call_info))?, 4)))
            .collect();
        mem.read_batch(&mut batch)?;
        let seams = flags.into_iter().zip(&php.frames).map(|(flags, frame)| {
            let flags = flags.and_then(|slice| batch.get(slice).first_chunk().copied());
            Seam {
                handler: frame.handler,
                top: flags.is_some_and(|flags| u32::from_le_bytes(flags) & CALL_TOP != 0),
                name: frame.qualified_name(),
            }
        });
        Ok(Seams(seams.collect()))
    }

    /// The first frame from `from` on that has this handler.
    pub(super) fn find(&self, from: usize, handler: TargetAddr) -> Option<(usize, &str)> {
        let seams = self.0.iter().enumerate().skip(from);
        let (index, seam) = seams
            .into_iter()
            .find(|(_, seam)| seam.handler == Some(handler))?;
        Some((index, &seam.name))
    }
}
