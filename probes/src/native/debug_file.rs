//! Debug information: the file that has it, and its sections.
//!
//! It is in the object file itself, or, after a distribution has split it off, in a file
//! that is found by build-id. That one is looked for where the target would look, so the
//! target chooses its bytes as it chooses those of the object file: all is bounded here,
//! and whoever decodes must expect anything.

use std::fs::File;
use std::sync::Arc;

use gimli::{Dwarf, EndianArcSlice, LittleEndian, Reader, Section, SectionId};
use glasspool_abi::Pid;
use object::read::elf::ElfFile64;
use object::{CompressionFormat, Endianness, Object, ObjectSection, ReadCache, ReadRef};
use rustix::fs::{Mode, OFlags};

/// Larger files are not read: a table in them could be as large.
pub(crate) const MAX_FILE: u64 = 256 * 1024 * 1024;
/// Where debug files are found by build-id, as distributions install them.
const DEBUG_FILES: &str = "/usr/lib/debug/.build-id";

/// Bytes of a section, shared by all that refer to them.
pub(crate) type Bytes = EndianArcSlice<LittleEndian>;

/// Opens a file whose path a target may have chosen: a pipe must not be waited for, and
/// nothing else than a file of bearable size is of use.
pub(crate) fn open(path: &str) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Whether it is a file that may be read.
pub(crate) fn is_usable(file: &File) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE)
}

/// The debug file for a build-id, the target's before ours.
pub(crate) fn find(pid: Pid, build_id: &[u8]) -> Option<File> {
    let (first, rest) = build_id.split_first()?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("{DEBUG_FILES}/{first:02x}/{rest}.debug");
    [format!("/proc/{pid}/root{path}"), path]
        .iter()
        .filter_map(|path| open(path).ok())
        .find(is_usable)
}

/// Whether there is anything in it to tell lines from. A stripped file has nothing.
pub(crate) fn has_lines<'a, R: ReadRef<'a>>(elf: &ElfFile64<'a, Endianness, R>) -> bool {
    [SectionId::DebugInfo, SectionId::DebugLine]
        .iter()
        .all(|id| elf.section_by_name(id.name()).is_some())
}

/// Reads the sections with debug information, at most `max` bytes of all of them, unpacked.
/// `None` if there are none, or more than that.
pub(crate) fn load(file: &File, max: u64) -> Option<Dwarf<Bytes>> {
    let cache = ReadCache::new(file);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    parse(&elf, max)
}

/// The same of a file that is read already.
pub(crate) fn parse<'a, R: ReadRef<'a>>(
    elf: &ElfFile64<'a, Endianness, R>,
    max: u64,
) -> Option<Dwarf<Bytes>> {
    // One that has no code to execute may be of the other kind of machine, too.
    if !elf.is_little_endian() || elf.section_by_name(SectionId::DebugInfo.name()).is_none() {
        return None;
    }
    let mut left = max;
    Dwarf::load(|id| {
        let bytes = match elf.section_by_name(id.name()) {
            Some(section) if is_wanted(id) => unpacked(&section, &mut left).ok_or(())?,
            _ => Arc::from([]),
        };
        Ok::<_, ()>(EndianArcSlice::new(bytes, LittleEndian))
    })
    .ok()
}

/// How many bytes they have.
pub(crate) fn size(dwarf: &Dwarf<Bytes>) -> u64 {
    let sections = [
        dwarf.debug_abbrev.reader().len(),
        dwarf.debug_aranges.reader().len(),
        dwarf.debug_info.reader().len(),
        dwarf.debug_line.reader().len(),
        dwarf.debug_line_str.reader().len(),
        dwarf.debug_str.reader().len(),
    ];
    sections.into_iter().map(|len| len as u64).sum()
}

/// What types and lines are told with.
fn is_wanted(id: SectionId) -> bool {
    matches!(
        id,
        SectionId::DebugAbbrev
            | SectionId::DebugAddr
            | SectionId::DebugAranges
            | SectionId::DebugInfo
            | SectionId::DebugLine
            | SectionId::DebugLineStr
            | SectionId::DebugRanges
            | SectionId::DebugRngLists
            | SectionId::DebugStr
            | SectionId::DebugStrOffsets
    )
}

/// The bytes of a section. Those packed with zstd are not read: its decoder does not
/// stop at a size.
fn unpacked<'a>(section: &impl ObjectSection<'a>, left: &mut u64) -> Option<Arc<[u8]>> {
    let packed = section.compressed_file_range().ok()?;
    *left = left.checked_sub(packed.uncompressed_size)?;
    let data = section.compressed_data().ok()?;
    match data.format {
        CompressionFormat::None => Some(data.data.into()),
        CompressionFormat::Zlib => {
            let mut bytes = Vec::new();
            // Never more than the capacity is written.
            bytes
                .try_reserve_exact(usize::try_from(packed.uncompressed_size).ok()?)
                .ok()?;
            flate2::Decompress::new(true)
                .decompress_vec(data.data, &mut bytes, flate2::FlushDecompress::Finish)
                .ok()?;
            Some(bytes.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_place_of_a_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lib.so");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = open(path.to_str().unwrap()).unwrap();
        assert!(!is_usable(&pipe));
        let sparse = File::create(directory.path().join("sparse")).unwrap();
        sparse.set_len(MAX_FILE + 1).unwrap();
        assert!(!is_usable(&sparse));
    }

    #[test]
    fn debug_information_is_read_up_to_a_size() {
        let own = File::open("/proc/self/exe").unwrap();
        let cache = ReadCache::new(&own);
        let elf = ElfFile64::<Endianness, _>::parse(&cache).unwrap();
        assert!(has_lines(&elf), "a test program has debug information");
        assert!(load(&own, MAX_FILE).is_some());
        assert!(load(&own, 4_096).is_none());
        assert!(find(Pid(std::process::id().try_into().unwrap()), &[]).is_none());
        assert!(find(Pid(0), &[1, 2, 3]).is_none());
    }
}
