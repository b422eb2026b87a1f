//! The generators that delegate by `yield from`, which no `prev_execute_data` leads to.

use super::frames::{Defect, StackError};
use super::offsets::{Generator, u64_at};
use super::walk::{IS_OBJECT, Step, TYPE_MASK, implausible};
use crate::memory::{ReadError, TargetAddr, TargetMemory};

/// One generator of a delegation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) generator: u64,
    frame: u64,
    /// The generator that it delegates to; null at the end.
    parent: u64,
}

/// The frames of the generators that delegate to the one of the frame `inner`, the
/// outermost first. None if `placeholder` is not one of `yield from`.
///
/// PHP resumes the generator at the end of such a chain directly. It makes it look
/// called by a placeholder in the generator that the program resumed; the generators
/// between are found by following what each delegates to, as PHP's own backtraces do
/// (`zend_generator_check_placeholder_frame` in Zend/zend_generators.c).
pub(super) fn follow_delegation<M: TargetMemory>(
    mem: &M,
    offsets: &Generator,
    placeholder: &Step,
    inner: u64,
    max: usize,
    links: &mut Vec<Link>,
) -> Result<Result<Vec<u64>, Defect>, StackError> {
    let mut frames = Vec::new();
    let mut generator = placeholder.this;
    let inside = generator.checked_add(offsets.placeholder) == Some(placeholder.addr);
    if placeholder.call_info & TYPE_MASK != IS_OBJECT || !inside {
        return Ok(Ok(frames));
    }
    while frames.len() < max {
        if let Some(defect) = implausible(generator) {
            return Ok(Err(defect));
        }
        let link = match Link::read(mem, offsets, generator) {
            Ok(link) => link,
            Err(ReadError::Fault { .. }) => return Ok(Err(Defect::Unreadable)),
            Err(whole) => return Err(whole.into()),
        };
        links.push(link);
        if link.frame == inner || link.parent == 0 {
            return Ok(Ok(frames));
        }
        frames.push(link.frame);
        generator = link.parent;
    }
    Ok(Err(Defect::Loop))
}

// === impl Link ===

impl Link {
    pub(super) fn read<M: TargetMemory>(
        mem: &M,
        offsets: &Generator,
        generator: u64,
    ) -> Result<Link, ReadError> {
        let addr = TargetAddr(generator);
        let fault = ReadError::Fault { addr };
        let mut bytes = vec![0; offsets.len];
        mem.read(addr.plus(offsets.start).ok_or(fault.clone())?, &mut bytes)?;
        Ok(Link {
            generator,
            frame: u64_at(&bytes, offsets.frame).ok_or(fault.clone())?,
            parent: u64_at(&bytes, offsets.parent).ok_or(fault)?,
        })
    }
}
