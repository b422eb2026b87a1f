//! From a walked chain to frames: three batches of reads, whatever the depth.
//!
//! 1. every distinct `zend_function`;
//! 2. names, file names, the line of each position, the name pointer of each class;
//! 3. class names.

use glasspool_abi::zend::PhpBuild;

use super::args::{self, Arguments, Call};
use super::frames::{Defect, Frame, How, Kind, Partial, Stack, StackError};
use super::offsets::{Offsets, u32_at, u64_at};
use super::text::{NAME_CAP, PATH_CAP, zend_string};
use super::walk::{CALL_GENERATOR, CALL_TOP, IS_OBJECT, Step, TYPE_MASK, Walk, implausible};
use crate::memory::{Batch, Slice, TargetAddr, TargetMemory};
use crate::stop::Registers;

/// `ZEND_INTERNAL_FUNCTION`, `ZEND_USER_FUNCTION`, `ZEND_EVAL_CODE` (Zend/zend_compile.h).
const INTERNAL: u8 = 1;
const USER: u8 = 2;
const EVAL: u8 = 4;

/// Shown for a name that could not be read, as php-fpm does.
const UNREADABLE: &str = "???";

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

/// Frames, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) frames: Vec<Frame>,
    /// Why there is nothing after the last frame, though there should be.
    pub(super) broken: Option<Defect>,
    /// What a running target does not show unless the read is torn. A target that
    /// stands still may: for example a destructor that runs while an exception is
    /// pending was called from a position outside of its caller.
    pub(super) suspicious: Option<Defect>,
    /// The functions of the frames, in their order.
    functions: Vec<u64>,
}

/// The fields of a `zend_function`. Those of user code are zero in an internal one.
#[derive(Debug, Clone, Copy, Default)]
struct Function {
    kind: u8,
    name: u64,
    scope: u64,
    opcodes: u64,
    opcode_count: u32,
    filename: u64,
    line_start: u32,
    /// Of an internal one, if the layout says where.
    handler: u64,
}

/// A frame and its function, innermost first where there are many.
type Running = (Step, Function);

/// What has been asked for on behalf of one frame.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    step: Step,
    function: Function,
    name: Option<Slice>,
    file: Option<Slice>,
    class: Option<Slice>,
    line: Option<Slice>,
    line_exact: bool,
}

/// Reads functions, lines and names for `walk`.
pub(super) fn decode<M: TargetMemory>(
    mem: &M,
    offsets: &Offsets,
    walk: &Walk,
    innermost: Innermost,
) -> Result<Decoded, StackError> {
    let (functions, broken) = read_functions(mem, offsets, walk)?;
    let broken = broken.or(walk.defect);
    let mut suspicious = off_stack(walk).or_else(|| bad_end(walk, &functions));

    let mut batch = Batch::default();
    let mut wanted = Vec::with_capacity(functions.len());
    for (index, (step, function)) in functions.into_iter().enumerate() {
        // A placeholder before the first frame means that this frame has called out.
        let is_innermost = index == 0 && walk.steps.first() == Some(&step);
        let known = if is_innermost { innermost } else { Innermost::Saved };
        let (opline, saved) = match known {
            Innermost::Stale => (step.opline, false),
            Innermost::Saved => (step.opline, true),
            Innermost::Registers(registers)
                if registers.vm_frame == step.addr && function.contains(registers.vm_opline, offsets) =>
            {
                (registers.vm_opline, true)
            }
            Innermost::Registers(_) => (step.opline, false),
        };
        let user = function.kind != INTERNAL;
        let inside = function.contains(opline, offsets);
        if user && !inside && !is_innermost {
            suspicious = suspicious.or(Some(Defect::Position));
        }
        wanted.push(Wanted {
            step,
            function,
            name: want(&mut batch, function.name, 0, offsets.string_val + NAME_CAP),
            file: want(&mut batch, function.filename, 0, offsets.string_val + PATH_CAP),
            class: want(&mut batch, function.scope, offsets.class_name, 8),
            line: inside
                .then(|| want(&mut batch, opline, offsets.op_line, 4))
                .flatten(),
            line_exact: user && inside && saved,
        });
    }
    mem.read_batch(&mut batch)?;

    let mut class_names = Batch::default();
    let classes: Vec<Option<Slice>> = wanted
        .iter()
        .map(|frame| {
            let name = u64_at(batch.get(frame.class?), 0)?;
            want(&mut class_names, name, 0, offsets.string_val + NAME_CAP)
        })
        .collect();
    mem.read_batch(&mut class_names)?;

    let mut frames = Vec::with_capacity(wanted.len());
    for (frame, class) in wanted.iter().zip(classes) {
        let text = |slice: Option<Slice>, cap| zend_string(batch.get(slice?), offsets, cap);
        let name = text(frame.name, NAME_CAP);
        let file = text(frame.file, PATH_CAP);
        let class = class.and_then(|class| zend_string(class_names.get(class), offsets, NAME_CAP));
        let line = frame.line.and_then(|line| u32_at(batch.get(line), 0));
        let lost = (frame.function.name != 0 && name.is_none())
            || (frame.function.scope != 0 && class.is_none())
            || (frame.function.filename != 0 && file.is_none())
            || (frame.line.is_some() && line.is_none());
        if lost {
            suspicious = suspicious.or(Some(Defect::Unreadable));
        }
        frames.push(frame.finish(name, class, file, line));
    }
    Ok(Decoded {
        frames,
        broken,
        suspicious,
        functions: wanted.iter().map(|frame| frame.step.func).collect(),
    })
}

/// The function of every frame, up to the first that is none. Placeholders drop out.
fn read_functions<M: TargetMemory>(
    mem: &M,
    offsets: &Offsets,
    walk: &Walk,
) -> Result<(Vec<Running>, Option<Defect>), StackError> {
    let mut batch = Batch::default();
    let slices: Vec<(Step, Option<Slice>)> = walk
        .steps
        .iter()
        .filter(|step| step.func != 0)
        .map(|step| (*step, want(&mut batch, step.func, 0, offsets.function_len)))
        .collect();
    mem.read_batch(&mut batch)?;
    let mut functions = Vec::with_capacity(slices.len());
    for (step, slice) in slices {
        let Some(slice) = slice else {
            return Ok((functions, implausible(step.func)));
        };
        let function = match Function::decode(batch.get(slice), offsets) {
            None => return Ok((functions, Some(Defect::Unreadable))),
            Some(function) if !matches!(function.kind, INTERNAL | USER | EVAL) => {
                return Ok((functions, Some(Defect::FunctionType)));
            }
            Some(function) => function,
        };
        functions.push((step, function));
    }
    Ok((functions, None))
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

/// A whole chain ends in the script, or in what PHP's C code called outside of any
/// script: a shutdown function, a session or output handler. PHP 8.2 puts an empty
/// placeholder under those.
fn bad_end(walk: &Walk, functions: &[Running]) -> Option<Defect> {
    let last = walk.steps.last()?;
    if walk.cut || walk.defect.is_some() || (last.func == 0 && last.opline == 0) {
        return None;
    }
    let script = functions.last().is_some_and(|(step, function)| {
        step.addr == last.addr && function.kind != INTERNAL && function.name == 0
    });
    (!script && last.call_info & CALL_TOP == 0).then_some(Defect::End)
}

// === impl Decoded ===

impl Decoded {
    /// Adds the arguments of the calls, as far as wanted.
    pub(super) fn read_arguments<M: TargetMemory>(
        &mut self,
        mem: &M,
        build: &PhpBuild,
        walk: &Walk,
        wanted: &Arguments,
    ) -> Result<(), StackError> {
        if *wanted == Arguments::Off {
            return Ok(());
        }
        let calls = self.frames.iter().zip(&self.functions).take(args::MAX_CALLS);
        let calls = calls.map(|(frame, function)| Call {
            frame,
            function: *function,
            call_info: walk.call_info(frame.addr.0),
        });
        let arguments = args::read(mem, build, &calls.collect::<Vec<_>>(), wanted)?;
        for (frame, arguments) in self.frames.iter_mut().zip(arguments) {
            frame.arguments = arguments;
        }
        Ok(())
    }

    /// The stack of a target that stood still.
    pub(super) fn into_stack(self, cut: bool) -> Stack {
        let how = match self.broken {
            Some(defect) => How::Partial(Partial::Broken {
                frames: self.frames.len(),
                defect,
            }),
            None => How::Exact,
        };
        Stack {
            frames: self.frames,
            cut,
            how,
        }
    }
}

// === impl Function ===

impl Function {
    fn decode(bytes: &[u8], offsets: &Offsets) -> Option<Function> {
        let common = Function {
            kind: *bytes.get(offsets.function_type)?,
            name: u64_at(bytes, offsets.function_name)?,
            scope: u64_at(bytes, offsets.scope)?,
            ..Function::default()
        };
        if common.kind == INTERNAL {
            return Some(Function {
                handler: match offsets.handler {
                    Some(handler) => u64_at(bytes, handler)?,
                    None => 0,
                },
                ..common
            });
        }
        Some(Function {
            opcodes: u64_at(bytes, offsets.opcodes)?,
            opcode_count: u32_at(bytes, offsets.opcode_count)?,
            filename: u64_at(bytes, offsets.filename)?,
            line_start: u32_at(bytes, offsets.line_start)?,
            ..common
        })
    }

    /// Whether `opline` is one of this function's.
    fn contains(&self, opline: u64, offsets: &Offsets) -> bool {
        let size = offsets.op_len as u64;
        let Some(distance) = opline.checked_sub(self.opcodes) else {
            return false;
        };
        self.kind != INTERNAL
            && self.opcodes != 0
            && distance.is_multiple_of(size)
            && distance / size < u64::from(self.opcode_count)
    }
}

// === impl Wanted ===

impl Wanted {
    fn finish(
        &self,
        name: Option<String>,
        class: Option<String>,
        file: Option<String>,
        line: Option<u32>,
    ) -> Frame {
        let internal = self.function.kind == INTERNAL;
        let kind = match (self.function.name, self.function.kind) {
            (0, INTERNAL) => Kind::Fiber,
            (_, INTERNAL) => Kind::Internal,
            (0, EVAL) => Kind::Eval,
            (0, _) if self.step.prev == 0 => Kind::Main,
            (0, _) => Kind::Include,
            (_, _) => Kind::Function,
        };
        let nameless = match kind {
            Kind::Function | Kind::Internal => UNREADABLE,
            Kind::Include => "{include}",
            Kind::Main => "{main}",
            Kind::Eval => "{eval}",
            Kind::Fiber => "{fiber}",
        };
        Frame {
            addr: TargetAddr(self.step.addr),
            kind,
            function: name.unwrap_or_else(|| nameless.to_owned()),
            class,
            on_object: self.step.call_info & TYPE_MASK == IS_OBJECT,
            file,
            line: (!internal).then_some(line.unwrap_or(self.function.line_start)),
            line_exact: self.line_exact && line.is_some(),
            internal,
            handler: (self.function.handler != 0).then_some(TargetAddr(self.function.handler)),
            arguments: None,
        }
    }
}
