//! Native stacks of no process: object file and stack are any bytes, as a fuzzer makes
//! them, and what it found once.

use object::Endianness;
use object::read::elf::ElfFile64;

use super::module::Module;
use super::{NativeStack, Seams, Source, StackCopy, Start, Unwinder, debug_file};
use crate::memory::Image;

/// Unwinds a stack (`bytes` from address `stack` on) from `pc` in the only object file
/// there is, mapped at `start`. `None` if it is none.
pub(crate) fn unwind_in(
    file: &[u8],
    start: u64,
    [pc, stack, frame, link]: [u64; 4],
    bytes: &[u8],
) -> Option<NativeStack> {
    // Tables are read in place, which wants the alignment that memory of its own has.
    let file = file.to_vec();
    let mut unwinder = Unwinder::of_file(Module::parse(file.as_slice()).ok()?, start);
    let copy = StackCopy {
        start: Start {
            instruction: pc,
            stack,
            frame,
            link,
        },
        bytes: bytes.to_vec(),
    };
    let mut modules = super::Modules::new();
    Some(unwinder.unwind(&mut modules, &Image::new(), &copy, Seams::default()))
}

/// The debug information of an object file, and the source line of an address in it.
pub(crate) fn debug_information(
    file: &[u8],
    address: u64,
) -> (Option<gimli::Dwarf<debug_file::Bytes>>, Option<Source>) {
    let file = file.to_vec();
    let load = || {
        let elf = ElfFile64::<Endianness, _>::parse(file.as_slice()).ok()?;
        debug_file::parse(&elf, debug_file::MAX_FILE)
    };
    let source =
        load().and_then(|dwarf| super::lines::source(&addr2line::Context::from_dwarf(dwarf).ok()?, address));
    (load(), source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::{End, MAX_FRAMES};

    /// The object file that the fuzz target starts from; `small.c` is beside it.
    const SMALL: &[u8] = include_bytes!("../../../tests/fixtures/native/small.so");
    const START: u64 = 0x7f00_0000_0000;
    const STACK: u64 = 0x7fff_0000_0000;
    /// In `inner`, after its call of `outer`; of `outer` the first instruction.
    const INNER: u64 = 0x2be;
    const OUTER: u64 = 0x290;

    #[test]
    fn the_small_file_is_unwound_named_and_has_lines() {
        // At its first instruction a function has its return address on the top.
        let bytes = [START + INNER + 4, 0, 0].map(u64::to_le_bytes).concat();
        let stack = unwind_in(SMALL, START, [START + OUTER, STACK, STACK + 0x100, 0], &bytes).unwrap();
        let names: Vec<_> = stack.frames.iter().map(|frame| frame.symbol.as_deref()).collect();
        assert_eq!(names, [Some("outer"), Some("inner")]);
        assert_eq!(stack.end, End::Root, "it returns to nowhere");
        let (_, source) = debug_information(SMALL, OUTER);
        let source = source.unwrap();
        assert!(source.file.ends_with("small.c"), "{source}");
        assert_eq!(source.line, 16);
        let (_, nothing) = debug_information(SMALL, 0x10_0000);
        assert_eq!(nothing, None);
    }

    #[test]
    fn a_stack_that_returns_to_one_function_for_ever_is_cut() {
        let word = (START + INNER + 4).to_le_bytes();
        let bytes: Vec<u8> = std::iter::repeat_n(word, 3_000).flatten().collect();
        let stack = unwind_in(SMALL, START, [START + INNER, STACK, STACK, 0], &bytes).unwrap();
        assert!(stack.frames.len() <= MAX_FRAMES);
    }

    /// Found by the fuzz target `native`: the difference of two addresses of the file was
    /// less than nothing.
    #[test]
    fn a_header_that_begins_its_section_behind_an_entry_has_no_functions() {
        /// `.eh_frame_hdr`, after its four bytes of encodings.
        const BEGIN: usize = 0x318;
        let mut file = SMALL.to_vec();
        for byte in 0..4 {
            for value in [0x00, 0x7f, 0x80, 0xfd] {
                file[BEGIN..BEGIN + 4].copy_from_slice(&SMALL[BEGIN..BEGIN + 4]);
                file[BEGIN + byte] = value;
                let stack = unwind_in(&file, START, [START + OUTER, STACK, STACK, 0], &[0; 64]).unwrap();
                assert!(stack.frames.len() <= 2, "{stack:?}");
            }
        }
    }
}
