//! What a process has mapped where, of interest to an unwinder: files, and the code
//! that the kernel itself provides (`[vdso]`).

use std::io;

use glasspool_abi::Pid;

use crate::process;

/// A PHP with all its extensions has 60 KiB of this; the file of a process that maps
/// more is cut.
const FILE_CAP: u64 = 4 * 1024 * 1024;
/// What looks like a path but is memory: of shared memory, where opcache has its JIT
/// put code, of `memfd_create`, and of System V segments.
const NO_FILES: [&str; 4] = ["/dev/zero", "/memfd:", "/SYSV", "/anon_hugepage"];
/// Mappings of files that are kept.
const MAX_MAPPINGS: usize = 16 * 1024;

/// One mapping of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    pub(super) executable: bool,
    /// Device and inode, as text: one file's are equal.
    pub(super) file: String,
    /// As the kernel prints it, with ` (deleted)`.
    pub(super) path: String,
}

/// The mappings of files, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Maps {
    mappings: Vec<Mapping>,
}

impl Maps {
    /// Reads `/proc/PID/maps`; about 1 ms for a PHP with 30 extensions.
    pub(super) fn read(pid: Pid) -> io::Result<Maps> {
        Ok(Maps::parse(&process::read_file(
            &format!("/proc/{pid}/maps"),
            FILE_CAP,
        )?))
    }

    /// `start-end perms offset device inode path`, proc_pid_maps(5).
    pub(super) fn parse(text: &str) -> Maps {
        let mappings = text
            .lines()
            .filter_map(|line| {
                let (range, rest) = line.split_once(' ')?;
                let (perms, rest) = rest.split_once(' ')?;
                let (offset, rest) = rest.split_once(' ')?;
                let (device, rest) = rest.split_once(' ')?;
                let (inode, path) = rest.split_once(' ')?;
                let (start, end) = range.split_once('-')?;
                let hex = |text| u64::from_str_radix(text, 16).ok();
                let path = path.trim_start();
                let file = path.starts_with('/') && !NO_FILES.iter().any(|memory| path.starts_with(memory));
                let wanted = file || path == "[vdso]";
                let (start, end) = (hex(start)?, hex(end)?);
                (wanted && start < end).then(|| Mapping {
                    start,
                    end,
                    offset: hex(offset).unwrap_or(0),
                    executable: perms.contains('x'),
                    file: format!("{device} {inode}"),
                    path: path.to_owned(),
                })
            })
            .take(MAX_MAPPINGS)
            .collect();
        Maps { mappings }
    }

    /// The mapping that holds code at `pc`.
    pub(super) fn code_at(&self, pc: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= pc);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        (mapping.executable && pc < mapping.end).then_some(mapping)
    }

    /// Where the beginning of the file of `mapping` is mapped: its last mapping from
    /// offset 0 at or below.
    pub(super) fn head_of(&self, mapping: &Mapping) -> Option<&Mapping> {
        self.mappings
            .iter()
            .rfind(|other| other.offset == 0 && other.start <= mapping.start && other.file == mapping.file)
    }
}

impl Mapping {
    /// The path without the kernel's remark, and whether that was there.
    pub(super) fn file_path(&self) -> (&str, bool) {
        match self.path.strip_suffix(" (deleted)") {
            Some(path) => (path, true),
            None => (&self.path, false),
        }
    }

    /// The last part of the path, fit to print. The kernel escapes line breaks only.
    pub(super) fn base_name(&self) -> String {
        let (path, _) = self.file_path();
        printable(path.rsplit('/').next().unwrap_or(path))
    }
}

/// A path that the target chose, without control characters.
pub(super) fn printable(path: &str) -> String {
    path.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_speak_to_the_terminal() {
        let maps = Maps::parse("1000-2000 r-xp 00000000 08:01 7 /srv/\x1b[2Jx.so\n");
        assert_eq!(maps.code_at(0x1000).unwrap().base_name(), "\u{fffd}[2Jx.so");
    }

    #[test]
    fn files_are_found_by_address_and_back_to_their_beginning() {
        let maps = Maps::parse(
            "1000-2000 r--p 00000000 08:01 7                          /usr/bin/a b\n\
             2000-4000 r-xp 00001000 08:01 7                          /usr/bin/a b\n\
             5000-6000 rwxp 00000000 00:00 0 \n\
             6000-7000 rw-p 00000000 00:00 0                          [heap]\n\
             7000-8000 r-xp 00003000 08:01 9                          /lib/x.so (deleted)\n\
             8000-9000 r-xp 00000000 00:00 0                          [vdso]\n\
             9000-a000 rwxs 00000000 00:01 3                          /dev/zero (deleted)\n\
             garbage\n\
             9000-8000 r-xp 00000000 08:01 9 /backwards\n\
             a000-b000 r-xp\n",
        );
        assert_eq!(maps.mappings.len(), 4);
        let code = maps.code_at(0x3fff).unwrap();
        assert_eq!((code.base_name().as_str(), code.offset), ("a b", 0x1000));
        assert_eq!(maps.head_of(code).unwrap().start, 0x1000);
        for pc in [0, 0x1800, 0x4000, 0x5800, 0x6800, 0x9800, u64::MAX] {
            assert_eq!(maps.code_at(pc), None, "{pc:#x}");
        }
        let deleted = maps.code_at(0x7000).unwrap();
        assert_eq!(deleted.file_path(), ("/lib/x.so", true));
        assert_eq!(maps.head_of(deleted), None);
        assert_eq!(maps.code_at(0x8000).unwrap().base_name(), "[vdso]");
    }
}
