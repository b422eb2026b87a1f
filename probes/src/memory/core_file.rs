//! A dead process: the memory that the kernel saved in an ELF core file (core(5)).
//!
//! A core holds what the process could write, and of files that were mapped only what
//! it had changed, unless `/proc/PID/coredump_filter` said more. That is enough for PHP:
//! its globals, stack and heap are written to, only the names of builtins' parameters are
//! constants of the file; opcache's shared memory is in the core by
//! default (bit 1 of the filter, anonymous shared mappings).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};

use super::{ReadError, TargetAddr, TargetMemory};

/// A process has at most 65,530 mappings by default (`vm.max_map_count`).
const MAX_SEGMENTS: usize = 256 * 1024;

/// Reads a core file as the memory of the process that it was. Nothing is kept in
/// memory but the list of its segments.
#[derive(Debug)]
pub struct CoreFile {
    file: File,
    /// By address, not overlapping in a core that the kernel wrote.
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    addr: u64,
    offset: u64,
    /// Bytes that the file has of it.
    len: u64,
}

/// Why a file is not a core that can be read.
#[derive(Debug, thiserror::Error)]
pub enum CoreFileError {
    /// It cannot be opened.
    #[error("cannot open core file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{} is not a 64-bit little-endian ELF core file: {why} (a compressed core must be unpacked first)",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl CoreFile {
    /// Opens a core file. Reads its headers only.
    pub fn open(path: &Path) -> Result<CoreFile, CoreFileError> {
        let open = |source| CoreFileError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(open)?;
        let segments = segments(&file).map_err(|why| CoreFileError::Format {
            path: path.to_owned(),
            why,
        })?;
        Ok(CoreFile { file, segments })
    }
}

fn segments(file: &File) -> Result<Vec<Segment>, String> {
    let data = ReadCache::new(file);
    let header = elf::FileHeader64::<object::Endianness>::parse(&data).map_err(|error| error.to_string())?;
    let endian = header.endian().map_err(|error| error.to_string())?;
    if endian != object::Endianness::Little {
        return Err("it is big-endian".to_owned());
    }
    if header.e_type.get(endian) != elf::ET_CORE {
        return Err("it is another kind of ELF file".to_owned());
    }
    let headers = header
        .program_headers(endian, &data)
        .map_err(|error| error.to_string())?;
    if headers.len() > MAX_SEGMENTS {
        return Err(format!("it says to have {} segments", headers.len()));
    }
    let mut segments: Vec<Segment> = headers
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD && segment.p_filesz(endian) != 0)
        .map(|segment| Segment {
            addr: segment.p_vaddr(endian),
            offset: segment.p_offset(endian),
            len: segment.p_filesz(endian),
        })
        .collect();
    segments.sort_by_key(|segment| segment.addr);
    Ok(segments)
}

impl TargetMemory for CoreFile {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let fault = ReadError::Fault { addr };
        let after = self.segments.partition_point(|segment| segment.addr <= addr.0);
        let mut got = 0;
        // A read may go on into the next segment where they touch.
        for segment in self.segments[..after]
            .last()
            .into_iter()
            .chain(&self.segments[after..])
        {
            let at = addr.0.saturating_add(got as u64);
            let skip = at.wrapping_sub(segment.addr);
            if at < segment.addr || skip >= segment.len {
                break;
            }
            let left = usize::try_from(segment.len - skip).unwrap_or(usize::MAX);
            let want = left.min(buf.len() - got);
            let Some(offset) = segment.offset.checked_add(skip) else {
                break;
            };
            // A truncated core ends here; so does one on a disk that fails.
            let read = self.file.read_at(&mut buf[got..got + want], offset).unwrap_or(0);
            got += read;
            if read < want || got == buf.len() {
                break;
            }
        }
        if got == 0 { Err(fault) } else { Ok(got) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A core of two segments that touch, at 0x1000 and 0x1004, and one apart.
    fn core() -> tempfile::NamedTempFile {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        bytes.resize(16, 0);
        bytes.extend(4_u16.to_le_bytes());
        bytes.extend(62_u16.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(64_u64.to_le_bytes());
        bytes.extend([0; 12]);
        for half in [64_u16, 56, 3, 0, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        let data = 64 + 3 * 56;
        for (addr, offset, len) in [
            (0x2000_u64, data + 8, 4_u64),
            (0x1004, data + 4, 4),
            (0x1000, data, 4),
        ] {
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(6_u32.to_le_bytes());
            for word in [offset, addr, 0, len, len, 1] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(b"abcdefghij");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn segments_are_memory_and_what_the_file_lost_is_not() {
        let file = core();
        let core = CoreFile::open(file.path()).unwrap();
        let mut buf = [0; 8];
        assert_eq!(core.read_prefix(TargetAddr(0x1002), &mut buf), Ok(6));
        assert_eq!(&buf[..6], b"cdefgh", "over the seam of two segments");
        assert_eq!(core.read_prefix(TargetAddr(0x2000), &mut buf), Ok(2));
        assert_eq!(&buf[..2], b"ij", "the file ends inside of the segment");
        for addr in [0, 0xfff, 0x1008, 0x2002, u64::MAX] {
            let addr = TargetAddr(addr);
            assert_eq!(core.read_prefix(addr, &mut buf), Err(ReadError::Fault { addr }));
        }
    }

    #[test]
    fn what_is_no_core_is_refused_by_name() {
        let error = CoreFile::open(Path::new("/proc/self/exe"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("another kind of ELF file"), "{error}");
        let error = CoreFile::open(Path::new("/proc/self/stat"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a 64-bit little-endian ELF core"), "{error}");
        let missing = CoreFile::open(Path::new("/nonexistent/core"));
        assert!(matches!(missing, Err(CoreFileError::Open { .. })));
    }
}
