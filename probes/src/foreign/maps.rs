//! The files that a process has mapped, from `/proc/PID/maps` (proc_pid_maps(5)).

/// A process may have 65,530 mappings by default; PHP has a few hundred.
const MAX_LINES: usize = 100_000;
/// Files that are looked into for PHP. A php with every extension has 150.
const MAX_FILES: usize = 1_024;

/// One mapped file: its mapping with the lowest file offset, which is where the ELF
/// header is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MappedFile {
    /// Where that mapping begins and ends.
    pub(super) start: u64,
    pub(super) end: u64,
    /// The file's byte at `start`.
    pub(super) offset: u64,
    /// As the process would name it, without ` (deleted)`.
    pub(super) path: String,
}

/// The mapped files, the likeliest to be PHP first: the program itself, then what has
/// `php` in its name, then the others. Anything that is not a line of such a file is
/// skipped.
pub(super) fn parse(maps: &str, exe: Option<&str>) -> Vec<MappedFile> {
    let mut files: Vec<MappedFile> = Vec::new();
    for line in maps.lines().take(MAX_LINES) {
        let Some(file) = parse_line(line) else { continue };
        match files.iter_mut().find(|known| known.path == file.path) {
            Some(known) if known.offset <= file.offset => {}
            Some(known) => *known = file,
            None => files.push(file),
        }
        if files.len() == MAX_FILES {
            break;
        }
    }
    files.sort_by_key(|file| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        (Some(file.path.as_str()) != exe, !name.contains("php"))
    });
    files
}

/// `start-end perms offset major:minor inode      path`
fn parse_line(line: &str) -> Option<MappedFile> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    let path = fields.nth(2)?.trim_start();
    if !path.starts_with('/') {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let file = MappedFile {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        path: path.strip_suffix(" (deleted)").unwrap_or(path).to_owned(),
    };
    (file.start < file.end).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555555554000-555555600000 r--p 00000000 08:01 77                         /usr/bin/my program (deleted)
555555600000-555555700000 r-xp 000ac000 08:01 77                         /usr/bin/my program (deleted)
555555800000-555555900000 rw-p 00000000 00:00 0                          [heap]
7ffff0000000-7ffff0100000 r-xp 00010000 08:01 80                         /usr/lib/libc.so.6
7ffff0100000-7ffff0200000 r--p 00000000 08:01 80                         /usr/lib/libc.so.6
7ffff0300000-7ffff0400000 r--p 00000000 08:01 81                         /usr/lib/libphp.so
7ffff0500000-7ffff0400000 r--p 00000000 08:01 82                         /backwards
7ffff0500000-7ffff0500100 r--p 00000000 00:00 0
garbage
";

    #[test]
    fn the_likeliest_file_comes_first_and_each_once() {
        let files = parse(MAPS, Some("/usr/bin/my program"));
        let seen: Vec<(&str, u64, u64)> = files
            .iter()
            .map(|file| (file.path.as_str(), file.start, file.offset))
            .collect();
        assert_eq!(
            seen,
            [
                ("/usr/bin/my program", 0x5555_5555_4000, 0),
                ("/usr/lib/libphp.so", 0x7fff_f030_0000, 0),
                ("/usr/lib/libc.so.6", 0x7fff_f010_0000, 0),
            ]
        );
    }
}
