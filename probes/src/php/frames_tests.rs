use super::super::check::read_checked;
use super::super::testing::{Code, Fake, GLOBALS, HEAP, MAIN, VM_STACK, build, builtin, layout, user};
use super::super::walk::CALL_GENERATOR;
use super::*;
use std::sync::Arc;

use crate::memory::Image;
use crate::php::args::AllowList;

fn read(image: &Image) -> Stack {
    read_stack(image, &build(), 64).unwrap()
}

/// One line per frame: name, file, line, `~` if the line is a guess.
fn lines(stack: &Stack) -> Vec<String> {
    let line = |frame: &Frame| match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            format!(
                "{} {file}:{line}{}",
                frame.qualified_name(),
                if frame.line_exact { "" } else { "~" }
            )
        }
        _ => frame.qualified_name(),
    };
    stack.frames.iter().map(line).collect()
}

/// main calls run() calls Repo::find() calls a closure calls fread().
fn five_deep() -> Fake {
    let mut fake = Fake::new();
    for (code, line) in [
        (MAIN, 10),
        (user("run"), 20),
        (
            Code {
                class: Some("App\\Repo"),
                ..user("find")
            },
            30,
        ),
        (
            Code {
                class: Some("App\\Repo"),
                ..user("{closure}")
            },
            40,
        ),
        (builtin("fread"), 0),
    ] {
        let function = fake.function(code, line);
        fake.call(function);
    }
    fake
}

#[test]
fn functions_methods_closures_and_builtins() {
    let stack = read(&five_deep().finish());
    assert_eq!(
        lines(&stack),
        [
            "fread",
            "App\\Repo::{closure} /app/{closure}.php:42",
            "App\\Repo::find /app/find.php:32",
            "run /app/run.php:22",
            "{main} /app/index.php:12",
        ]
    );
    assert_eq!(stack.how, How::Exact);
    assert!(!stack.cut);
    let kinds: Vec<Kind> = stack.frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Internal,
            Kind::Function,
            Kind::Function,
            Kind::Function,
            Kind::Main
        ]
    );
}

#[test]
fn code_without_a_name_is_told_apart() {
    let mut fake = Fake::new();
    for code in [
        MAIN,
        MAIN,
        Code { kind: 4, ..MAIN },
        Code { kind: 1, ..MAIN },
        user("inner"),
    ] {
        let function = fake.function(code, 1);
        fake.call(function);
    }
    let stack = read(&fake.finish());
    let names: Vec<(Kind, &str)> = stack
        .frames
        .iter()
        .map(|frame| (frame.kind, frame.function.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            (Kind::Function, "inner"),
            (Kind::Fiber, "{fiber}"),
            (Kind::Eval, "{eval}"),
            (Kind::Include, "{include}"),
            (Kind::Main, "{main}"),
        ]
    );
}

#[test]
fn nothing_runs() {
    let stack = read(&Fake::new().finish());
    assert_eq!(
        stack,
        Stack {
            frames: Vec::new(),
            cut: false,
            how: How::Exact
        }
    );
}

#[test]
fn the_innermost_position_is_trusted_only_with_a_reason() {
    let mut fake = Fake::new();
    let main = fake.function(MAIN, 10);
    fake.call(main);
    let run = fake.function(user("run"), 20);
    let frame = fake.call(run);
    let opcodes = fake.get(run + 88);
    let image = fake.clone().finish();
    let innermost =
        |image: &Image, known| lines(&read_with(image, &build(), 64.into(), known).unwrap())[0].clone();
    assert_eq!(innermost(&image, Innermost::Stale), "run /app/run.php:22~");
    assert_eq!(innermost(&image, Innermost::Saved), "run /app/run.php:22");
    let registers = |vm_frame, vm_opline| {
        Innermost::Registers(Registers {
            instruction: 0,
            stack: 0,
            frame: 0,
            link: 0,
            vm_frame,
            vm_opline,
            syscall: None,
        })
    };
    assert_eq!(
        innermost(&image, registers(frame, opcodes + 5 * 32)),
        "run /app/run.php:25"
    );
    assert_eq!(
        innermost(&image, registers(frame, opcodes + 10 * 32)),
        "run /app/run.php:22~"
    );
    assert_eq!(
        innermost(&image, registers(frame + 8, opcodes + 5 * 32)),
        "run /app/run.php:22~"
    );

    fake.put(frame, opcodes - 32);
    let image = fake.finish();
    assert_eq!(
        innermost(&image, Innermost::Saved),
        "run /app/run.php:20~",
        "the function's first line"
    );
}

#[test]
fn the_limit_cuts_the_outer_end() {
    let image = five_deep().finish();
    let stack = read_stack(&image, &build(), 2).unwrap();
    assert_eq!(stack.frames.len(), 2);
    assert!(stack.cut);
    assert!(!read_stack(&image, &build(), 5).unwrap().cut);
    assert!(read_stack(&image, &build(), 0).unwrap().frames.is_empty());
}

#[test]
fn generators_and_placeholders_off_the_stack() {
    let mut fake = Fake::new();
    let main = fake.function(MAIN, 10);
    fake.call(main);
    let placeholder = fake.alloc(80);
    fake.call_at(placeholder, 0);
    let rows = fake.function(user("rows"), 20);
    let frame = fake.alloc(80);
    fake.call_at(frame, rows);
    fake.set_call_info(frame, CALL_GENERATOR);
    assert_eq!(
        lines(&read(&fake.finish())),
        ["rows /app/rows.php:22~", "{main} /app/index.php:12"]
    );
}

#[test]
fn a_stack_deeper_than_one_region_is_read_whole() {
    let mut fake = Fake::new();
    let main = fake.function(MAIN, 1);
    fake.call(main);
    let deeper = fake.function(user("deeper"), 5);
    for _ in 1..1_024 {
        fake.call(deeper);
    }
    let stack = read_stack(&fake.finish(), &build(), usize::MAX).unwrap();
    assert_eq!(stack.frames.len(), MAX_FRAMES);
    assert_eq!(stack.frames[MAX_FRAMES - 1].kind, Kind::Main);
    assert!(!stack.cut);
}

fn broken(stack: &Stack) -> Option<(usize, Defect)> {
    match stack.how {
        How::Partial(Partial::Broken { frames, defect }) => Some((frames, defect)),
        _ => None,
    }
}

#[test]
fn a_broken_chain_keeps_what_came_before() {
    for (prev, defect) in [
        (0x1004, Defect::Misaligned),
        (1 << 50, Defect::OutOfRange),
        (0x1000, Defect::Unreadable),
    ] {
        let mut fake = five_deep();
        let closure = fake.get(fake.current + 48);
        fake.put(closure + 48, prev);
        let stack = read(&fake.finish());
        assert_eq!(broken(&stack), Some((2, defect)));
        assert_eq!(stack.frames.len(), 2);
    }
}

#[test]
fn a_loop_ends() {
    let mut fake = five_deep();
    let closure = fake.get(fake.current + 48);
    fake.put(closure + 48, fake.current);
    assert_eq!(broken(&read(&fake.finish())), Some((2, Defect::Loop)));
}

#[test]
fn what_is_no_function_ends_the_stack() {
    let mut fake = five_deep();
    let closure = fake.get(fake.current + 48);
    let function = fake.get(closure + 24);
    fake.put(function, 3);
    assert_eq!(
        broken(&read(&fake.clone().finish())),
        Some((1, Defect::FunctionType))
    );
    fake.put(closure + 24, 0x2000);
    assert_eq!(
        broken(&read(&fake.clone().finish())),
        Some((1, Defect::Unreadable))
    );
    fake.put(closure + 24, 3);
    assert_eq!(broken(&read(&fake.finish())), Some((1, Defect::Misaligned)));
}

#[test]
fn lengths_that_lie_are_cut_or_refused() {
    let mut fake = five_deep();
    let closure = fake.get(fake.current + 48);
    let function = fake.get(closure + 24);
    let name = fake.get(function + 8);
    fake.put(name + 16, u64::MAX);
    fake.put(function + 152, 0x3000);
    let stack = read(&fake.finish());
    let frame = &stack.frames[1];
    assert!(frame.function.chars().count() <= 257, "{}", frame.function);
    assert_eq!(frame.file, None);
}

#[test]
fn globals_elsewhere_and_impossible_layouts_are_named() {
    let image = five_deep().finish();
    let elsewhere = PhpBuild {
        executor_globals: GLOBALS + 4096,
        ..build()
    };
    let addr = TargetAddr(GLOBALS + 4096);
    assert_eq!(
        read_stack(&image, &elsewhere, 8),
        Err(StackError::Globals { addr })
    );
    let top = PhpBuild {
        executor_globals: u64::MAX,
        ..build()
    };
    assert_eq!(
        read_stack(&image, &top, 8),
        Err(StackError::Globals {
            addr: TargetAddr(u64::MAX)
        })
    );
    let mut layout = layout();
    layout.op_array_filename = u32::MAX;
    let garbled = PhpBuild { layout, ..build() };
    assert_eq!(
        read_stack(&image, &garbled, 8),
        Err(StackError::Layout {
            name: "zend_function"
        })
    );
}

proptest::proptest! {
    /// Words of a sound process overwritten at random, often with pointers into it.
    #[test]
    fn no_garbage_panics_loops_or_grows(
        changes in proptest::collection::vec((0_u64..2_000, 0_u8..4, proptest::prelude::any::<u64>()), 1..40)
    ) {
        let mut fake = five_deep();
        fake.publish();
        let regions = [GLOBALS + 456, VM_STACK, HEAP];
        for (word, kind, value) in changes {
            let region = regions[usize::try_from(value % 3).unwrap()];
            let addr = if region == GLOBALS + 456 { region + word % 5 * 8 } else { region + word % 512 * 8 };
            let value = match kind {
                0 => value,
                1 => VM_STACK + value % 4096 / 8 * 8,
                2 => HEAP + value % 4096 / 8 * 8,
                _ => value % 4096,
            };
            fake.put(addr, value);
        }
        for max_frames in [3, usize::MAX] {
            // Any error is an answer; a stack must be within its bounds.
            if let Ok(stack) = read_stack(&fake.image, &build(), max_frames) {
                proptest::prop_assert!(stack.frames.len() <= max_frames.min(MAX_FRAMES));
                for frame in &stack.frames {
                    proptest::prop_assert!(frame.function.chars().count() <= 257);
                    proptest::prop_assert!(!frame.qualified_name().chars().any(char::is_control));
                }
            }
            let want = Want { max_frames, arguments: Arguments::Values(Arc::new(
                AllowList::parse(["run#1", "fread#1", "App\\Repo::find#1"]).unwrap(),
            )) };
            read_checked(&fake.image, &build(), want, 2).ok();
        }
    }
}
