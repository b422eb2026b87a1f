//! Reading a target that is held, in three parts: what can be done before it is, what
//! must be done meanwhile, and what can be done after its release.
//!
//! Everything that is told of the stack is *read* while the target is held, names too:
//! a function may be freed, and its memory used for another, as soon as the target runs.
//! But the read is rehearsed before, and texts are made after.

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;

use super::frames::{Stack, StackError, Want};
use super::gather::Innermost;
use super::reader::{Raw, Reader};
use crate::memory::{Rehearsed, TargetMemory};
use crate::stop::Registers;

/// A read that is about to be made.
#[derive(Debug)]
pub struct HeldReader<'a, M> {
    reader: Reader<'a>,
    memory: Rehearsed<'a, M>,
}

/// A read that has been made.
#[derive(Debug)]
pub struct HeldStack<'a, M> {
    reader: Reader<'a>,
    memory: Rehearsed<'a, M>,
    raw: Raw,
    cut: bool,
}

impl<'a, M: TargetMemory> HeldReader<'a, M> {
    /// Rehearses: reads the target as it is, which may be any mixture, to know what will
    /// have to be read. Costs what a read costs, the target nothing.
    pub fn new(
        mem: &'a M,
        build: &'a PhpBuild,
        want: impl Into<Want>,
    ) -> Result<HeldReader<'a, M>, StackError> {
        let mut reader = Reader::with_room(build, want.into())?;
        let mut memory = Rehearsed::new(mem);
        let walk = reader.walk(&memory)?;
        reader.gather(&memory, &walk, Innermost::Stale)?;
        memory.seal();
        Ok(HeldReader { reader, memory })
    }

    /// Reads the process `pid`, which this thread holds. One system call if it stands where
    /// it was at the rehearsal, about 8 us; otherwise up to some more. `registers` are those
    /// of PHP's VM, if it keeps its position in them.
    pub fn read(mut self, pid: Pid, registers: Option<&Registers>) -> Result<HeldStack<'a, M>, StackError> {
        let innermost = registers.map_or(Innermost::Stale, |registers| Innermost::Registers(*registers));
        self.memory.repeat(pid);
        let walk = self.reader.walk(&self.memory)?;
        let raw = self.reader.gather(&self.memory, &walk, innermost)?;
        Ok(HeldStack {
            raw,
            cut: walk.cut,
            reader: self.reader,
            memory: self.memory,
        })
    }
}

impl<M: TargetMemory> HeldStack<'_, M> {
    /// The frames without arguments, for what else is to be read while the target is held.
    pub(crate) fn frames(&self) -> Stack {
        self.reader.decode_frames(&self.raw).into_stack(self.cut)
    }

    /// The frames. Fails if the target has ended or become another program, perhaps
    /// before it was read.
    pub fn into_stack(self) -> Result<Stack, StackError> {
        self.memory.proof()?;
        Ok(self.reader.decode(self.raw).into_stack(self.cut))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::testing::{Fake, MAIN, build, user};
    use super::*;
    use crate::memory::{Image, ReadError, TargetAddr};

    /// A target that is another one, or dead, once it is told so.
    struct Switch {
        images: [Image; 2],
        now: Cell<Option<usize>>,
    }

    impl TargetMemory for Switch {
        fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
            let now = self.now.get().ok_or(ReadError::Gone)?;
            self.images[now].read_prefix(addr, buf)
        }
    }

    fn chain(calls: &[&str]) -> Image {
        let mut fake = Fake::new();
        let main = fake.function(MAIN, 10);
        fake.call(main);
        for name in calls {
            let function = fake.function(user(name), 20);
            fake.call(function);
        }
        fake.finish()
    }

    fn names(stack: &Stack) -> Vec<&str> {
        stack.frames.iter().map(|frame| frame.function.as_str()).collect()
    }

    /// No process has this number, so that nothing is known in advance.
    const NOBODY: Pid = Pid(i32::MAX);

    #[test]
    fn what_changed_since_the_rehearsal_is_seen_as_it_is_when_held() {
        let target = Switch {
            images: [chain(&["a", "b"]), chain(&["x", "y", "z"])],
            now: Cell::new(Some(0)),
        };
        let build = build();
        let reader = HeldReader::new(&target, &build, 64).unwrap();
        target.now.set(Some(1));
        let held = reader.read(NOBODY, None).unwrap();
        assert_eq!(names(&held.frames()), ["z", "y", "x", "{main}"]);
        // It runs on, and is another one before the texts are made.
        target.now.set(Some(0));
        assert_eq!(names(&held.into_stack().unwrap()), ["z", "y", "x", "{main}"]);
    }

    #[test]
    fn a_target_that_has_ended_meanwhile_is_not_believed() {
        let target = Switch {
            images: [chain(&["a"]), Image::new()],
            now: Cell::new(Some(0)),
        };
        let build = build();
        let reader = HeldReader::new(&target, &build, 64).unwrap();
        let held = reader.read(NOBODY, None).unwrap();
        target.now.set(None);
        assert_eq!(held.into_stack(), Err(StackError::Memory(ReadError::Gone)));
    }
}
