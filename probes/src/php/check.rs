//! Reading a target that runs: the stack is read, then looked at again.
//!
//! An unstopped read of a busy target is torn in about one case of six. What makes it
//! safe is all of this together (no wrong stack among two million looks at a script
//! that enters and leaves two deep call chains as fast as PHP can, `torn` in `benches`):
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

use super::frames::{Defect, How, Partial, Stack, StackError, Want};
use super::gather::Innermost;
use super::reader::Reader;
use super::walk::Walk;
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
    let mut reader = Reader::new(build, want.into())?;
    let mut tries = 0;
    loop {
        tries += 1;
        match read_once(mem, &mut reader)? {
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
    let mut reader = Reader::new(build, want.clone())?;
    let walk = reader.walk(mem)?;
    let raw = reader.gather(mem, &walk, innermost)?;
    if !reader.is_unchanged(mem, &walk)? {
        return Ok(None);
    }
    Ok(Some(reader.decode(raw).into_stack(walk.cut)))
}

/// Reads the stack that goes out from a frame of a target that stands still, and that is
/// not its current one.
pub(super) fn read_from<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    want: &Want,
    innermost: u64,
) -> Result<Stack, StackError> {
    let mut reader = Reader::new(build, want.clone())?;
    let walk = reader.walk_from(mem, innermost)?;
    let raw = reader.gather(mem, &walk, Innermost::Saved)?;
    Ok(reader.decode(raw).into_stack(walk.cut))
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
    let mut reader = Reader::new(build, want.clone())?;
    let Some(mut first) = walk_whole(mem, &mut reader)? else {
        return Ok(Stack {
            frames: Vec::new(),
            cut: false,
            how: How::Partial(reason),
        });
    };
    keep_common(mem, &mut reader, &mut first)?;
    let raw = reader.gather(mem, &first, Innermost::Stale)?;
    keep_common(mem, &mut reader, &mut first)?;
    let mut frames = reader.decode(raw).frames;
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

/// Keeps of a chain what is the same in several looks.
fn keep_common<M: TargetMemory>(
    mem: &M,
    reader: &mut Reader<'_>,
    first: &mut Walk,
) -> Result<(), StackError> {
    for _ in 0..OUTER_LOOKS {
        match walk_whole(mem, reader)? {
            Some(again) => first.keep_common(&again),
            None => first.steps.clear(),
        }
    }
    Ok(())
}

/// A chain that goes out to what PHP starts with, or to the limit; `None` if there
/// was none in several walks.
fn walk_whole<M: TargetMemory>(mem: &M, reader: &mut Reader<'_>) -> Result<Option<Walk>, StackError> {
    for _ in 0..OUTER_TRIES {
        let walk = reader.walk_all(mem)?;
        if walk.is_whole() {
            return Ok(Some(walk));
        }
    }
    Ok(None)
}

fn read_once<M: TargetMemory>(mem: &M, reader: &mut Reader<'_>) -> Result<Result<Stack, Defect>, StackError> {
    let walk = reader.walk(mem)?;
    if let Some(defect) = walk.defect {
        return Ok(Err(defect));
    }
    // Most torn reads are seen here, before the dearer part of the read.
    if !reader.is_unchanged(mem, &walk)? {
        return Ok(Err(Defect::Changed));
    }
    let raw = reader.gather(mem, &walk, Innermost::Stale)?;
    if let Some(defect) = raw.defect() {
        return Ok(Err(defect));
    }
    // At once after the last read: the longer it takes, the more good reads are refused.
    if !reader.is_unchanged(mem, &walk)? {
        return Ok(Err(Defect::Changed));
    }
    let decoded = reader.decode(raw);
    if let Some(defect) = decoded.broken.or(decoded.suspicious) {
        return Ok(Err(defect));
    }
    Ok(Ok(decoded.into_stack(walk.cut)))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
