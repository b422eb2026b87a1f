//! A native stack in a hostile process: any object file, any stack, any registers. Names,
//! frames, lines and offsets out of it end, within their bounds, without a panic.
//!
//! Input: 4 registers (2 bytes each, so that they are near to something), the length of
//! the stack in words (1 byte), its words (2 bytes each), then changes of a sound object
//! file: place (2 bytes) and the byte to write there. An input whose first byte is 255
//! has the object file itself after the stack instead.

#![no_main]

use std::hint::black_box;

use glasspool_probes::fuzzing::{described, unwind};
use glasspool_probes::native::MAX_FRAMES;
use libfuzzer_sys::fuzz_target;

/// With call frame information, symbols and debug information.
const SMALL: &[u8] = include_bytes!("../../tests/fixtures/native/small.so");
const START: u64 = 0x7f00_0000_0000;
const STACK: u64 = 0x7fff_0000_0000;

fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*first)
}

/// An address in the file if it is even, on the stack if it is odd; 0 if it is 0.
fn near(bytes: [u8; 2]) -> u64 {
    match u64::from(u16::from_le_bytes(bytes)) {
        0 => 0,
        code if code % 2 == 0 => START + code / 2,
        stack => STACK + stack / 2,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (Some(whole), Some(pc), Some(frame), Some(link), Some(words)) = (
        take::<1>(&mut data),
        take(&mut data),
        take(&mut data),
        take(&mut data),
        take::<1>(&mut data),
    ) else {
        return;
    };
    let mut stack = Vec::new();
    for _ in 0..words[0] {
        let Some(word) = take(&mut data) else { break };
        stack.extend(near(word).to_le_bytes());
    }
    let mut file;
    if whole == [255] {
        file = data.to_vec();
    } else {
        file = SMALL.to_vec();
        while let (Some(place), Some([byte])) = (take(&mut data), take(&mut data)) {
            let place = usize::from(u16::from_le_bytes(place)) % file.len();
            file[place] = byte;
        }
    }
    let pc = near(pc);
    if let Some(native) = unwind(&file, START, [pc, STACK, near(frame), near(link)], &stack) {
        assert!(native.frames.len() <= MAX_FRAMES);
        for frame in &native.frames {
            let text = frame.to_string();
            assert!(
                text.len() <= 4_096 && !text.chars().any(char::is_control),
                "{text:?}"
            );
        }
    }
    let (layout, source) = described(&file, pc.wrapping_sub(START));
    black_box(layout);
    assert!(source.is_none_or(|source| source.len() <= 2_048 && !source.chars().any(char::is_control)));
});
