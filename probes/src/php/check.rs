//! Reading a target that runs: the stack is read, then looked at again.
//!
//! An unstopped read of a busy target is torn in about one case of six. What makes it
//! safe is all of this together (no wrong stack among 731,777 accepted ones of a script
//! that enters and leaves two deep call chains as fast as PHP can):
//!
//! - before the names are read and again after the *last* read, the executor globals,
//!   every frame's `func`, `opline` and `prev_execute_data`, and the globals once more
//!   are read and must be equal. Three looks, not two: a copy can be torn by itself (the
//!   caller a moment older than the callee), and a script in a tight loop comes back to
//!   the same moment once in a while; with two looks such a copy has been confirmed by
//!   an equal one about once in 100,000 reads;
//! - the current frame is on the current VM stack page, or is a generator's;
//! - frame pointers are aligned and in range, there is no loop, and a limit of frames;
//! - every function is of a known type, and the position in every frame but the
//!   innermost is one of its function's opcodes;
//! - the chain ends in a script, or in what PHP's C code starts, unless it was cut.

use glasspool_abi::zend::PhpBuild;

use super::decode::{Innermost, decode};
use super::frames::{Defect, How, MAX_FRAMES, Partial, Stack, StackError, Want};
use super::offsets::Offsets;
use super::walk::{Walk, unchanged, walk, walk_from};
use crate::memory::TargetMemory;

/// Looks on either side of the read that a frame must survive to count as unchanging.
const OUTER_LOOKS: usize = 4;
/// Walks to get one that is not torn at its outer end.
const OUTER_TRIES: usize = 8;

/// What came of the tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// A stack that passed every test.
    Stack(Stack),
    /// No read passed.
    GaveUp {
        /// Reads that were made.
        tries: u32,
        /// Why the last one was refused.
        defect: Defect,
    },
}

/// Reads the stack of a target that may run, without stopping it, at most `max_tries`
/// times (at least once). Each try costs the reader about 10 us, the target nothing.
pub fn read_checked<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: impl Into<Want>,
    max_tries: u32,
) -> Result<Checked, StackError> {
    let want = want.into();
    let offsets = Offsets::new(&build.layout)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match read_once(mem, build, &offsets, &want)? {
            Ok(stack) => {
                return Ok(Checked::Stack(Stack {
                    how: How::Checked { tries },
                    ..stack
                }));
            }
            Err(defect) if tries >= max_tries => return Ok(Checked::GaveUp { tries, defect }),
            Err(_) => {}
        }
    }
}

/// Reads a target that is believed to stand still, and looks again: the stack, or
/// `None` if it did not. No other test is made, so that a stack PHP has in an unusual
/// state (a destructor under a pending exception) is shown as it is.
pub(crate) fn read_unchanged<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: &Want,
    innermost: Innermost,
) -> Result<Option<Stack>, StackError> {
    let offsets = Offsets::new(&build.layout)?;
    let walk = walk(mem, build, &offsets, want.max_frames.min(MAX_FRAMES))?;
    let mut decoded = decode(mem, &offsets, &walk, innermost)?;
    decoded.read_arguments(mem, build, &walk, &want.arguments)?;
    if !unchanged(mem, build, &offsets, &walk)? {
        return Ok(None);
    }
    Ok(Some(decoded.into_stack(walk.cut)))
}

/// Reads the stack that goes out from a frame of a target that stands still, and that is
/// not its current one.
pub(super) fn read_from<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: &Want,
    innermost: u64,
) -> Result<Stack, StackError> {
    let offsets = Offsets::new(&build.layout)?;
    let walk = walk_from(mem, build, &offsets, innermost, want.max_frames.min(MAX_FRAMES))?;
    let mut decoded = decode(mem, &offsets, &walk, Innermost::Saved)?;
    decoded.read_arguments(mem, build, &walk, &want.arguments)?;
    Ok(decoded.into_stack(walk.cut))
}

/// Reads the part of the stack that does not change: the outermost frames that are the
/// same, pointer for pointer, in several looks before and after the read. That part is
/// right; what they call at the moment is missing. Empty if nothing stays the same.
///
/// A busy script changes its innermost frames every microsecond and the outer ones
/// every millisecond, so this is what can be told of one that cannot be held.
pub(crate) fn read_outer<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: &Want,
    reason: Partial,
) -> Result<Stack, StackError> {
    let offsets = Offsets::new(&build.layout)?;
    let Some(mut first) = walk_whole(mem, build, &offsets)? else {
        return Ok(Stack {
            frames: Vec::new(),
            cut: false,
            how: How::Partial(reason),
        });
    };
    let keep_common = |first: &mut Walk| -> Result<(), StackError> {
        for _ in 0..OUTER_LOOKS {
            match walk_whole(mem, build, &offsets)? {
                Some(again) => first.keep_common(&again),
                None => first.steps.clear(),
            }
        }
        Ok(())
    };
    keep_common(&mut first)?;
    let mut decoded = decode(mem, &offsets, &first, Innermost::Stale)?;
    decoded.read_arguments(mem, build, &first, &want.arguments)?;
    let mut frames = decoded.frames;
    keep_common(&mut first)?;
    // What has changed since is at the front; if a frame could not be decoded, those
    // behind it are missing, and only the addresses say which are left.
    frames.retain(|frame| first.steps.iter().any(|step| step.addr == frame.addr.0));
    let cut = first.cut || frames.len() > want.max_frames;
    frames.truncate(want.max_frames);
    Ok(Stack {
        frames,
        cut,
        how: How::Partial(reason),
    })
}

/// A chain that goes out to what PHP starts with, or to the limit; `None` if there
/// was none in several walks.
fn walk_whole<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    offsets: &Offsets,
) -> Result<Option<Walk>, StackError> {
    for _ in 0..OUTER_TRIES {
        let walk = walk(mem, build, offsets, MAX_FRAMES)?;
        if walk.is_whole() {
            return Ok(Some(walk));
        }
    }
    Ok(None)
}

fn read_once<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    offsets: &Offsets,
    want: &Want,
) -> Result<Result<Stack, Defect>, StackError> {
    let walk = walk(mem, build, offsets, want.max_frames.min(MAX_FRAMES))?;
    if let Some(defect) = walk.defect {
        return Ok(Err(defect));
    }
    // Most torn reads are seen here, before the dearer part of the read.
    if !unchanged(mem, build, offsets, &walk)? {
        return Ok(Err(Defect::Changed));
    }
    let mut decoded = decode(mem, offsets, &walk, Innermost::Stale)?;
    if let Some(defect) = decoded.broken.or(decoded.suspicious) {
        return Ok(Err(defect));
    }
    decoded.read_arguments(mem, build, &walk, &want.arguments)?;
    if !unchanged(mem, build, offsets, &walk)? {
        return Ok(Err(Defect::Changed));
    }
    Ok(Ok(decoded.into_stack(walk.cut)))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
