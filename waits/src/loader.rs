//! The programs in the kernel, and all that is said to them and read from them.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, RingBuf};
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use glasspool_abi::zend::PhpBuild;
use rustix::time::{ClockId, clock_gettime};

use crate::kernel::{self, Pages, WorkerBytes};
use crate::ladder::{self, Unavailable};
use crate::layout::{Layout, layout};
use crate::record::Wait;
use crate::times::Times;
use crate::types;
use crate::{Drained, RegisterError, Settings, SlotIndex, WorkerId};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/waits.bpf.o"));

/// Where the kernel tells its types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Which program runs when.
const PROGRAMS: [(&str, &str); 2] = [("on_switch", "sched_switch"), ("on_wakeup", "sched_wakeup")];
/// A wait that is written while it is copied is tried again so often: each try is a
/// system call of a microsecond, and the programs write for a few.
const TRIES: u32 = 20;
/// Page sizes that a ring may have, and its bounds.
const RING_BYTES: std::ops::RangeInclusive<u32> = 64 * 1024..=64 * 1024 * 1024;

/// The programs, loaded and running. Dropping it ends them; nothing is pinned, and nothing
/// stays behind in the kernel.
///
/// The privileges that loading takes are not needed any more afterwards, from Linux 5.19 on.
pub struct Waits {
    /// Holds the programs and their links.
    _programs: Ebpf,
    workers: MapData,
    layouts: Array<MapData, Layout>,
    counts: Array<MapData, u64>,
    ring: RingBuf<MapData>,
    pages: Pages,
    slots: u32,
    /// What has been written to `layouts`, and where.
    known: HashMap<Layout, u32>,
    /// Records that were no records.
    malformed: u64,
}

impl Waits {
    /// Loads and starts the programs. Takes 30 to 100 ms, most of it for the kernel's 5 MB
    /// of types; blocks.
    ///
    /// # Errors
    /// With the reason, and what to do about it. Nothing is left behind then.
    pub fn load(settings: &Settings) -> Result<Waits, Unavailable> {
        ladder::check_page_size()?;
        let btf = Btf::from_sys_fs().map_err(|e| ladder::no_btf(BTF, &e))?;
        let threshold = u64::try_from(settings.wait_threshold.as_nanos()).unwrap_or(u64::MAX);
        let ring_bytes = ring_bytes(settings.ring_bytes);
        let wake_bytes = u64::from(ring_bytes / 4);
        let slots = settings.slots.max(1);
        let mut programs = EbpfLoader::new()
            .btf(Some(&btf))
            // Statistics would be printed for programs that load, too.
            .verifier_log_level(VerifierLogLevel::DEBUG)
            .allow_unsupported_maps()
            .override_global("wait_threshold_ns", &threshold, true)
            .override_global("ring_wake_bytes", &wake_bytes, true)
            .override_global("most_frames", &settings.frames, true)
            .map_max_entries("pages", slots)
            .map_max_entries("events", ring_bytes)
            .load(OBJECT)
            .map_err(|e| ladder::explain("load the programs' maps", &e))?;
        for (name, event) in PROGRAMS {
            let program = programs.program_mut(name);
            let program: &mut BtfTracePoint = program
                .and_then(|program| program.try_into().ok())
                .ok_or_else(|| ladder::bad_object(name))?;
            program
                .load(event, &btf)
                .map_err(|e| ladder::explain("load a program", &e))?;
        }
        // Programs hold the maps that they use; aya closes a map's descriptor with its value.
        let workers = match programs.take_map("workers") {
            Some(Map::Unsupported(map)) => map,
            _ => return Err(ladder::bad_object("workers")),
        };
        let pages = match programs.take_map("pages") {
            Some(Map::Array(map)) => {
                Pages::map(map.fd(), slots).map_err(|e| ladder::explain("map the slots' pages", &e))?
            }
            _ => return Err(ladder::bad_object("pages")),
        };
        let layouts = take(&mut programs, "layouts")?;
        let counts = take(&mut programs, "counts")?;
        let ring = take(&mut programs, "events")?;
        // Only once all are loaded: one alone would account for nonsense.
        for (name, _) in PROGRAMS {
            let program = programs.program_mut(name);
            let program: &mut BtfTracePoint = program
                .and_then(|program| program.try_into().ok())
                .ok_or_else(|| ladder::bad_object(name))?;
            program
                .attach()
                .map_err(|e| ladder::explain("attach a program", &e))?;
        }
        Ok(Waits {
            _programs: programs,
            workers,
            layouts,
            counts,
            ring,
            pages,
            slots,
            known: HashMap::new(),
            malformed: 0,
        })
    }

    /// How many workers can be registered at a time.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Watches the process of a pidfd from its next switch on; with its PHP, also which
    /// lines wait. Its first thread only, which is the one that runs PHP. It ends with the
    /// process, or by [`Waits::unregister`]. Takes some microseconds.
    ///
    /// The slot must not belong to another worker that is registered.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn register(
        &mut self,
        pidfd: impl AsFd,
        worker: WorkerId,
        slot: SlotIndex,
        php: Option<&PhpBuild>,
    ) -> Result<(), RegisterError> {
        if slot.0 >= self.slots {
            return Err(RegisterError::NoSlot {
                worker,
                slot,
                slots: self.slots,
            });
        }
        let (current, layout) = match php {
            Some(build) => {
                let offset = u64::from(build.layout.eg_current_execute_data);
                let current = build.executor_globals.wrapping_add(offset);
                (current, self.layout(worker, build)?)
            }
            None => (0, 0),
        };
        let mut value: WorkerBytes = [0; types::WORKER_BYTES as usize];
        let head = [
            worker.0.to_ne_bytes(),
            current.to_ne_bytes(),
            join(slot.0, layout),
        ];
        for (place, word) in value.chunks_exact_mut(8).zip(head) {
            place.copy_from_slice(&word);
        }
        kernel::insert_worker(self.workers.fd(), pidfd.as_fd(), &value)
            .map_err(|source| refused(worker, "watch the waits", source))
    }

    /// Watches a process no longer. No error if it was not watched, or has ended.
    ///
    /// # Errors
    /// Only those of the kernel.
    pub fn unregister(&mut self, pidfd: impl AsFd, worker: WorkerId) -> Result<(), RegisterError> {
        match kernel::remove_worker(self.workers.fd(), pidfd.as_fd())
            .map_err(|source| refused(worker, "end watching the waits", source))
        {
            Err(RegisterError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    /// Where the time of the worker in a slot went until now: its last worker's, once it
    /// has ended. Reads memory only. `None` if there is no such slot, or if its page never
    /// stands still.
    #[must_use]
    pub fn times(&self, slot: SlotIndex) -> Option<Times> {
        let bytes = self.pages.times(slot)?;
        Some(Times::parse(&bytes, now_ns()))
    }

    /// The same from where the worker cannot write: two system calls, some microseconds.
    /// `None` if it is not registered any more.
    #[must_use]
    pub fn times_of(&self, pidfd: impl AsFd) -> Option<Times> {
        let value = self.read(pidfd.as_fd())?;
        let at = types::WORKER_TIMES_AT as usize;
        let bytes = value.get(at..)?.first_chunk()?;
        Some(Times::parse(bytes, now_ns()))
    }

    /// The wait that a worker is in now, with its stack; however short it is so far.
    /// `None` if it is not blocked or not registered. Two system calls, some microseconds;
    /// the worker is neither stopped nor touched.
    #[must_use]
    pub fn going_on(&self, pidfd: impl AsFd) -> Option<Wait> {
        let value = self.read(pidfd.as_fd())?;
        let at = types::WORKER_TIMES_AT as usize;
        let times = Times::parse(value.get(at..)?.first_chunk()?, 0);
        let crate::times::State::Blocked(_) = times.state else {
            return None;
        };
        Wait::parse(value.get(types::WORKER_WAIT_AT as usize..)?)
    }

    /// Tells the waits that have ended since the last turn, oldest first, at most `most`:
    /// a turn's work is bounded. Never blocks.
    pub fn drain(&mut self, most: usize, mut tell: impl FnMut(Wait)) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..most {
            let Some(item) = self.ring.next() else {
                return drained;
            };
            match Wait::parse(&item) {
                Some(wait) => {
                    drained.waits += 1;
                    tell(wait);
                }
                None => self.malformed += 1,
            }
        }
        drained.more = true;
        drained
    }

    /// Readable once a quarter of the ring is full. Below that its reader comes by itself.
    #[must_use]
    pub fn ring(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// Records lost so far because the ring was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.count(types::COUNT_RING_FULL)
    }

    /// Times, so far, that a worker was woken or got a CPU and the kernel did not tell. It
    /// seems to be blocked or to wait for a CPU until it leaves that one; then the
    /// scheduler's own counters say what it did, and the times are right again.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.count(types::COUNT_MISSED)
    }

    /// Times, so far, that a worker left a CPU and the kernel did not tell, for which
    /// nothing makes up: it seems to have run instead. 0 is expected.
    #[must_use]
    pub fn odd(&self) -> u64 {
        self.count(types::COUNT_ODD)
    }

    /// Records that were none, so far. 0 is expected.
    #[must_use]
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    fn count(&self, place: u32) -> u64 {
        self.counts.get(&place, 0).unwrap_or(0)
    }

    /// The place of a build's layout, which is written where it is new.
    fn layout(&mut self, worker: WorkerId, build: &PhpBuild) -> Result<u32, RegisterError> {
        let layout = layout(worker, build)?;
        if let Some(&place) = self.known.get(&layout) {
            return Ok(place);
        }
        let place = u32::try_from(self.known.len())
            .ok()
            .filter(|&place| place < types::LAYOUTS)
            .ok_or(RegisterError::TooManyLayouts {
                worker,
                most: types::LAYOUTS,
            })?;
        self.layouts
            .set(place, layout, 0)
            .map_err(|e| RegisterError::Kernel {
                worker,
                what: "tell the offsets of PHP",
                source: io::Error::other(e),
            })?;
        self.known.insert(layout, place);
        Ok(place)
    }

    /// A worker's storage, all of one moment: the number of changes is the first that is
    /// copied, and is the same in a second copy.
    fn read(&self, pidfd: BorrowedFd<'_>) -> Option<Box<WorkerBytes>> {
        let at = types::WORKER_SEQUENCE_AT as usize;
        let sequence = |value: &WorkerBytes| {
            let word = value.get(at..).and_then(<[u8]>::first_chunk);
            word.map_or(1, |word| u64::from_ne_bytes(*word))
        };
        let mut first: Box<WorkerBytes> = Box::new([0; types::WORKER_BYTES as usize]);
        let mut second = first.clone();
        for _ in 0..TRIES {
            kernel::read_worker(self.workers.fd(), pidfd, &mut first).ok()?;
            kernel::read_worker(self.workers.fd(), pidfd, &mut second).ok()?;
            if sequence(&first) == sequence(&second) && sequence(&first) % 2 == 0 {
                return Some(first);
            }
        }
        None
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waits")
            .field("slots", &self.slots)
            .field("layouts", &self.known.len())
            .field("malformed", &self.malformed)
            .finish_non_exhaustive()
    }
}

fn take<T: TryFrom<Map>>(programs: &mut Ebpf, name: &'static str) -> Result<T, Unavailable> {
    programs
        .take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .ok_or_else(|| ladder::bad_object(name))
}

fn refused(worker: WorkerId, what: &'static str, source: io::Error) -> RegisterError {
    match source.raw_os_error() {
        // ENOENT: its pidfd stands for no task any more. ESRCH: it is being released.
        Some(libc::ENOENT | libc::ESRCH) => RegisterError::Gone(worker),
        _ => RegisterError::Kernel { worker, what, source },
    }
}

/// Two halves of a word as the kernel sees them in memory.
fn join(first: u32, second: u32) -> [u8; 8] {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    std::array::from_fn(|index| match index {
        0..4 => first[index],
        _ => second[index - 4],
    })
}

fn ring_bytes(wanted: u32) -> u32 {
    wanted
        .clamp(*RING_BYTES.start(), *RING_BYTES.end())
        .next_power_of_two()
}

/// Of the clock that the programs read (bpf_ktime_get_ns).
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    );
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
