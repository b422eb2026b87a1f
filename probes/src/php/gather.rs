//! From a walked chain to the bytes of its functions, lines and names: three batches of
//! reads, whatever the depth.
//!
//! 1. every distinct `zend_function`;
//! 2. names, file names, the line of each position, the name pointer of each class;
//! 3. class names.
//!
//! No text is made here: a target that is held waits meanwhile, and one that runs must be
//! looked at again as soon as possible. `super::decode` does it afterwards.

use super::frames::{Defect, StackError};
use super::function::{Function, INTERNAL};
use super::offsets::{Offsets, u64_at};
use super::text::{NAME_CAP, PATH_CAP};
use super::walk::{CALL_GENERATOR, CALL_TOP, Step, Walk, implausible};
use crate::memory::{Batch, Slice, TargetAddr, TargetMemory};
use crate::stop::Registers;

/// What is known about the position in the innermost frame. PHP saves it (`EX(opline)`)
/// before it calls anything, but not at every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Innermost {
    /// Nothing: the target was executing when it was read.
    Stale,
    /// It is saved: the target waits in something that PHP code called.
    Saved,
    /// It is in the registers of the held target, if PHP's VM runs right now: the
    /// hybrid VM keeps frame and position in two of them (`ZEND_VM_FP_GLOBAL_REG`,
    /// `ZEND_VM_IP_GLOBAL_REG` in Zend/zend_execute.c). Whether it does is seen from
    /// the values: they are believed only if they are the innermost frame and one of
    /// its function's positions.
    Registers(Registers),
}

/// What was read, whose bytes are in [`Batches`].
#[derive(Debug)]
pub(super) struct Gathered {
    /// Innermost first; without placeholders.
    pub(super) calls: Vec<Running>,
    /// Each function once, by address.
    pub(super) codes: Vec<Result<Code, Defect>>,
    /// As in [`super::decode::Decoded`].
    pub(super) broken: Option<Defect>,
    /// As in [`super::decode::Decoded`], as far as it is known without a look at the strings.
    pub(super) suspicious: Option<Defect>,
}

/// The bytes; kept from one read of a target to the next.
#[derive(Debug, Default)]
pub(super) struct Batches {
    functions: Batch,
    pub(super) names: Batch,
    pub(super) classes: Batch,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) step: Step,
    /// Place of its function among the codes.
    pub(super) code: usize,
    pub(super) line: Option<Slice>,
    pub(super) line_exact: bool,
}

/// A function, and what has been asked for on its behalf once a call needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code {
    pub(super) function: Function,
    asked: bool,
    pub(super) name: Option<Slice>,
    pub(super) file: Option<Slice>,
    /// First the pointer to the name of its class, then the name.
    pub(super) class: Option<Slice>,
}

/// Reads functions, lines and names for `walk`.
pub(super) fn gather<M: TargetMemory>(
    mem: &M,
    offsets: &Offsets,
    walk: &Walk,
    innermost: Innermost,
    batches: &mut Batches,
) -> Result<Gathered, StackError> {
    let addrs = distinct_functions(walk);
    let mut gathered = Gathered {
        calls: Vec::with_capacity(walk.steps.len()),
        codes: read_functions(mem, offsets, &addrs, &mut batches.functions)?,
        broken: walk.defect,
        suspicious: None,
    };
    let names = &mut batches.names;
    names.clear();
    let mut position = None;
    for step in walk.steps.iter().filter(|step| step.func != 0) {
        let code = addrs.partition_point(|addr| *addr < step.func);
        let found = match gathered.codes.get_mut(code) {
            Some(Ok(found)) => found,
            Some(Err(defect)) => {
                gathered.broken = Some(*defect);
                break;
            }
            None => break,
        };
        found.ask(names, offsets);
        // A placeholder before the first frame means that this frame has called out.
        let is_innermost = gathered.calls.is_empty() && walk.steps.first() == Some(step);
        let (opline, saved) = match innermost {
            _ if !is_innermost => (step.opline, true),
            Innermost::Saved => (step.opline, true),
            Innermost::Registers(registers)
                if registers.vm_frame == step.addr
                    && found.function.contains(registers.vm_opline, offsets) =>
            {
                (registers.vm_opline, true)
            }
            Innermost::Stale | Innermost::Registers(_) => (step.opline, false),
        };
        let user = found.function.kind != INTERNAL;
        let inside = found.function.contains(opline, offsets);
        if user && !inside && !is_innermost {
            gathered.suspicious = gathered.suspicious.or(Some(Defect::Position));
        }
        // The calls of a recursion are all at one position.
        if inside && position.is_none_or(|(known, _)| known != opline) {
            position = want(names, opline, offsets.op_line, 4).map(|slice| (opline, slice));
        }
        gathered.calls.push(Running {
            step: *step,
            code,
            line: position.filter(|_| inside).map(|(_, slice)| slice),
            line_exact: user && inside && saved,
        });
    }
    let bad = off_stack(walk).or_else(|| gathered.bad_end(walk));
    gathered.suspicious = bad.or(gathered.suspicious);
    mem.read_batch(names)?;

    batches.classes.clear();
    for code in gathered.codes.iter_mut().flatten() {
        let name = code.class.and_then(|class| u64_at(names.get(class), 0));
        code.class = name.and_then(|name| want(&mut batches.classes, name, 0, offsets.string_val + NAME_CAP));
    }
    mem.read_batch(&mut batches.classes)?;
    Ok(gathered)
}

/// The functions of all calls, each once, in the order of their addresses.
fn distinct_functions(walk: &Walk) -> Vec<u64> {
    let calls = walk.steps.iter().filter(|step| step.func != 0);
    let mut addrs: Vec<u64> = calls.map(|step| step.func).collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// The functions at these addresses, or what is wrong with them.
fn read_functions<M: TargetMemory>(
    mem: &M,
    offsets: &Offsets,
    addrs: &[u64],
    batch: &mut Batch,
) -> Result<Vec<Result<Code, Defect>>, StackError> {
    batch.clear();
    let slices: Vec<Option<Slice>> = addrs
        .iter()
        .map(|addr| want(batch, *addr, 0, offsets.function_len))
        .collect();
    mem.read_batch(batch)?;
    let functions = addrs.iter().zip(slices).map(|(addr, slice)| {
        let slice = slice.ok_or(implausible(*addr).unwrap_or(Defect::Unreadable))?;
        Ok(Code::of(Function::decode(batch.get(slice), offsets)?))
    });
    Ok(functions.collect())
}

/// Asks for `len` bytes of the struct at `base`, from `skip` on; not for null, and not
/// for what cannot be a pointer.
fn want(batch: &mut Batch, base: u64, skip: usize, len: usize) -> Option<Slice> {
    if base == 0 || implausible(base).is_some() {
        return None;
    }
    Some(batch.want(TargetAddr(base).plus(skip as u64)?, len))
}

/// The current frame is on the current page of the VM stack, but for a generator, and
/// for the placeholder that PHP 8.2 puts on the C stack. (It also is on the page
/// before while the first call on a new page is prepared; such a read is refused and
/// made again.)
fn off_stack(walk: &Walk) -> Option<Defect> {
    let first = walk.steps.first()?;
    let globals = walk.globals;
    let on_stack = (globals.vm_stack..globals.vm_stack_top).contains(&walk.globals.current);
    let elsewhere = first.func == 0 || first.call_info & CALL_GENERATOR != 0;
    (!on_stack && !elsewhere).then_some(Defect::OffStack)
}

// === impl Gathered ===

impl Gathered {
    /// A whole chain ends in the script, or in what PHP's C code called outside of any
    /// script: a shutdown function, a session or output handler. PHP 8.2 puts an empty
    /// placeholder under those.
    fn bad_end(&self, walk: &Walk) -> Option<Defect> {
        let last = walk.steps.last()?;
        if walk.cut || walk.defect.is_some() || (last.func == 0 && last.opline == 0) {
            return None;
        }
        let outermost = self.calls.last().filter(|call| call.step.addr == last.addr);
        let function = outermost.and_then(|call| self.function(call));
        let script = function.is_some_and(|function| function.kind != INTERNAL && function.name == 0);
        (!script && last.call_info & CALL_TOP == 0).then_some(Defect::End)
    }

    pub(super) fn function(&self, call: &Running) -> Option<&Function> {
        Some(&self.codes.get(call.code)?.as_ref().ok()?.function)
    }
}

// === impl Batches ===

impl Batches {
    /// With room for what stacks have usually, touched, so that reading them costs no page
    /// fault.
    pub(super) fn with_room() -> Batches {
        let mut batches = Batches::default();
        batches.functions.reserve(64, 16 * 1024);
        batches.names.reserve(256, 64 * 1024);
        batches.classes.reserve(64, 16 * 1024);
        batches
    }
}

// === impl Code ===

impl Code {
    fn of(function: Function) -> Code {
        Code {
            function,
            asked: false,
            name: None,
            file: None,
            class: None,
        }
    }

    /// Asks for its names, once.
    fn ask(&mut self, batch: &mut Batch, offsets: &Offsets) {
        if self.asked {
            return;
        }
        self.asked = true;
        let function = &self.function;
        self.name = want(batch, function.name, 0, offsets.string_val + NAME_CAP);
        self.file = want(batch, function.filename, 0, offsets.string_val + PATH_CAP);
        self.class = want(batch, function.scope, offsets.class_name, 8);
    }
}
