//! The chain of `zend_execute_data` (Zend/zend_compile.h), innermost first: one read
//! for the executor globals, one for the used part of the VM stack, and the walk
//! itself then needs no further read, except for frames that live elsewhere
//! (generators, fibers, older pages of a deep stack).

use std::collections::{HashMap, HashSet};

use glasspool_abi::zend::PhpBuild;

use super::delegation::{Link, follow_delegation};
use super::frames::{Defect, StackError};
use super::offsets::{Offsets, u32_at, u64_at};
use super::regions::{REGION, Regions};
use crate::memory::{ReadError, TargetAddr, TargetMemory};

/// Read around a frame that is not in a region yet: an older page has many more.
const WINDOW: u64 = 16 * 1024;
/// After so many windows frames are read one by one, so that a chain strewn over the
/// heap cannot multiply what is read.
const MAX_WINDOWS: usize = 8;
/// Most stacks have fewer.
const USUAL_FRAMES: usize = 64;
/// The executor globals of interest have 40 bytes.
const FEW: usize = 64;

/// Programs live below this: half of x86_64's canonical addresses, or aarch64's 48 bits.
const ADDRESS_END: u64 = if cfg!(target_arch = "aarch64") {
    1 << 48
} else {
    1 << 47
};

/// The part of `This.u1.type_info` that says what `This` is (Zend/zend_types.h).
pub(super) const TYPE_MASK: u32 = 0xff;
/// `IS_OBJECT`: the function was called on an object.
pub(super) const IS_OBJECT: u32 = 8;
/// `ZEND_CALL_TOP`: PHP's own C code called this frame (Zend/zend_compile.h).
pub(super) const CALL_TOP: u32 = 1 << 17;
/// `ZEND_CALL_GENERATOR`: the frame belongs to a generator and lives on the heap.
pub(super) const CALL_GENERATOR: u32 = 1 << 24;

/// The block of `zend_executor_globals` that says where the stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Globals {
    pub(super) current: u64,
    pub(super) vm_stack: u64,
    pub(super) vm_stack_top: u64,
}

/// One `zend_execute_data`, what matters of it. `func` is null in a placeholder: of the
/// generators that delegate by `yield from`, which follow it here, or the frame that PHP
/// up to 8.2 puts under a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) addr: u64,
    pub(super) opline: u64,
    pub(super) func: u64,
    pub(super) this: u64,
    pub(super) call_info: u32,
    /// Of a delegating generator's frame it says nothing.
    pub(super) prev: u64,
}

/// The chain as it was read.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) globals: Globals,
    pub(super) steps: Vec<Step>,
    /// The generators that delegate, for the frames among `steps` that no `prev` leads to.
    links: Vec<Link>,
    /// Whether frames further out were left out for the limit.
    pub(super) cut: bool,
    /// What ended the walk before its end.
    pub(super) defect: Option<Defect>,
}

/// Reads the chain, at most `max_frames` frames of it.
pub(super) fn walk<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    offsets: &Offsets,
    max_frames: usize,
    regions: &mut Regions,
) -> Result<Walk, StackError> {
    let globals = read_globals(mem, build, offsets)?;
    regions.clear();
    if globals.current != 0 {
        read_vm_stack(mem, &globals, regions)?;
    }
    walk_chain(mem, offsets, globals, globals.current, regions, max_frames)
}

/// The same from a frame that is not the current one, as a suspended fiber's.
pub(super) fn walk_from<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    offsets: &Offsets,
    innermost: u64,
    max_frames: usize,
) -> Result<Walk, StackError> {
    let globals = read_globals(mem, build, offsets)?;
    walk_chain(
        mem,
        offsets,
        globals,
        innermost,
        &mut Regions::default(),
        max_frames,
    )
}

fn walk_chain<M: TargetMemory>(
    mem: &M,
    offsets: &Offsets,
    globals: Globals,
    innermost: u64,
    regions: &mut Regions,
    max_frames: usize,
) -> Result<Walk, StackError> {
    let mut walk = Walk {
        globals,
        steps: Vec::with_capacity(USUAL_FRAMES),
        links: Vec::new(),
        cut: false,
        defect: None,
    };
    let mut frames = 0;
    let mut outer = innermost;
    // Frames of generators that delegate to the last one, the next one last.
    let mut delegating = Vec::new();
    // A placeholder stands between two frames at most; twice the frames is never
    // reached by a sound chain.
    let max_steps = max_frames.saturating_mul(2).saturating_add(16);
    loop {
        let delegated: Option<u64> = delegating.pop();
        let addr = delegated.unwrap_or(outer);
        if addr == 0 {
            break;
        }
        if frames == max_frames || walk.steps.len() == max_steps {
            walk.cut = true;
            break;
        }
        if let Some(defect) = implausible(addr) {
            walk.defect = Some(defect);
            break;
        }
        let step = match read_step(mem, offsets, regions, addr) {
            Ok(step) => step,
            Err(ReadError::Fault { .. }) => {
                walk.defect = Some(Defect::Unreadable);
                break;
            }
            Err(whole) => return Err(whole.into()),
        };
        let inner = walk.steps.last().map(|inner| inner.addr);
        frames += usize::from(step.func != 0);
        walk.steps.push(step);
        if delegated.is_some() {
            continue;
        }
        outer = step.prev;
        if let (0, Some(generator), Some(inner)) = (step.func, &offsets.generator, inner) {
            match follow_delegation(mem, generator, &step, inner, max_steps, &mut walk.links)? {
                Ok(frames) => delegating = frames,
                Err(defect) => {
                    walk.defect = Some(defect);
                    break;
                }
            }
        }
    }
    walk.end_at_loop();
    Ok(walk)
}

/// Whether the target still has the very chain that was read: globals, and pointer
/// for pointer every frame. PHP has no generation counter; a chain that changed and
/// changed back is the same stack, so equality is enough.
pub(super) fn unchanged<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    offsets: &Offsets,
    walk: &Walk,
    regions: &mut Regions,
) -> Result<bool, StackError> {
    if read_globals(mem, build, offsets)? != walk.globals {
        return Ok(false);
    }
    regions.clear();
    if walk.globals.current != 0 {
        read_vm_stack(mem, &walk.globals, regions)?;
    }
    for step in &walk.steps {
        match read_step(mem, offsets, regions, step.addr) {
            Ok(now) if now == *step => {}
            Ok(_) | Err(ReadError::Fault { .. }) => return Ok(false),
            Err(whole) => return Err(whole.into()),
        }
    }
    for link in &walk.links {
        let Some(generator) = &offsets.generator else {
            break;
        };
        match Link::read(mem, generator, link.generator) {
            Ok(now) if now == *link => {}
            Ok(_) | Err(ReadError::Fault { .. }) => return Ok(false),
            Err(whole) => return Err(whole.into()),
        }
    }
    Ok(read_globals(mem, build, offsets)? == walk.globals)
}

/// Whether a pointer cannot be a PHP structure's.
pub(super) fn implausible(addr: u64) -> Option<Defect> {
    if !addr.is_multiple_of(8) {
        Some(Defect::Misaligned)
    } else if addr >= ADDRESS_END {
        Some(Defect::OutOfRange)
    } else {
        None
    }
}

fn read_globals<M: TargetMemory>(
    mem: &M,
    build: &PhpBuild,
    offsets: &Offsets,
) -> Result<Globals, StackError> {
    let addr = TargetAddr(build.executor_globals);
    let unreadable = StackError::Globals { addr };
    let block = addr.plus(offsets.globals_start).ok_or(unreadable.clone())?;
    let (mut few, mut many) = ([0; FEW], Vec::new());
    let bytes = match few.get_mut(..offsets.globals_len) {
        Some(bytes) => bytes,
        None => {
            many.resize(offsets.globals_len, 0);
            many.as_mut_slice()
        }
    };
    match mem.read(block, bytes) {
        Ok(()) => {}
        Err(ReadError::Fault { .. }) => return Err(unreadable),
        Err(whole) => return Err(whole.into()),
    }
    let field = |at| u64_at(bytes, at).ok_or(unreadable.clone());
    Ok(Globals {
        current: field(offsets.current)?,
        vm_stack: field(offsets.vm_stack)?,
        vm_stack_top: field(offsets.vm_stack_top)?,
    })
}

/// The used end of the current page; nothing if the pointers make no sense, which
/// costs the reads of single frames and is judged elsewhere.
fn read_vm_stack<M: TargetMemory>(
    mem: &M,
    globals: &Globals,
    regions: &mut Regions,
) -> Result<(), StackError> {
    let top = globals.vm_stack_top;
    let plausible = implausible(top).is_none() && globals.vm_stack < top;
    if plausible {
        let start = globals.vm_stack.max(top.saturating_sub(REGION));
        regions.read(mem, start, top)?;
    }
    Ok(())
}

fn read_step<M: TargetMemory>(
    mem: &M,
    offsets: &Offsets,
    regions: &mut Regions,
    addr: u64,
) -> Result<Step, ReadError> {
    let len = offsets.frame_len;
    let fault = ReadError::Fault {
        addr: TargetAddr(addr),
    };
    if let Some(bytes) = regions.get(addr, len) {
        return Step::decode(addr, bytes, offsets).ok_or(fault);
    }
    if regions.len() < MAX_WINDOWS {
        // Callers lie at lower addresses of the same page, so the window ends with
        // this frame. Below a mapping's start nothing is readable: then just the frame.
        let end = addr.saturating_add(len as u64);
        regions.read(mem, end.saturating_sub(WINDOW), end)?;
        if let Some(bytes) = regions.get(addr, len) {
            return Step::decode(addr, bytes, offsets).ok_or(fault);
        }
        regions.forget_last();
    }
    let mut bytes = vec![0; len];
    mem.read(TargetAddr(addr), &mut bytes)?;
    Step::decode(addr, &bytes, offsets).ok_or(fault)
}

// === impl Walk ===

impl Walk {
    /// Whether the chain goes out to a frame that PHP's C code has started, or to the
    /// limit. A frame that is being prepared has a null caller, too, but not the flag.
    pub(super) fn is_whole(&self) -> bool {
        let started = |last: &Step| last.func == 0 || last.call_info & CALL_TOP != 0;
        self.defect.is_none() && (self.cut || self.steps.last().is_some_and(started))
    }

    /// Ends the chain before the first frame that is in it already. Looked for at the end:
    /// a chain without a loop, which is nearly every one, ascends or descends mostly, and
    /// such addresses are sorted at once.
    fn end_at_loop(&mut self) {
        let mut addrs: Vec<u64> = self.steps.iter().map(|step| step.addr).collect();
        addrs.sort_unstable();
        if addrs.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut seen = HashSet::new();
        let again = self.steps.iter().position(|step| !seen.insert(step.addr));
        self.steps.truncate(again.unwrap_or(self.steps.len()));
        self.cut = false;
        self.defect = Some(Defect::Loop);
    }

    /// The call flags of the frame at `addr`.
    pub(super) fn call_info(&self, addr: u64) -> u32 {
        let step = self.steps.iter().find(|step| step.addr == addr);
        step.map_or(0, |step| step.call_info)
    }

    /// Drops the inner frames up to the last one that `other` does not have just so.
    pub(super) fn keep_common(&mut self, other: &Walk) {
        let theirs: HashMap<u64, &Step> = other.steps.iter().map(|step| (step.addr, step)).collect();
        let common = self
            .steps
            .iter()
            .rev()
            .take_while(|step| theirs.get(&step.addr) == Some(step))
            .count();
        self.steps.drain(..self.steps.len() - common);
    }
}

// === impl Step ===

impl Step {
    fn decode(addr: u64, bytes: &[u8], offsets: &Offsets) -> Option<Step> {
        Some(Step {
            addr,
            opline: u64_at(bytes, offsets.opline)?,
            func: u64_at(bytes, offsets.func)?,
            this: u64_at(bytes, offsets.this)?,
            call_info: u32_at(bytes, offsets.call_info)?,
            prev: u64_at(bytes, offsets.prev)?,
        })
    }
}
