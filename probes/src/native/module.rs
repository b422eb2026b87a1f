//! What is known of one object file, and the files of all targets by build-id: call
//! frame information to unwind with, symbols to name with. The code itself is not read.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EhFrameOffset, LittleEndian, UnwindSection};
use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ReadCache, ReadRef};

use super::FileError;
use super::debug_file::{self, is_usable, open};
use super::demangle::demangled;
use super::lines::{Budget, Lines, Source};
use super::maps::{Mapping, Maps};
use super::symbols::Symbols;
use crate::memory::{TargetAddr, TargetMemory};
use crate::rights::Obstacle;

/// Larger sections are not read; PHP's own `.eh_frame` has 650 KiB, a browser's 20 MiB.
const MAX_SECTION: u64 = 64 * 1024 * 1024;
/// Files that are remembered. Beyond it, all are forgotten and read again as needed.
const MAX_MODULES: usize = 1024;
/// Bytes of them that are remembered, likewise. A PHP and libc have 1 MiB.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The part of a mapped file that has its headers and its build-id.
const HEAD: usize = 4096;
/// The kernel's own code has two pages.
const MAX_VDSO: u64 = 64 * 1024;

/// The bytes of the `NT_GNU_BUILD_ID` note: two files that have the same are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BuildId(Box<[u8]>);

/// Object files by file and build-id, for all targets of one reader. A file is read when an
/// address in it is first seen: 1-10 ms, and about 0.6 MiB for PHP itself.
#[derive(Debug, Default)]
pub struct Modules {
    known: HashMap<Key, Result<Arc<Module>, FileError>>,
    /// Of all that are known.
    bytes: usize,
    /// `None`: source lines are not wanted.
    lines: Option<Arc<Budget>>,
}

/// What a file is known by. Not by build-id alone: a target can give any file of its own
/// any build-id, and would then choose the names in other targets' stacks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Device, inode and path.
    file: String,
    build_id: Option<BuildId>,
}

/// One object file.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) eh_frame: Option<Section>,
    pub(super) eh_frame_hdr: Option<Section>,
    /// Address ranges in the file that framehop wants to know.
    pub(super) text: Option<Range<u64>>,
    pub(super) got: Option<Range<u64>>,
    /// From the first to the last address of the file.
    pub(super) range: Range<u64>,
    /// Executable segments: offset in the file, address, length.
    code: Vec<(u64, u64, u64)>,
    symbols: Symbols,
    /// Source lines, where there is debug information and they are wanted.
    lines: Option<(Lines, Arc<Budget>)>,
}

/// A section's bytes and where they are loaded, as addresses in the file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) bytes: Arc<[u8]>,
    pub(super) range: Range<u64>,
}

impl Modules {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Modules {
        Modules::default()
    }

    /// The same, for a reader that wants source lines where there is debug information:
    /// that takes some tens of MiB and of milliseconds for a file that has any, at most
    /// 256 MiB of memory in all. Stripped files cost nothing more.
    #[must_use]
    pub fn with_lines() -> Modules {
        Modules {
            lines: Some(Arc::default()),
            ..Modules::default()
        }
    }

    /// Number of files that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What they take, in bytes, without the debug information of [`Modules::with_lines`].
    /// An unwinder that has seen a file keeps it, too; both share one copy.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The object file of a mapping.
    pub(super) fn load<M: TargetMemory>(
        &mut self,
        pid: glasspool_abi::Pid,
        mem: &M,
        maps: &Maps,
        mapping: &Mapping,
    ) -> Result<Arc<Module>, FileError> {
        let build_id = maps.head_of(mapping).and_then(|head| mapped_build_id(mem, head));
        let key = Key {
            file: format!("{} {}", mapping.file, mapping.path),
            build_id: build_id.clone(),
        };
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let module = if mapping.path == "[vdso]" {
            read_vdso(mem, mapping)
        } else {
            read_file(pid, mapping, build_id.as_ref(), self.lines.as_ref())
        };
        let module = module.map(Arc::new);
        let bytes = module.as_ref().map_or(0, |module| module.bytes());
        if self.known.len() == MAX_MODULES || self.bytes + bytes > MAX_BYTES {
            self.known.clear();
            self.bytes = 0;
        }
        // A right that is missing may be granted later.
        if !matches!(module, Err(FileError::Open(_))) {
            self.known.insert(key, module.clone());
            self.bytes += bytes;
        }
        module
    }
}

/// The build-id, from the first page of a file that is mapped.
fn mapped_build_id<M: TargetMemory>(mem: &M, head: &Mapping) -> Option<BuildId> {
    let mut page = [0; HEAD];
    let got = mem.read_prefix(TargetAddr(head.start), &mut page).ok()?;
    build_id(page.get(..got)?)
}

fn build_id<'a, R: ReadRef<'a>>(data: R) -> Option<BuildId> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    header
        .program_headers(endian, data)
        .ok()?
        .iter()
        .find_map(|segment| {
            let mut notes = segment.notes(endian, data).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == b"GNU" && note.n_type(endian) == object::elf::NT_GNU_BUILD_ID {
                    return Some(BuildId(note.desc().into()));
                }
            }
            None
        })
}

/// Opens the very file that is mapped, through the target's own root directory.
fn read_file(
    pid: glasspool_abi::Pid,
    mapping: &Mapping,
    expected: Option<&BuildId>,
    lines: Option<&Arc<Budget>>,
) -> Result<Module, FileError> {
    // This link leads to the file even if it was replaced or removed. It takes
    // CAP_CHECKPOINT_RESTORE (proc_pid_map_files(5)).
    let link = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    let (path, deleted) = mapping.file_path();
    let file = match open(&link) {
        Ok(file) => file,
        Err(_) if deleted => return Err(FileError::Replaced),
        Err(_) => open(&format!("/proc/{pid}/root{path}"))
            .map_err(|error| FileError::Open(Obstacle::behind(pid, &error)))?,
    };
    if !is_usable(&file) {
        return Err(FileError::Garbled(
            "not a regular file of bearable size".to_owned(),
        ));
    }
    let cache = ReadCache::new(&file);
    let found = build_id(&cache);
    if expected.is_some_and(|expected| found.as_ref() != Some(expected)) {
        return Err(FileError::Replaced);
    }
    let mut module = Module::parse(&cache)?;
    let has_lines = has_lines(&cache);
    let debug_file = found.and_then(|build_id| debug_file::find(pid, &build_id.0));
    drop(cache);
    let with_lines = module.add_debug_file(debug_file).or(has_lines.then_some(file));
    if let (Some(file), Some(budget)) = (with_lines, lines) {
        module.lines = Some((Lines::of(file), Arc::clone(budget)));
    }
    Ok(module)
}

fn has_lines<'a, R: ReadRef<'a>>(data: R) -> bool {
    ElfFile64::<Endianness, _>::parse(data).is_ok_and(|elf| debug_file::has_lines(&elf))
}

/// The kernel's own code is in no file, but whole in memory.
fn read_vdso<M: TargetMemory>(mem: &M, mapping: &Mapping) -> Result<Module, FileError> {
    let garbled = |why: &dyn std::fmt::Display| FileError::Garbled(why.to_string());
    let len = usize::try_from((mapping.end - mapping.start).min(MAX_VDSO)).unwrap_or(0);
    let mut bytes = vec![0; len];
    mem.read(TargetAddr(mapping.start), &mut bytes)
        .map_err(|error| garbled(&error))?;
    Module::parse(bytes.as_slice())
}

impl Module {
    pub(super) fn parse<'a, R: ReadRef<'a>>(data: R) -> Result<Module, FileError> {
        let garbled = |error: object::Error| FileError::Garbled(error.to_string());
        let elf = ElfFile64::<Endianness, _>::parse(data).map_err(garbled)?;
        let endian = elf.endian();
        let mut code = Vec::new();
        let (mut first, mut last) = (u64::MAX, 0);
        for segment in elf.elf_program_headers() {
            if segment.p_type(endian) != PT_LOAD {
                continue;
            }
            let (offset, address) = (segment.p_offset(endian), segment.p_vaddr(endian));
            let end = address.saturating_add(segment.p_memsz(endian));
            (first, last) = (first.min(address), last.max(end));
            if segment.p_flags(endian) & PF_X != 0 {
                code.push((offset, address, segment.p_filesz(endian)));
            }
        }
        let section = |name| -> Option<Section> {
            let section = elf.section_by_name(name)?;
            if section.size() > MAX_SECTION {
                return None;
            }
            let bytes = section.data().ok()?;
            Some(Section {
                range: section.address()..section.address().checked_add(bytes.len() as u64)?,
                bytes: bytes.into(),
            })
        };
        let place = |name| {
            let section = elf.section_by_name(name)?;
            Some(section.address()..section.address().checked_add(section.size())?)
        };
        let mut module = Module {
            eh_frame: section(".eh_frame"),
            eh_frame_hdr: section(".eh_frame_hdr"),
            text: place(".text"),
            got: place(".got"),
            range: first.min(last)..last,
            code,
            symbols: Symbols::default(),
            lines: None,
        };
        module.symbols.add(&elf, elf.elf_dynamic_symbol_table());
        module.symbols.add(&elf, elf.elf_symbol_table());
        Ok(module)
    }

    /// Adds the symbols of a debug file. Gives it back if it has source lines.
    fn add_debug_file(&mut self, file: Option<File>) -> Option<File> {
        let file = file?;
        let cache = ReadCache::new(&file);
        let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
        self.symbols.add(&elf, elf.elf_symbol_table());
        let has_lines = debug_file::has_lines(&elf);
        drop(elf);
        drop(cache);
        has_lines.then_some(file)
    }

    /// What it takes, in bytes, without debug information.
    fn bytes(&self) -> usize {
        let section = |section: &Option<Section>| section.as_ref().map_or(0, |section| section.bytes.len());
        section(&self.eh_frame) + section(&self.eh_frame_hdr) + self.symbols.bytes()
    }

    /// What to add to an address of the file to get the target's, from one of its
    /// mappings. `None` if the mapping is of no segment with code.
    pub(super) fn bias(&self, mapping: &Mapping) -> Option<u64> {
        let (offset, address, _) = self.code.iter().find(|(offset, _, len)| {
            // A mapping begins at a page, a segment anywhere in it.
            mapping.offset < offset.saturating_add(*len)
                && mapping.offset.saturating_add(mapping.end - mapping.start) > *offset
        })?;
        let loaded = address.wrapping_add(mapping.offset).wrapping_sub(*offset);
        Some(mapping.start.wrapping_sub(loaded))
    }

    /// The symbol that an address of the file is inside of.
    pub(super) fn symbol(&self, address: u64) -> Option<String> {
        self.symbols.at(address).map(|name| demangled(&name))
    }

    /// Where the code at an address of the file was written, if that is wanted and known.
    pub(super) fn source(&self, address: u64) -> Option<Source> {
        let (lines, budget) = self.lines.as_ref()?;
        lines.at(address, budget)
    }

    /// Where the function that an address of the file is in begins.
    pub(super) fn function_start(&self, address: u64) -> Option<u64> {
        let (frames, header) = (self.eh_frame.as_ref()?, self.eh_frame_hdr.as_ref()?);
        let bases = BaseAddresses::default()
            .set_eh_frame(frames.range.start)
            .set_eh_frame_hdr(header.range.start)
            .set_text(self.text.as_ref().map_or(0, |text| text.start))
            .set_got(self.got.as_ref().map_or(0, |got| got.start));
        let header = EhFrameHdr::new(&header.bytes, LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        let entry = header.table()?.lookup(address, &bases).ok()?.direct().ok()?;
        // A damaged header may claim that the section begins behind its own entries.
        let offset = entry.checked_sub(header.eh_frame_ptr().direct().ok()?)?;
        let frames = EhFrame::new(&frames.bytes, LittleEndian);
        let offset = EhFrameOffset(usize::try_from(offset).ok()?);
        let fde = frames
            .fde_from_offset(&bases, offset, EhFrame::cie_from_offset)
            .ok()
            .filter(|fde| fde.contains(address))?;
        Some(fde.initial_address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Module {
        Module {
            eh_frame: None,
            eh_frame_hdr: None,
            text: None,
            got: None,
            range: 0..0x4000,
            code: vec![(0x1000, 0x2000, 0x800)],
            symbols: Symbols::default(),
            lines: None,
        }
    }

    #[test]
    fn the_bias_is_that_of_the_segment_with_code() {
        let module = empty();
        let mapping = |offset: u64| Mapping {
            start: 0x7000_1000,
            end: 0x7000_2000,
            offset,
            executable: true,
            file: String::new(),
            path: String::new(),
        };
        assert_eq!(module.bias(&mapping(0x1000)), Some(0x7000_1000 - 0x2000));
        assert_eq!(module.bias(&mapping(0x5000)), None);
    }

    #[test]
    fn garbage_is_no_module_and_has_no_build_id() {
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        assert!(build_id(bytes.as_slice()).is_some() || !bytes.is_empty());
        bytes.truncate(3000);
        assert!(Module::parse(&bytes[..10]).is_err());
        for at in (0..bytes.len()).step_by(7) {
            let was = bytes[at];
            bytes[at] = 0xff;
            if let Ok(module) = Module::parse(bytes.as_slice()) {
                let _start = module.function_start(0x1000);
                let _symbol = module.symbol(0x1000);
            }
            let _id = build_id(bytes.as_slice());
            bytes[at] = was;
        }
    }

    #[test]
    fn this_program_knows_where_its_functions_begin() {
        let file = File::open("/proc/self/exe").unwrap();
        let module = Module::parse(&ReadCache::new(&file)).unwrap();
        let start = module.symbols.a_long_one().expect("a test program has symbols");
        assert_eq!(module.function_start(start + 1), Some(start));
        assert_eq!(module.function_start(module.range.end + 0x1000), None);
    }
}
