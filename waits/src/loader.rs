//! Loads the programs, and gives away what keeps them running.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Map, MapData};
use aya::programs::{BtfTracePoint, PerfEvent};
use aya::util::online_cpus;
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use glasspool_abi::control::ProgramPart;

use crate::Settings;
use crate::kernel;
use crate::ladder::{self, Unavailable};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/waits.bpf.o"));

/// Where the kernel tells its types.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Which program runs when.
const PROGRAMS: [(&str, &str); 2] = [("on_switch", "sched_switch"), ("on_wakeup", "sched_wakeup")];
/// The same for those that count system calls.
const COUNTERS: [(&str, &str); 2] = [("on_enter", "sys_enter"), ("on_exit", "sys_exit")];
/// What each map is to its holders.
const MAPS: [(&str, ProgramPart); 5] = [
    ("workers", ProgramPart::Workers),
    ("layouts", ProgramPart::Layouts),
    ("counts", ProgramPart::Counts),
    ("events", ProgramPart::Ring),
    ("pages", ProgramPart::Pages),
];
/// How often a clock looks: out of step with what happens a hundred times in a second.
const CLOCK_PER_S: u64 = 99;
/// Page sizes that a ring may have, and its bounds.
const RING_BYTES: std::ops::RangeInclusive<u32> = 64 * 1024..=64 * 1024 * 1024;

/// Loads and starts the programs. They run as long as somebody holds the links, in whatever
/// process; nothing is pinned, and nothing stays behind in the kernel. Takes 30 to 110 ms,
/// most of it for the kernel's 5 MB of types, which are forgotten again; blocks.
///
/// The privileges that this takes are not needed any more by those who hold the parts, from
/// Linux 5.19 on.
///
/// # Errors
/// With the reason, and what to do about it. Nothing is left behind then.
pub fn load(settings: &Settings) -> Result<Vec<(ProgramPart, OwnedFd)>, Unavailable> {
    ladder::check_page_size()?;
    let btf = Btf::from_sys_fs().map_err(|e| ladder::no_btf(BTF, &e))?;
    let threshold = u64::try_from(settings.wait_threshold.as_nanos()).unwrap_or(u64::MAX);
    let ring_bytes = ring_bytes(settings.ring_bytes);
    let wake_bytes = u64::from(ring_bytes / 4);
    let mut programs = EbpfLoader::new()
        .btf(Some(&btf))
        // Statistics would be printed for programs that load, too.
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .allow_unsupported_maps()
        .override_global("wait_threshold_ns", &threshold, true)
        .override_global("ring_wake_bytes", &wake_bytes, true)
        .override_global("most_frames", &settings.frames, true)
        .map_max_entries("pages", settings.slots.max(1))
        .map_max_entries("events", ring_bytes)
        .load(OBJECT)
        .map_err(|e| ladder::explain("load the programs' maps", &e))?;
    let mut parts = Vec::new();
    for (name, part) in MAPS {
        let map = programs.map(name).and_then(data);
        let map = map.ok_or_else(|| ladder::bad_object(name))?;
        let map = map.fd().as_fd().try_clone_to_owned();
        parts.push((
            part,
            map.map_err(|e| ladder::explain("keep the programs' maps", &e))?,
        ));
    }
    let counters = COUNTERS.iter().filter(|_| settings.system_calls);
    let wanted: Vec<_> = PROGRAMS.iter().chain(counters).copied().collect();
    for (name, event) in &wanted {
        tracepoint(&mut programs, name)?
            .load(event, &btf)
            .map_err(|e| ladder::explain("load a program", &e))?;
    }
    // Only once all are loaded: one alone would account for nonsense.
    for (name, _) in &wanted {
        let program = tracepoint(&mut programs, name)?.fd();
        let program = program.map_err(|e| ladder::explain("attach a program", &e))?;
        let link = kernel::attach(program.as_fd());
        let link = link.map_err(|e| ladder::explain("attach a program", &e))?;
        parts.push((ProgramPart::Link, link));
    }
    parts.extend(
        clocks(&mut programs)
            .into_iter()
            .map(|clock| (ProgramPart::Clock, clock)),
    );
    Ok(parts)
}

/// The clocks of all CPUs, standing still. None if the kernel has none or does not give
/// them: all else works without. A CPU that is switched on later has none.
fn clocks(programs: &mut Ebpf) -> Vec<OwnedFd> {
    let program: Option<&mut PerfEvent> = programs
        .program_mut("on_clock")
        .and_then(|program| program.try_into().ok());
    let (Some(program), Ok(cpus)) = (program, online_cpus()) else {
        return Vec::new();
    };
    if program.load().is_err() {
        return Vec::new();
    }
    let Ok(program) = program.fd() else {
        return Vec::new();
    };
    let clock = |cpu| kernel::open_clock(program.as_fd(), cpu, CLOCK_PER_S);
    cpus.into_iter()
        .map(clock)
        .collect::<Result<_, _>>()
        .unwrap_or_default()
}

fn tracepoint<'a>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, Unavailable> {
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| ladder::bad_object(name))
}

/// A map of one of the kinds that there are here.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::RingBuf(data) | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}

fn ring_bytes(wanted: u32) -> u32 {
    wanted
        .clamp(*RING_BYTES.start(), *RING_BYTES.end())
        .next_power_of_two()
}
