//! What the kernel itself measures of its programs, while it is told to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aya::programs::loaded_programs;

use crate::BenchError;

/// Measuring costs every program of the host some tens of nanoseconds a run, which are in its numbers.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel measures its programs as long as this lives.
#[derive(Debug)]
pub(super) struct Statistics(String);

impl Statistics {
    /// # Errors
    /// Only root may.
    pub(super) fn on() -> Result<Self, BenchError> {
        let path = Path::new(SWITCH);
        let before = fs::read_to_string(path).map_err(BenchError::file("read", path))?;
        fs::write(path, "1").map_err(BenchError::file("write", path))?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        fs::write(SWITCH, &self.0).unwrap_or_default();
    }
}

/// A program, found again by its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program(u32);

impl Program {
    /// That of a name among those that a process keeps in the kernel. Others may have some
    /// of the same names.
    pub(super) fn of(pid: u32, name: &str) -> Option<Self> {
        let kept = kept_by(pid);
        let mut programs = loaded_programs().filter_map(Result::ok);
        let found =
            programs.find(|program| kept.contains(&program.id()) && program.name_as_str() == Some(name));
        found.map(|program| Self(program.id()))
    }

    /// How often it has run, and for how many nanoseconds, while they were measured.
    pub(super) fn spent(self) -> Option<(u64, u64)> {
        let mut programs = loaded_programs().filter_map(Result::ok);
        let program = programs.find(|program| program.id() == self.0)?;
        let time = u64::try_from(program.run_time().as_nanos()).ok()?;
        Some((program.run_count(), time))
    }
}

/// Numbers of the programs whose links a process has (`bpf_link_show_fdinfo` in the
/// kernel's kernel/bpf/syscall.c).
fn kept_by(pid: u32) -> BTreeSet<u32> {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    let texts = folder
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts.filter_map(|text| parse_program(&text)).collect()
}

fn parse_program(fdinfo: &str) -> Option<u32> {
    let number = fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_its_program() {
        let link =
            "pos:\t0\nflags:\t02000002\nlink_type:\ttracing\nlink_id:\t4\nprog_tag:\t6f0e\nprog_id:\t31\n";
        assert_eq!(parse_program(link), Some(31));
        assert_eq!(parse_program("pos:\t0\nmap_type:\t27\nmap_id:\t9\n"), None);
    }
}
