//! Where the time of a request went, as far as this machine tells: from the page that the
//! kernel programs keep for this worker; without one, from the scheduler's own counter.
//!
//! With a page a request costs no system call more, only reads of memory. The counter is
//! read when a request begins, and at its end only if it has waited for something.

use std::fs::File;
use std::os::fd::OwnedFd;

use glasspool_abi::times::{Known, Times, TimesPage};

use super::clock;

/// The time is taken anew if this worker was switched between the clock and the page, so
/// that both are of one moment. That takes less than a microsecond.
const TRIES: usize = 4;
/// A request that was off the CPU for less has not waited for one long enough to tell.
const LEAST_OFF_CPU_NS: u64 = 1_000_000;
/// Longer than three numbers are.
const COUNTER_BYTES: usize = 96;

/// See the module.
#[derive(Debug)]
pub(crate) struct Account {
    source: Source,
    /// Whether this is a child of the worker, whose page it shares and must not touch.
    is_forked: fn() -> bool,
}

#[derive(Debug)]
enum Source {
    /// `began` are the totals when the request under way began, if they are known.
    Page { page: TimesPage, began: Option<Times> },
    /// `/proc/self/schedstat`.
    Counter { file: File, began_ns: Option<u64> },
    /// Nothing tells, or nobody asks.
    None,
}

impl Account {
    /// From the kernel programs' map and the number of this worker's page, if there is
    /// one. Without, and if spans are made, the scheduler's counter is opened.
    pub(crate) fn of(page: Option<(OwnedFd, u32)>, tracing: bool, is_forked: fn() -> bool) -> Account {
        let mapped = page.and_then(|(map, number)| TimesPage::map(map, number).ok());
        let source = match mapped {
            Some(page) => Source::Page { page, began: None },
            None if tracing => match File::open("/proc/self/schedstat") {
                Ok(file) => Source::Counter { file, began_ns: None },
                Err(_) => Source::None,
            },
            None => Source::None,
        };
        Account { source, is_forked }
    }

    /// Whether this process is a copy of the worker that its script has forked: what it shares
    /// with the worker is the worker's to write. Cost: one load.
    pub(crate) fn is_copy(&self) -> bool {
        (self.is_forked)()
    }

    /// A request begins. Its number is on the records of its waits. Returns wall clock and
    /// monotonic clock, nanoseconds.
    pub(crate) fn begin(&mut self, number: u64) -> (u64, u64) {
        let mut now = (clock::unix_ns(), clock::monotonic_ns());
        match &mut self.source {
            Source::Page { page, began } if !(self.is_forked)() => {
                page.set_request(number);
                for _ in 0..TRIES {
                    *began = page.read(now.1, now.1, own_cpu);
                    if began.is_some() {
                        break;
                    }
                    now = (clock::unix_ns(), clock::monotonic_ns());
                }
            }
            Source::Page { began, .. } => *began = None,
            Source::Counter { file, began_ns } => *began_ns = waited_ns(file),
            Source::None => {}
        }
        now
    }

    /// Requests come by this descriptor from now on; or by none, which must be said before
    /// the application can have one of that number.
    pub(crate) fn set_connection(&self, descriptor: Option<i32>) {
        match &self.source {
            Source::Page { page, .. } if !(self.is_forked)() => page.set_connection(descriptor),
            Source::Page { .. } | Source::Counter { .. } | Source::None => {}
        }
    }

    /// The totals when the request under way began.
    pub(crate) fn at_begin(&self) -> Option<&Times> {
        match &self.source {
            Source::Page { began, .. } => began.as_ref(),
            Source::Counter { .. } | Source::None => None,
        }
    }

    /// The request that began at `began_mono_ns`, and has had so much CPU time, ends.
    /// Returns the monotonic clock, and where its time until then went.
    pub(crate) fn end(&mut self, began_mono_ns: u64, cpu_ns: u64) -> (u64, Known) {
        let told = self.so_far(began_mono_ns, cpu_ns);
        self.abandon();
        told
    }

    /// As [`Account::end`], of the request under way until now; it goes on. Costs a few reads
    /// of memory, or without a page a system call if it has waited for something.
    pub(crate) fn so_far(&self, began_mono_ns: u64, cpu_ns: u64) -> (u64, Known) {
        let mut now = clock::monotonic_ns();
        let known = match &self.source {
            Source::Page {
                page,
                began: Some(began),
            } if !(self.is_forked)() => {
                let mut known = Known::Nothing;
                for _ in 0..TRIES {
                    if let Some(times) = page.read(now, began_mono_ns, own_cpu) {
                        known = Known::All(times.since(began));
                        break;
                    }
                    now = clock::monotonic_ns();
                }
                known
            }
            Source::Counter { file, began_ns } => {
                let off_cpu_ns = now.saturating_sub(began_mono_ns).saturating_sub(cpu_ns);
                let began_ns = began_ns.filter(|_| off_cpu_ns >= LEAST_OFF_CPU_NS);
                let waited_ns = began_ns.and_then(|began| Some(waited_ns(file)?.saturating_sub(began)));
                waited_ns.map_or(Known::Nothing, Known::RunQueue)
            }
            Source::Page { .. } | Source::None => Known::Nothing,
        };
        (now, known)
    }

    /// What had begun is over, or was no request.
    pub(crate) fn abandon(&mut self) {
        match &mut self.source {
            Source::Page { page, began } => {
                *began = None;
                if !(self.is_forked)() {
                    page.set_request(0);
                }
            }
            Source::Counter { began_ns, .. } => *began_ns = None,
            Source::None => {}
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
fn own_cpu() -> Option<u64> {
    Some(clock::ran_ns())
}

/// How long this worker has waited for a CPU in its life: the second of three numbers
/// (`proc_pid_schedstat()` in the kernel's fs/proc/base.c). One system call.
fn waited_ns(file: &File) -> Option<u64> {
    let mut bytes = [0; COUNTER_BYTES];
    let count = rustix::io::pread(file, &mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..count)?).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use glasspool_abi::times::{self, PAGE_BYTES, REQUEST, SEQUENCE, TIMES};

    use super::*;

    /// Memory in place of the map, with two pages.
    struct Map(OwnedFd);

    impl Map {
        fn new() -> Map {
            Map(glasspool_abi::create_slot_memory(2 * PAGE_BYTES).expect("a memory file"))
        }

        fn account(&self, is_forked: fn() -> bool) -> Account {
            let map = self.0.as_fd().try_clone_to_owned().expect("a descriptor");
            Account::of(Some((map, 1)), true, is_forked)
        }

        fn write(&self, word: usize, value: u64) {
            let at = (PAGE_BYTES + word * 8) as u64;
            rustix::io::pwrite(&self.0, &value.to_ne_bytes(), at).expect("writes");
        }

        fn request(&self) -> u64 {
            let mut word = [0; 8];
            let at = (PAGE_BYTES + REQUEST * 8) as u64;
            rustix::io::pread(&self.0, &mut word, at).expect("reads");
            u64::from_ne_bytes(word)
        }

        /// As the programs say of a worker that runs, and has been blocked before.
        fn runs_since(&self, began_ns: u64, since_ns: u64) {
            self.write(TIMES + times::BEGAN, began_ns);
            self.write(TIMES + times::SINCE, since_ns);
            self.write(TIMES + times::STATE, u64::from(times::STATE_ON_CPU));
            self.write(TIMES + times::BLOCKED, since_ns - began_ns);
        }
    }

    #[test]
    fn the_parts_add_up_to_the_requests_time_exactly() {
        let map = Map::new();
        let mut account = map.account(|| false);
        let before = clock::monotonic_ns();
        map.runs_since(before - 5_000, before - 1_000);
        let (_, began_ns) = account.begin(7);
        assert_eq!(map.request(), 7);
        assert_eq!(
            account.at_begin().expect("known").total_ns(),
            began_ns - (before - 5_000)
        );
        // It blocked for a while, and runs again.
        let since_ns = clock::monotonic_ns();
        map.write(TIMES + times::ON_CPU, began_ns - (before - 1_000) + 100);
        map.write(TIMES + times::BLOCKED, 4_000 + (since_ns - began_ns - 100));
        map.write(TIMES + times::SINCE, since_ns);
        let (now_ns, so_far) = account.so_far(began_ns, 0);
        let Known::All(times) = so_far else {
            panic!("{so_far:?}")
        };
        assert_eq!(times.total_ns(), now_ns - began_ns);
        assert_eq!(map.request(), 7, "it goes on");
        let (ended_ns, known) = account.end(began_ns, 0);
        let Known::All(times) = known else {
            panic!("{known:?}")
        };
        assert_eq!(times.total_ns(), ended_ns - began_ns);
        assert_eq!(times.blocked_ns[0], since_ns - began_ns - 100);
        assert_eq!(map.request(), 0);
    }

    #[test]
    fn a_page_that_does_not_stand_still_or_was_begun_too_late_tells_nothing() {
        let map = Map::new();
        let mut account = map.account(|| false);
        let (_, began_ns) = account.begin(1);
        assert_eq!(account.at_begin(), None, "nobody watches yet");
        map.runs_since(began_ns, clock::monotonic_ns());
        assert_eq!(account.end(began_ns, 0).1, Known::Nothing);

        account.begin(2);
        assert!(account.at_begin().is_some());
        map.write(SEQUENCE, 1);
        assert_eq!(account.end(clock::monotonic_ns(), 0).1, Known::Nothing);
        map.write(SEQUENCE, 2);
        map.write(TIMES + times::SINCE, u64::MAX);
        account.begin(3);
        assert_eq!(
            account.at_begin(),
            None,
            "it was switched after every reading of the clock"
        );
    }

    #[test]
    fn a_child_that_the_application_has_forked_leaves_the_page_alone() {
        let map = Map::new();
        map.write(REQUEST, 9);
        let mut account = map.account(|| true);
        let (_, began_ns) = account.begin(1);
        assert_eq!(account.end(began_ns, 0).1, Known::Nothing);
        account.abandon();
        assert_eq!(map.request(), 9);
    }

    #[test]
    fn without_a_page_the_scheduler_says_how_long_it_waited() {
        let mut account = Account::of(None, true, || false);
        let (_, began_ns) = account.begin(1);
        assert_eq!(
            account.end(began_ns, 0).1,
            Known::Nothing,
            "it has not waited at all"
        );
        account.begin(2);
        let long_ago = clock::monotonic_ns() - 2 * LEAST_OFF_CPU_NS;
        assert!(matches!(account.end(long_ago, 0).1, Known::RunQueue(_)));
        assert_eq!(
            account.end(long_ago, 0).1,
            Known::Nothing,
            "that request has ended"
        );
        let mut account = Account::of(None, false, || false);
        account.begin(1);
        assert_eq!(account.end(long_ago, 0).1, Known::Nothing, "nobody asks");
    }
}
