//! From the bytes that `super::gather` read to frames. Reads nothing of the target but
//! arguments.

use glasspool_abi::zend::PhpBuild;

use super::args::{self, Arguments, Call};
use super::frames::{Defect, Frame, How, Kind, Partial, Stack, StackError};
use super::function::{Function, INTERNAL};
use super::gather::{Batches, Code, Gathered, Running};
use super::offsets::{Offsets, u32_at};
use super::text::{NAME_CAP, PATH_CAP, zend_string};
use super::walk::{IS_OBJECT, TYPE_MASK, Walk};
use crate::memory::{Batch, Slice, TargetAddr, TargetMemory};

/// Shown for a name that could not be read, as php-fpm does.
const UNREADABLE: &str = "???";

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

/// The texts of a function.
#[derive(Debug, Clone, Default)]
struct Names {
    function: Option<String>,
    class: Option<String>,
    file: Option<String>,
    /// Whether one that should be there is not.
    lost: bool,
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

// === impl Gathered ===

impl Gathered {
    /// The frames. Reads nothing of the target.
    pub(super) fn finish(&self, offsets: &Offsets, batches: &Batches) -> Decoded {
        let mut suspicious = self.suspicious;
        let names: Vec<Names> = self
            .codes
            .iter()
            .map(|code| {
                code.as_ref()
                    .map_or_else(|_| Names::default(), |code| code.names(offsets, batches))
            })
            .collect();
        let mut frames = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let (Some(function), Some(names)) = (self.function(call), names.get(call.code)) else {
                continue;
            };
            let line = call.line.and_then(|line| u32_at(batches.names.get(line), 0));
            if names.lost || (call.line.is_some() && line.is_none()) {
                suspicious = suspicious.or(Some(Defect::Unreadable));
            }
            frames.push(call.frame(function, names, line));
        }
        Decoded {
            frames,
            broken: self.broken,
            suspicious,
            functions: self.calls.iter().map(|call| call.step.func).collect(),
        }
    }
}

// === impl Code ===

impl Code {
    fn names(&self, offsets: &Offsets, batches: &Batches) -> Names {
        let text = |batch: &Batch, slice: Option<Slice>, cap| zend_string(batch.get(slice?), offsets, cap);
        let function = text(&batches.names, self.name, NAME_CAP);
        let class = text(&batches.classes, self.class, NAME_CAP);
        let file = text(&batches.names, self.file, PATH_CAP);
        let lost = (self.function.name != 0 && function.is_none())
            || (self.function.scope != 0 && class.is_none())
            || (self.function.filename != 0 && file.is_none());
        Names {
            function,
            class,
            file,
            lost,
        }
    }
}

// === impl Running ===

impl Running {
    fn frame(&self, function: &Function, names: &Names, line: Option<u32>) -> Frame {
        let kind = function.kind_of_frame(self.step.prev);
        let nameless = match kind {
            Kind::Function | Kind::Internal => UNREADABLE,
            Kind::Include => "{include}",
            Kind::Main => "{main}",
            Kind::Eval => "{eval}",
            Kind::Fiber => "{fiber}",
        };
        let internal = function.kind == INTERNAL;
        Frame {
            addr: TargetAddr(self.step.addr),
            kind,
            function: names.function.clone().unwrap_or_else(|| nameless.to_owned()),
            class: names.class.clone(),
            on_object: self.step.call_info & TYPE_MASK == IS_OBJECT,
            file: names.file.clone(),
            line: (!internal).then_some(line.unwrap_or(function.line_start)),
            line_exact: self.line_exact && line.is_some(),
            internal,
            handler: (function.handler != 0).then_some(TargetAddr(function.handler)),
            arguments: None,
        }
    }
}
