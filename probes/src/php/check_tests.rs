use std::cell::Cell;

use super::super::testing::{Fake, MAIN, build, builtin, user};
use super::super::walk::{CALL_GENERATOR, CALL_TOP};
use super::*;
use crate::memory::{Image, ReadError, TargetAddr};

/// A target that moves on: the stack is another one from the `turn`th read on.
struct Moving {
    before: Image,
    after: Image,
    turn: usize,
    reads: Cell<usize>,
}

impl TargetMemory for Moving {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        let reads = self.reads.replace(self.reads.get() + 1);
        if reads < self.turn {
            &self.before
        } else {
            &self.after
        }
        .read_prefix(addr, buf)
    }
}

/// The target of the tests: main calls `calls`, one inside the other.
fn chain(calls: &[&str]) -> Fake {
    let mut fake = Fake::new();
    let main = fake.function(MAIN, 10);
    fake.call(main);
    for name in calls {
        let function = fake.function(user(name), 20);
        fake.call(function);
    }
    fake
}

fn names(stack: &Stack) -> Vec<&str> {
    stack.frames.iter().map(|frame| frame.function.as_str()).collect()
}

fn refused(image: &Image) -> Option<Defect> {
    match read_checked(image, &build(), 64, 3).unwrap() {
        Checked::GaveUp { tries: 3, defect } => Some(defect),
        Checked::GaveUp { tries, .. } => panic!("{tries} tries"),
        Checked::Stack(stack) => {
            assert_eq!(stack.how, How::Checked { tries: 1 });
            None
        }
    }
}

#[test]
fn a_stack_that_changes_during_the_read_is_never_a_mixture() {
    let first = chain(&["a", "b", "c"]);
    let mut second = first.clone();
    // Both have their frames at the same addresses, as two calls after one another do.
    while second.get(second.current + 48) != 0 {
        second.pop();
    }
    for name in ["x", "y", "z"] {
        let function = second.function(user(name), 20);
        second.call(function);
    }
    let (before, after) = (first.finish(), second.finish());
    let mut caught = 0;
    for turn in 0..100 {
        let mem = Moving {
            before: before.clone(),
            after: after.clone(),
            turn,
            reads: Cell::new(0),
        };
        match read_checked(&mem, &build(), 64, 1).unwrap() {
            Checked::GaveUp { .. } => caught += 1,
            Checked::Stack(stack) => {
                let whole = [["c", "b", "a", "{main}"], ["z", "y", "x", "{main}"]];
                assert!(
                    whole.iter().any(|whole| names(&stack) == whole),
                    "{:?}",
                    names(&stack)
                );
            }
        }
    }
    assert!(caught > 10, "only {caught} of 100 turns were inside of the read");
}

#[test]
fn a_call_that_returns_during_the_read_is_noticed() {
    let deep = chain(&["a", "b", "c"]);
    let mut shallow = deep.clone();
    shallow.pop();
    let (before, after) = (deep.finish(), shallow.finish());
    let mut caught = 0;
    for turn in 0..100 {
        let mem = Moving {
            before: before.clone(),
            after: after.clone(),
            turn,
            reads: Cell::new(0),
        };
        match read_checked(&mem, &build(), 64, 1).unwrap() {
            Checked::GaveUp { defect, .. } => {
                assert_eq!(defect, Defect::Changed);
                caught += 1;
            }
            Checked::Stack(stack) if names(&stack).len() == 4 => {
                assert_eq!(names(&stack), ["c", "b", "a", "{main}"]);
            }
            Checked::Stack(stack) => assert_eq!(names(&stack), ["b", "a", "{main}"]),
        }
        let mem = Moving {
            before: before.clone(),
            after: after.clone(),
            turn,
            reads: Cell::new(0),
        };
        let Checked::Stack(stack) = read_checked(&mem, &build(), 64, 2).unwrap() else {
            panic!("the second try is of a target that stands still")
        };
        assert!(matches!(stack.how, How::Checked { tries: 1 | 2 }));
    }
    assert!(caught > 10, "only {caught} of 100 turns were inside of the read");
}

#[test]
fn a_caller_outside_of_its_function_is_refused() {
    let mut fake = chain(&["a", "b"]);
    assert_eq!(refused(&fake.clone().finish()), None);
    let caller = fake.get(fake.current + 48);
    let opline = fake.get(caller);
    fake.put(caller, opline + 8);
    assert_eq!(
        refused(&fake.clone().finish()),
        Some(Defect::Position),
        "not on a step"
    );
    fake.put(caller, opline + 320);
    assert_eq!(
        refused(&fake.clone().finish()),
        Some(Defect::Position),
        "behind the last"
    );
    let innermost = fake.current;
    fake.put(caller, opline);
    fake.put(innermost, 8);
    assert_eq!(refused(&fake.finish()), None, "the innermost one may be stale");
}

#[test]
fn the_current_frame_must_be_on_the_stack_or_a_generators() {
    let mut fake = chain(&["a"]);
    let rows = fake.function(user("rows"), 30);
    let frame = fake.alloc(80);
    fake.call_at(frame, rows);
    assert_eq!(refused(&fake.clone().finish()), Some(Defect::OffStack));
    fake.set_call_info(frame, CALL_GENERATOR);
    assert_eq!(refused(&fake.finish()), None);
}

#[test]
fn a_chain_that_ends_in_the_middle_is_refused() {
    let mut fake = Fake::new();
    let handler = fake.function(user("on_shutdown"), 30);
    let frame = fake.call(handler);
    assert_eq!(refused(&fake.clone().finish()), None, "called by PHP itself");
    fake.set_call_info(frame, 0);
    assert_eq!(refused(&fake.finish()), Some(Defect::End));

    let mut fake = Fake::new();
    let placeholder = fake.alloc(80);
    fake.call_at(placeholder, 0);
    let handler = fake.function(builtin("session_write_close"), 0);
    let frame = fake.call(handler);
    fake.set_call_info(frame, CALL_TOP);
    assert_eq!(
        refused(&fake.finish()),
        None,
        "with the placeholder of PHP 8.2 under it"
    );
}

#[test]
fn a_cut_chain_need_not_end() {
    let image = chain(&["a", "b", "c", "d"]).finish();
    let Checked::Stack(stack) = read_checked(&image, &build(), 2, 1).unwrap() else {
        panic!("refused")
    };
    assert!(stack.cut);
    assert_eq!(names(&stack), ["d", "c"]);
}

#[test]
fn defects_of_the_chain_are_refused() {
    let mut fake = chain(&["a", "b"]);
    let caller = fake.get(fake.current + 48);
    fake.put(caller + 48, fake.current);
    assert_eq!(refused(&fake.finish()), Some(Defect::Loop));

    let mut fake = chain(&["a"]);
    let function = fake.get(fake.current + 24);
    fake.put(function + 8, 0x1000);
    assert_eq!(
        refused(&fake.finish()),
        Some(Defect::Unreadable),
        "a name that is nowhere"
    );
}

#[test]
fn a_target_that_dies_is_gone() {
    struct Dying(Image, Cell<usize>);
    impl TargetMemory for Dying {
        fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
            self.1.set(self.1.get().checked_sub(1).ok_or(ReadError::Gone)?);
            self.0.read_prefix(addr, buf)
        }
    }
    let image = chain(&["a", "b"]).finish();
    for reads in 0..15 {
        let dying = Dying(image.clone(), Cell::new(reads));
        let result = read_checked(&dying, &build(), 64, 1);
        assert_eq!(
            result,
            Err(StackError::Memory(ReadError::Gone)),
            "after {reads} reads"
        );
    }
}
