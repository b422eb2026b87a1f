//! What a core file says of a death (core(5), elf(5)).

use std::fs;
use std::path::Path;

use object::elf::{FileHeader64, NT_FILE, NT_PRSTATUS, NT_SIGINFO};
use object::read::elf::{FileHeader, ProgramHeader};

/// Where the kernel puts a core file in the current folder, up to what differs; else why
/// it does not.
pub(super) fn name() -> Result<String, String> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("reads");
    let fixed = pattern.trim().split('%').next().unwrap_or_default();
    if fixed.is_empty() || fixed.contains(['|', '/']) {
        return Err(format!("kernel.core_pattern is {}", pattern.trim()));
    }
    Ok(fixed.to_owned())
}

/// What a core file says of the death.
#[derive(Debug)]
pub(super) struct Core {
    /// NT_PRSTATUS: the signal.
    pub(super) signal: u16,
    /// NT_SIGINFO: signal and code.
    pub(super) info: [i32; 2],
    /// The file whose code ran.
    pub(super) file: Option<String>,
}

impl Core {
    fn read(path: &Path) -> Core {
        let bytes = fs::read(path).expect("reads");
        let data = &*bytes;
        let header = FileHeader64::<object::Endianness>::parse(data).expect("is an ELF file");
        let endian = header.endian().expect("of a known order");
        let segments = header.program_headers(endian, data).expect("has segments");
        let notes = segments
            .iter()
            .find_map(|s| s.notes(endian, data).expect("is whole"));
        let mut notes = notes.expect("has notes");
        // Other threads, if there are any, follow the one that died.
        let (mut status, mut info, mut files) = (None, None, None);
        while let Some(note) = notes.next().expect("is whole") {
            let place = match note.n_type(endian) {
                NT_PRSTATUS => &mut status,
                NT_SIGINFO => &mut info,
                NT_FILE => &mut files,
                _ => continue,
            };
            place.get_or_insert(note.desc());
        }
        let (status, info) = (status.expect("NT_PRSTATUS"), info.expect("NT_SIGINFO"));
        Core {
            signal: u16::from_ne_bytes(status[12..14].try_into().expect("two bytes")),
            info: [0, 8].map(|at| i32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"))),
            file: mapped_file(files.expect("NT_FILE"), program_counter(status)),
        }
    }
}

fn word(bytes: &[u8], index: usize) -> u64 {
    u64::from_ne_bytes(bytes[index * 8..][..8].try_into().expect("eight bytes"))
}

/// `pr_reg` follows 112 bytes of `struct elf_prstatus` (linux/elfcore.h): `ip` of
/// `struct user_regs_struct`, or `pc` of `struct user_pt_regs`.
fn program_counter(status: &[u8]) -> u64 {
    let register = if cfg!(target_arch = "x86_64") { 16 } else { 32 };
    word(status, 112 / 8 + register)
}

/// NT_FILE: count and page size, then start, end and offset of each, then their names.
fn mapped_file(note: &[u8], address: u64) -> Option<String> {
    let count = usize::try_from(word(note, 0)).expect("a count");
    let index = (0..count).find(|n| (word(note, 2 + 3 * n)..word(note, 3 + 3 * n)).contains(&address))?;
    let name = note[(2 + 3 * count) * 8..].split(|b| *b == 0).nth(index)?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The one core file of the folder, taken away.
pub(super) fn take(folder: &Path, name: &str) -> Core {
    let files = fs::read_dir(folder)
        .expect("reads")
        .map(|file| file.expect("reads"));
    let mut cores = files.filter(|file| file.file_name().to_string_lossy().starts_with(name));
    let path = cores.next().expect("there is a core").path();
    assert!(cores.next().is_none(), "there is another core");
    let core = Core::read(&path);
    fs::remove_file(path).expect("removes");
    core
}
