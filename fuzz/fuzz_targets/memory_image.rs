//! The memory of real PHP processes with any damage: stack, argument values, request,
//! fibers, self-test and the arguments of a system call are read of it, within their
//! bounds, without a panic.
//!
//! Input: which golden image (1 byte), which system call (1 byte), its arguments (2 bytes
//! each), then changes: place (2 bytes, of all bytes of the image) with the value to write
//! there, which is a byte, or 8 of them if the place is odd: then one that leads back
//! into the image, or anywhere.

#![no_main]

use std::cell::Cell;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use glasspool_abi::Pid;
use glasspool_abi::zend::PhpBuild;
use glasspool_probes::fuzzing;
use glasspool_probes::memory::{Image, Recording};
use glasspool_probes::php::fibers::read_suspended;
use glasspool_probes::php::layouts;
use glasspool_probes::{
    AllowList, Arguments, ReadError, Stack, TargetAddr, TargetMemory, Want, read_held, read_stack,
};
use libfuzzer_sys::fuzz_target;

const FRAMES: usize = 64;
/// All reads of one image together ask for far less than this.
const MAX_BYTES: usize = 64 * 1024 * 1024;

const IMAGES: [&[u8]; 5] = [
    include_bytes!("../../tests/fixtures/php-7.4/generators.image"),
    include_bytes!("../../tests/fixtures/php-8.2/calls.image"),
    include_bytes!("../../tests/fixtures/php-8.2/named.image"),
    include_bytes!("../../tests/fixtures/php-8.4/fiber.image"),
    include_bytes!("../../tests/fixtures/php-8.5/magic.image"),
];

type Run = (TargetAddr, Vec<u8>);

static GOLDEN: LazyLock<Vec<(PhpBuild, Vec<Run>)>> =
    LazyLock::new(|| IMAGES.iter().map(|bytes| parse(bytes)).collect());

/// The format is described in `probes/tests/kinds/golden.rs`.
fn parse(bytes: &[u8]) -> (PhpBuild, Vec<Run>) {
    let mut lines = bytes.splitn(5, |&byte| byte == b'\n').skip(1);
    let mut text = || String::from_utf8(lines.next().expect("a line").to_vec()).expect("text");
    let (version, globals) = (text(), text());
    text();
    let mut rest = lines.next().expect("runs");
    let mut runs = Vec::new();
    while let (Some(addr), Some(len)) = (take(&mut rest), take(&mut rest)) {
        let (run, after) = rest.split_at(u32::from_le_bytes(len) as usize);
        runs.push((TargetAddr(u64::from_le_bytes(addr)), run.to_vec()));
        rest = after;
    }
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let minor = (parts.next().expect("major"), parts.next().expect("minor"));
    let build = PhpBuild {
        api: layouts::api_of(minor).expect("a known version"),
        version,
        zts: false,
        executor_globals: u64::from_str_radix(globals.trim_start_matches("0x"), 16).expect("an address"),
        layout: layouts::layout(minor, false).expect("a known version"),
    };
    (build, runs)
}

fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*first)
}

/// Counts what is asked of the target.
struct Counting {
    image: Image,
    bytes: Cell<usize>,
}

impl TargetMemory for Counting {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.bytes.set(self.bytes.get() + buf.len());
        self.image.read_prefix(addr, buf)
    }
}

/// The address of the byte in place `place` of all runs.
fn address(runs: &[Run], place: usize) -> u64 {
    let all: usize = runs.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut place = place % all.max(1);
    for (addr, bytes) in runs {
        if place < bytes.len() {
            return addr.0 + place as u64;
        }
        place -= bytes.len();
    }
    0
}

fn judge(stack: &Stack) {
    assert!(stack.frames.len() <= FRAMES);
    for frame in &stack.frames {
        let arguments = frame.arguments.as_ref().map(ToString::to_string);
        let texts = [
            Some(&frame.function),
            frame.class.as_ref(),
            frame.file.as_ref(),
            arguments.as_ref(),
        ];
        for text in texts.into_iter().flatten() {
            assert!(
                text.len() <= 16 * 1024 && !text.chars().any(char::is_control),
                "{text:?}"
            );
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (Some([which]), Some([number])) = (take(&mut data), take(&mut data)) else {
        return;
    };
    let (build, runs) = &GOLDEN[usize::from(which) % GOLDEN.len()];
    let mut args = [0; 6];
    for arg in &mut args {
        let place = take(&mut data).map_or(0, u16::from_le_bytes);
        // A descriptor, a count, or a pointer.
        *arg = match place {
            0..512 => u64::from(place),
            512..576 => u64::MAX - u64::from(place),
            _ => address(runs, usize::from(place)),
        };
    }
    let mut image = Image::new();
    for (addr, bytes) in runs {
        image.map(*addr, bytes.as_slice());
    }
    while let Some(place) = take(&mut data).map(u16::from_le_bytes) {
        let at = TargetAddr(address(runs, usize::from(place)));
        if place % 2 == 0 {
            let Some(byte) = take::<1>(&mut data) else { break };
            image.write(at, &byte);
            continue;
        }
        let Some(value) = take(&mut data).map(u16::from_le_bytes) else {
            break;
        };
        let value = match value {
            0..16 => u64::from(value),
            16..32 => u64::MAX - u64::from(value),
            _ => address(runs, usize::from(value)) & !u64::from(value & 7),
        };
        image.write(at, &value.to_le_bytes());
    }
    let mem = Counting {
        image,
        bytes: Cell::new(0),
    };
    let allowed = AllowList::parse([
        "usort#1",
        "fgets#1",
        "many#1",
        "many#2",
        "last#1",
        "last#2",
        "middle#1",
        "wait#1",
        "wait#2",
        "App\\Store::order#1",
        "App\\Store::__construct#1",
        "Magic::__call#1",
        "Magic::__call#2",
    ]);
    let want = Want {
        max_frames: FRAMES,
        arguments: Arguments::Values(Arc::new(allowed.expect("entries"))),
    };
    let recording = Recording::new(&mem);
    if let Ok(stack) = read_stack(&recording, build, want.clone()) {
        judge(&stack);
    }
    // What was touched is enough to read the same again.
    black_box(read_stack(&recording.image(), build, want.clone())).ok();
    if let Ok(stack) = read_held(&mem, build, &want, None) {
        judge(&stack);
    }
    if let Ok(fibers) = read_suspended(&mem, build, want) {
        fibers.stacks.iter().for_each(judge);
    }
    let sapi = TargetAddr(address(runs, usize::from(which) * 64));
    black_box(fuzzing::request(&mem, build, sapi));
    black_box(fuzzing::self_test(&mem, build));
    black_box(fuzzing::call(Pid(i32::MAX), &mem, u64::from(number) * 2, args));
    black_box(fuzzing::call(
        Pid(i32::MAX),
        &mem,
        u64::from(number) * 2 + 1,
        args,
    ));
    assert!(
        mem.bytes.get() <= MAX_BYTES,
        "{} bytes asked for",
        mem.bytes.get()
    );
});
