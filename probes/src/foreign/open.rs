//! From a process id to a [`Process`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use glasspool_abi::Pid;
use glasspool_abi::zend::{Layout, MissingOffset, PhpBuild};
use rustix::fs::OFlags;
use rustix::process::{PidfdFlags, pidfd_open};

use super::binary::{Binary, Looked};
use super::maps::MappedFile;
use super::{Access, LayoutFrom, OpenError, Process, Way, binary, maps, self_test};
use crate::memory::{LiveMemory, MemFd, ReadError, TargetAddr, TargetMemory, VmRead};
use crate::php::layouts::{self, NoLayout};
use crate::process;
use crate::rights::Obstacle;

/// `/proc/PID/maps` of a process with the most mappings the kernel allows has 10 MiB.
const MAX_MAPS: u64 = 16 * 1024 * 1024;

pub(super) fn open(pid: Pid, access: Access) -> Result<Process, OpenError> {
    let gone = || OpenError::Gone { pid };
    // Negative numbers stand for groups of processes, and rustix does not take them.
    let raw = Some(pid.0).filter(|&number| number > 0);
    let raw = raw.and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
        // EINVAL: a thread's number, not a process's.
        rustix::io::Errno::SRCH | rustix::io::Errno::INVAL => gone(),
        errno => OpenError::Kernel {
            pid,
            what: "open a pidfd",
            source: errno.into(),
        },
    })?;
    let pidfd = Arc::new(pidfd);
    let opened = find(pid, &pidfd, access);
    // All of the above went by the number. That the pidfd's process still runs says that
    // the number was its own throughout; if not, whatever failed failed for that reason.
    if process::has_exited(&*pidfd) {
        return Err(gone());
    }
    match opened {
        // It has executed another program in the middle of it.
        Ok(process) if !process.memory.is_same_program() => Err(gone()),
        opened => opened,
    }
}

fn find(pid: Pid, pidfd: &Arc<OwnedFd>, access: Access) -> Result<Process, OpenError> {
    // First, so that all the rest is of this program or of none.
    let memory = open_memory(pid, pidfd, access.way)?;
    let maps = read_maps(pid)?;
    let exe = fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .and_then(|path| Some(path.to_str()?.trim_end_matches(" (deleted)").to_owned()));
    let (file, opened, binary) = find_php(pid, &maps, exe.as_deref())?;
    let garbled = |why: &str| OpenError::Garbled {
        pid,
        file: binary.path().to_owned(),
        why: why.to_owned(),
    };
    compare_head(pid, &memory, &file, &binary)?;
    let (executor_globals, sapi_globals) = binary
        .place(file.start, file.offset)
        .ok_or_else(|| garbled("it is mapped in a way that its headers do not say"))?;
    let (layout, layout_from) = choose_layout(pid, &opened, &binary, access)?;
    let version = binary.version();
    let build = PhpBuild {
        version: version.text.clone(),
        api: version.api,
        zts: false,
        executor_globals,
        layout,
    };
    self_test::functions(&memory, &build).map_err(|failure| match failure {
        self_test::Failure::Memory(ReadError::Gone) => OpenError::Gone { pid },
        self_test::Failure::Memory(ReadError::Denied) => refused(pid, "read the memory"),
        self_test::Failure::Memory(ReadError::Fault { addr }) => {
            garbled(&format!("the self-test found nothing readable at {addr}"))
        }
        self_test::Failure::Nonsense(why) => garbled(&format!("the self-test failed: {why}")),
    })?;
    Ok(Process {
        pid,
        pidfd: Arc::clone(pidfd),
        memory,
        build,
        binary,
        layout_from,
        sapi_globals: sapi_globals.map(TargetAddr),
        proven: AtomicBool::new(false),
    })
}

/// The table for its version; for a build that has none, what its debug information says.
fn choose_layout(
    pid: Pid,
    file: &File,
    binary: &Binary,
    access: Access,
) -> Result<(Layout, LayoutFrom), OpenError> {
    let version = binary.version();
    let unsupported = |why: String| OpenError::Unsupported {
        pid,
        php: version.name(),
        why,
    };
    let no_table = if version.debug || access.debug_information {
        NoLayout::Unknown
    } else {
        match layouts::layout(version.minor, access.unverified_layouts) {
            Ok(layout) => return Ok((layout, LayoutFrom::Table)),
            Err(no_table) => no_table,
        }
    };
    match binary.described_layout(pid, file) {
        Some(Ok(mut layout)) => {
            // What may be shown is decided by more than offsets, and of a version that is
            // not known nobody knows by what.
            if layouts::api_of(version.minor).is_none() {
                layout.eg_exception_ignore_args = None;
            }
            Ok((layout, LayoutFrom::DebugInformation))
        }
        Some(Err(MissingOffset(name))) => Err(unsupported(format!(
            "no layout table, and its debug information does not say where {name} is"
        ))),
        None if no_table == NoLayout::Unverified => Err(unsupported(no_table.to_string())),
        None => Err(unsupported(format!(
            "no layout table and no debug information; PHP frames are off, native frames need neither ({}, and \
             others where debug information is installed)",
            layouts::supported()
        ))),
    }
}

fn read_maps(pid: Pid) -> Result<String, OpenError> {
    let what = "list the mapped files";
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/maps"))
        .and_then(|file| file.take(MAX_MAPS).read_to_end(&mut text))
        .map_err(|source| failed(pid, what, source))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn open_memory(pid: Pid, pidfd: &Arc<OwnedFd>, way: Way) -> Result<LiveMemory, OpenError> {
    let vm = VmRead::new(pid, Arc::clone(pidfd));
    if way == Way::VmRead {
        return Ok(LiveMemory::Vm(vm));
    }
    match File::open(format!("/proc/{pid}/mem")) {
        Ok(file) => Ok(LiveMemory::Mem(MemFd::new(OwnedFd::from(file)))),
        // The file's mode may forbid what the capability allows.
        Err(error) if way == Way::Any && error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(LiveMemory::Vm(vm))
        }
        Err(source) => Err(failed(pid, "open the memory", source)),
    }
}

/// The mapped file that has PHP in it. A file that cannot be opened is passed over, for
/// as long as another one is PHP.
fn find_php(pid: Pid, maps: &str, exe: Option<&str>) -> Result<(MappedFile, File, Arc<Binary>), OpenError> {
    let files = maps::parse(maps, exe);
    let mut trouble = None;
    for file in &files {
        let opened = match open_file(pid, file, exe) {
            Ok(opened) => opened,
            Err(source) => {
                trouble.get_or_insert_with(|| failed(pid, "open the mapped files", source));
                continue;
            }
        };
        match binary::look(&opened, &file.path) {
            Ok(Looked::Php(binary)) => return Ok((file.clone(), opened, binary)),
            Ok(Looked::Refused(refused)) => {
                return Err(OpenError::Unsupported {
                    pid,
                    php: refused.php,
                    why: refused.why,
                });
            }
            Ok(Looked::Other) => {}
            Err(why) => {
                trouble.get_or_insert_with(|| OpenError::Garbled {
                    pid,
                    file: file.path.clone(),
                    why,
                });
            }
        }
    }
    // A kernel thread and a zombie have no mappings at all.
    if files.is_empty() && process::state(pid).is_none_or(|state| state == process::RunState::Dead) {
        return Err(OpenError::Gone { pid });
    }
    Err(trouble.unwrap_or_else(|| OpenError::NotPhp {
        pid,
        program: exe.unwrap_or("a kernel thread").to_owned(),
    }))
}

/// Opens a mapped file. `map_files` has the very file, also when its name is gone, but
/// needs CAP_CHECKPOINT_RESTORE; `exe` has the program's; the name is the last resort,
/// and whether it still is the file that is mapped is seen by [`compare_head`].
fn open_file(pid: Pid, file: &MappedFile, exe: Option<&str>) -> io::Result<File> {
    let mut ways = vec![format!("/proc/{pid}/map_files/{:x}-{:x}", file.start, file.end)];
    if exe == Some(&file.path) {
        ways.push(format!("/proc/{pid}/exe"));
    }
    ways.push(format!("/proc/{pid}/root{}", file.path));
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for way in ways.into_iter().map(PathBuf::from) {
        // Somebody may have put a device or a pipe in the place of the file: opening it
        // must neither wait nor change anything.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        match fs::OpenOptions::new().read(true).custom_flags(flags).open(way) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the file is the one that the process runs: an upgrade replaces the file under
/// processes that go on with the old one, and their offsets differ.
fn compare_head(pid: Pid, memory: &LiveMemory, file: &MappedFile, binary: &Binary) -> Result<(), OpenError> {
    let garbled = |why: String| OpenError::Garbled {
        pid,
        file: binary.path().to_owned(),
        why,
    };
    if file.offset != 0 {
        return Err(garbled("its first page is not mapped".to_owned()));
    }
    let len = usize::try_from(file.end - file.start)
        .unwrap_or(usize::MAX)
        .min(binary.head().len());
    let mut mapped = vec![0; len];
    match memory.read(TargetAddr(file.start), &mut mapped) {
        Ok(()) if mapped == binary.head()[..len] => Ok(()),
        Ok(()) => Err(garbled(
            "the file is not the one that the process runs any more, it has been replaced since \
             (restart the process)"
                .to_owned(),
        )),
        Err(ReadError::Gone) => Err(OpenError::Gone { pid }),
        Err(ReadError::Denied) => Err(refused(pid, "read the memory")),
        Err(fault @ ReadError::Fault { .. }) => Err(garbled(fault.to_string())),
    }
}

fn failed(pid: Pid, what: &'static str, source: io::Error) -> OpenError {
    match Obstacle::behind(pid, &source) {
        Obstacle::Gone => OpenError::Gone { pid },
        Obstacle::Failed { .. } => OpenError::Kernel { pid, what, source },
        why => OpenError::Denied { pid, what, why },
    }
}

fn refused(pid: Pid, what: &'static str) -> OpenError {
    failed(pid, what, io::ErrorKind::PermissionDenied.into())
}
