//! A PHP process made of arbitrary bytes: whatever pointers, lengths and loops they
//! hold, a read of its stack ends, within its bounds, without a panic.
//!
//! Input: the offset of the executor globals in the first region (2 bytes), then
//! regions, each a base in 16-byte steps (2 bytes: a small address
//! space, so that pointers between regions are likely), a length (2 bytes) and that
//! many bytes.

#![no_main]

use std::cell::Cell;
use std::hint::black_box;

use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_probes::memory::Image;
use glasspool_probes::php::check::read_checked;
use glasspool_probes::php::frames::MAX_FRAMES;
use glasspool_probes::{ReadError, TargetAddr, TargetMemory, read_stack};
use libfuzzer_sys::fuzz_target;

const FRAMES: usize = 64;

/// One read of `FRAMES` frames asks for far less than this.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Counts what is asked of the target.
struct Counting<'a> {
    image: &'a Image,
    bytes: Cell<usize>,
}

impl TargetMemory for Counting<'_> {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.bytes.set(self.bytes.get() + buf.len());
        self.image.read_prefix(addr, buf)
    }
}

/// A compact layout: any small input can hold a whole process. The order of the
/// values is that of `Layout::NAMES`.
fn layout() -> Layout {
    let values = [
        32, 16, 0, 8, // executor globals
        0, 24, 32, 40, 48, 80, // execute_data
        0, 4, 8, 16, 88, 80, 96, 104, 112, 32, // functions
        24, 32, 8, 16, 24, // op, class entry, string
    ];
    Layout::from_entries(Layout::NAMES.iter().copied().zip(values)).expect("a value for each name")
}

fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*first)
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let Some(globals) = take(&mut data).map(u16::from_le_bytes) else {
        return;
    };
    let mut image = Image::new();
    let mut first = None;
    while let (Some(base), Some(len)) = (take(&mut data), take(&mut data)) {
        let base = u64::from(u16::from_le_bytes(base)) * 16;
        let (bytes, rest) = data.split_at(usize::from(u16::from_le_bytes(len)).min(data.len()));
        data = rest;
        first = first.or(Some(base));
        image.map(TargetAddr(base), bytes);
    }
    let build = PhpBuild {
        version: "8.2.0".to_owned(),
        api: 20_220_829,
        zts: false,
        executor_globals: first.unwrap_or(u64::MAX).wrapping_add(u64::from(globals)),
        layout: layout(),
    };
    let mem = Counting {
        image: &image,
        bytes: Cell::new(0),
    };
    if let Ok(stack) = read_stack(&mem, &build, FRAMES) {
        assert!(stack.frames.len() <= FRAMES.min(MAX_FRAMES));
        for frame in &stack.frames {
            let texts = [Some(&frame.function), frame.class.as_ref(), frame.file.as_ref()];
            for text in texts.into_iter().flatten() {
                assert!(
                    text.chars().count() <= 513 && !text.chars().any(char::is_control),
                    "{text:?}"
                );
            }
        }
    }
    assert!(
        mem.bytes.get() <= MAX_BYTES,
        "{} bytes asked for",
        mem.bytes.get()
    );
    // Which answer garbage gets is of no interest, only that there is one.
    black_box(read_checked(&image, &build, FRAMES, 2)).ok();
});
