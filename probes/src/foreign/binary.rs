//! The file that has PHP in it: read once, however many processes run it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use glasspool_abi::Pid;
use glasspool_abi::zend::{Layout, MissingOffset};
use object::read::ReadCache;
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSegment, ObjectSymbol};

use super::dwarf;
use super::version::{self, Refused, Version};
use crate::native::debug_file;

/// Files that are remembered. A machine runs few different PHPs, but each has a
/// hundred files that are not PHP.
const MAX_KNOWN: usize = 4_096;
/// PHP's constants have 1-8 MiB, also in a program that embeds it with all extensions.
const MAX_CONSTANTS: u64 = 64 * 1024 * 1024;
/// Debug information of PHP has 30 to 60 MiB.
const MAX_DEBUG: u64 = 256 * 1024 * 1024;
/// Longest start of a file that is compared with what is mapped; it has the ELF header
/// and in practice the build id.
const HEAD: usize = 4_096;

/// The engine's ways to go from one instruction to the next (`zend_vm_kind()`,
/// Zend/zend_vm_opcodes.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VmKind {
    /// Functions that are called one after the other.
    Call,
    /// A `switch`.
    Switch,
    /// Computed `goto`.
    Goto,
    /// Computed `goto` with position and frame in registers: what GCC builds.
    Hybrid,
    /// Tail calls, from PHP 8.5: what Clang builds.
    TailCall,
}

/// What is known of a file with PHP in it. Addresses are those of the file.
#[derive(Debug)]
pub(super) struct Binary {
    path: String,
    executor_globals: u64,
    sapi_globals: Option<u64>,
    segments: Vec<Loaded>,
    version: Version,
    vm_kind: Option<VmKind>,
    head: Vec<u8>,
    build_id: Vec<u8>,
    /// What debug information says of the offsets, and of which file it was read last: each
    /// process may have another one.
    described: Mutex<Option<(FileIdentity, Described)>>,
}

type Described = Result<Layout, MissingOffset>;

#[derive(Debug, Clone, Copy)]
struct Loaded {
    addr: u64,
    offset: u64,
}

/// What came of looking into a file.
#[derive(Debug, Clone)]
pub(super) enum Looked {
    /// PHP is in it.
    Php(Arc<Binary>),
    /// PHP is in it, but none that can be read.
    Refused(Refused),
    /// PHP is not in it.
    Other,
}

/// Two files are the same if all of this is. The build id alone would do where there
/// is one; without one the time of the last change has to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    file: FileIdentity,
    build_id: Vec<u8>,
}

/// What tells one file, and one content of it, from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl FileIdentity {
    fn of(metadata: &std::fs::Metadata) -> FileIdentity {
        FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

static KNOWN: Mutex<Option<HashMap<Identity, Looked>>> = Mutex::new(None);

/// Looks into an open file; `path` is how the process names it. Costs 5-40 ms the first
/// time, if it is PHP.
pub(super) fn look(file: &File, path: &str) -> Result<Looked, String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Ok(Looked::Other);
    }
    let data = ReadCache::new(file);
    // Fonts, locales and PHP's own extensions are mapped, too; what is no ELF file of
    // this kind of machine is not PHP.
    let Ok(elf) = ElfFile64::<Endianness, _>::parse(&data) else {
        return Ok(Looked::Other);
    };
    let build_id = elf.build_id().ok().flatten().unwrap_or_default();
    let identity = Identity {
        file: FileIdentity::of(&metadata),
        build_id: build_id
            .get(..build_id.len().min(64))
            .unwrap_or_default()
            .to_vec(),
    };
    let known = |looked: Option<Looked>| {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(looked) = looked {
            // Forgetting all is dear once, and happens to nobody in practice.
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(identity.clone(), looked.clone());
            return Some(looked);
        }
        known.get(&identity).cloned()
    };
    if let Some(looked) = known(None) {
        return Ok(looked);
    }
    let looked = read(&elf, &data, path, &identity.build_id)?;
    known(Some(looked.clone()));
    Ok(looked)
}

fn read<'data>(
    elf: &ElfFile64<'data, Endianness, &'data ReadCache<&'data File>>,
    data: &'data ReadCache<&'data File>,
    path: &str,
    build_id: &[u8],
) -> Result<Looked, String> {
    let (mut executor, mut executor_zts, mut sapi, mut kind) = (None, false, None, None);
    for symbol in elf.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
        match symbol.name_bytes() {
            Ok(b"executor_globals") => executor = Some(symbol.address()),
            Ok(b"executor_globals_offset") => executor_zts = true,
            Ok(b"sapi_globals") => sapi = Some(symbol.address()),
            Ok(b"zend_vm_kind") => kind = Some(symbol.address()),
            _ => {}
        }
    }
    if executor.is_none() && !executor_zts {
        return Ok(Looked::Other);
    }
    let constants = elf
        .section_by_name(".rodata")
        .filter(|section| section.size() <= MAX_CONSTANTS)
        .ok_or("it has no readable .rodata section")?
        .data()
        .map_err(|error| format!("its .rodata section: {error}"))?;
    let version = match version::find(constants) {
        Ok(version) => version,
        Err(refused) => return Ok(Looked::Refused(refused)),
    };
    let Some(executor_globals) = executor else {
        return Ok(Looked::Refused(Refused {
            php: format!("PHP {}", version.text),
            why: "it exports executor_globals_offset, as only thread-safe (ZTS) builds do".to_owned(),
        }));
    };
    let segments = elf
        .segments()
        .map(|segment| Loaded {
            addr: segment.address(),
            offset: segment.file_range().0,
        })
        .collect();
    let head = object::ReadRef::read_bytes_at(data, 0, HEAD as u64).map_err(|()| "it is too short")?;
    let code = kind.and_then(|addr| {
        elf.segments()
            .find_map(|segment| segment.data_range(addr, 16).ok().flatten())
    });
    Ok(Looked::Php(Arc::new(Binary {
        path: path.to_owned(),
        executor_globals,
        sapi_globals: sapi,
        segments,
        version,
        vm_kind: code.and_then(VmKind::of_code),
        head: head.to_vec(),
        build_id: build_id.to_vec(),
        described: Mutex::new(None),
    })))
}

// === impl Binary ===

impl Binary {
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    pub(super) fn vm_kind(&self) -> Option<VmKind> {
        self.vm_kind
    }

    /// The offsets that debug information describes: the file's own (`file` is that file,
    /// open), or that of the debug file for its build id, as process `pid` or this one
    /// would find it. `None` if there is none. Some hundred milliseconds the first time.
    pub(super) fn described_layout(&self, pid: Pid, file: &File) -> Option<Described> {
        self.describe(file).or_else(|| {
            let file = debug_file::find(pid, &self.build_id)?;
            self.describe(&file)
        })
    }

    fn describe(&self, file: &File) -> Option<Described> {
        let identity = FileIdentity::of(&file.metadata().ok()?);
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, layout)) = &*described
            && *of == identity
        {
            return Some(layout.clone());
        }
        let layout = dwarf::layout(&debug_file::load(file, MAX_DEBUG)?);
        *described = Some((identity, layout.clone()));
        Some(layout)
    }

    /// The file's first bytes, to be compared with what a process has mapped.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Where `executor_globals` and `sapi_globals` are in a process that has the file's
    /// bytes from `offset` on at `start`. `None` if the file has no segment there.
    pub(super) fn place(&self, start: u64, offset: u64) -> Option<(u64, Option<u64>)> {
        // A mapping begins at the page that holds the segment's first byte, so the two
        // differ by less than a page of at most 64 KiB.
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.offset.wrapping_sub(offset) < 64 * 1024)?;
        let bias = start
            .checked_add(segment.offset - offset)?
            .wrapping_sub(segment.addr);
        let place = |addr: u64| addr.wrapping_add(bias);
        Some((place(self.executor_globals), self.sapi_globals.map(place)))
    }
}

// === impl VmKind ===

impl VmKind {
    /// `zend_vm_kind()` returns a constant; anything but that very code is not believed.
    fn of_code(code: &[u8]) -> Option<VmKind> {
        // endbr64, bti c: landing pads.
        let code = code
            .strip_prefix(b"\xf3\x0f\x1e\xfa")
            .or_else(|| code.strip_prefix(b"\x5f\x24\x03\xd5"))
            .unwrap_or(code);
        let number = match code {
            // mov $N,%eax; ret
            [0xb8, number, 0, 0, 0, 0xc3, ..] => u32::from(*number),
            // mov w0, #N; ret
            [a, b, c, d, 0xc0, 0x03, 0x5f, 0xd6, ..] => {
                let mov = u32::from_le_bytes([*a, *b, *c, *d]);
                if mov & !(0xffff << 5) != 0x5280_0000 {
                    return None;
                }
                mov >> 5 & 0xffff
            }
            _ => return None,
        };
        match number {
            1 => Some(VmKind::Call),
            2 => Some(VmKind::Switch),
            3 => Some(VmKind::Goto),
            4 => Some(VmKind::Hybrid),
            5 => Some(VmKind::TailCall),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_vm_is_a_constant_in_its_code() {
        assert_eq!(
            VmKind::of_code(b"\xb8\x04\0\0\0\xc3\x90\x90"),
            Some(VmKind::Hybrid)
        );
        assert_eq!(
            VmKind::of_code(b"\xf3\x0f\x1e\xfa\xb8\x01\0\0\0\xc3"),
            Some(VmKind::Call)
        );
        let arm = [0x80, 0x00, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
        assert_eq!(VmKind::of_code(&arm), Some(VmKind::Hybrid));
        for code in [
            &b"\xb8\x09\0\0\0\xc3"[..],
            b"\xb8\x04\0\0\0",
            b"\x31\xc0\xc3",
            b"",
        ] {
            assert_eq!(VmKind::of_code(code), None);
        }
    }

    #[test]
    fn addresses_move_with_the_mapping() {
        let binary = Binary {
            path: String::new(),
            executor_globals: 0x40_1000,
            sapi_globals: None,
            segments: vec![
                Loaded {
                    addr: 0x20_0040,
                    offset: 0x40,
                },
                Loaded {
                    addr: 0x40_0000,
                    offset: 0x10_0000,
                },
            ],
            version: Version {
                text: String::new(),
                minor: (8, 2),
                api: 0,
                debug: false,
            },
            vm_kind: None,
            head: Vec::new(),
            build_id: Vec::new(),
            described: Mutex::new(None),
        };
        assert_eq!(binary.place(0x7000_0000, 0), Some((0x7020_1000, None)));
        assert_eq!(binary.place(0x7020_0000, 0x10_0000), Some((0x7020_1000, None)));
        assert_eq!(binary.place(0x7020_0000, 0x80_0000), None);
    }
}
