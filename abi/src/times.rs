//! Where a worker's time goes: on a CPU, waiting for one, or blocked, and then for what.
//! As the kernel programs of `waits` account for it, in a page that the worker maps.
//!
//! Writers of a page: the kernel programs, and of two words of it ([`TimesPage::set_request`],
//! [`TimesPage::set_connection`]) the worker. Readers: the worker, for its own requests; the observer, for whom what a
//! worker says of its times is hostile: any words are times, sums saturate.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::mapping::{MapError, Words};

/// Things to be blocked for: network, disk, lock, sleep, pipe, other; in this order.
pub const CAUSES: usize = 6;

/// Bytes of a page, which is a value of the programs' map.
pub const PAGE_BYTES: usize = 4096;
/// Where in a page the worker writes its request, in words.
pub const REQUEST: usize = 0;
/// Where it writes which descriptor its requests come by, in words: 1 more, 0 for none.
pub const CONNECTION: usize = 1;
/// Where the programs' sequence counter is, odd while they write, in words.
pub const SEQUENCE: usize = 8;
/// Where the times begin, in words: [`RAW_WORDS`] of them.
pub const TIMES: usize = 9;
/// since when; the last change; state and, in the upper half, cause; time on a CPU, on the
/// run queue, blocked by cause; blocks, records written, records lost; what the scheduler
/// says the worker had run when it left a CPU the last time; of system calls how many, how
/// long, bytes sent and received.
pub const RAW_WORDS: usize = 19;

/// Since when times are counted, nanoseconds of `CLOCK_MONOTONIC`. This and the following
/// are places in the [`RAW_WORDS`], in words.
pub const BEGAN: usize = 0;
/// When the state changed the last time; see [`BEGAN`].
pub const SINCE: usize = 1;
/// State and cause; see [`BEGAN`].
pub const STATE: usize = 2;
/// Time on a CPU; see [`BEGAN`].
pub const ON_CPU: usize = 3;
/// Time on the run queue; see [`BEGAN`].
pub const RUNQUEUE: usize = 4;
/// Time blocked for the first of the [`CAUSES`]; see [`BEGAN`].
pub const BLOCKED: usize = 5;
/// Blocks; see [`BEGAN`].
pub const WAITS: usize = BLOCKED + CAUSES;
/// Records written; see [`BEGAN`].
pub const WRITTEN: usize = WAITS + 1;
/// Records lost; see [`BEGAN`].
pub const LOST: usize = WRITTEN + 1;
/// What the worker had run when it left a CPU the last time; see [`BEGAN`].
pub const RAN: usize = LOST + 1;
/// System calls in requests; see [`BEGAN`]. This and the next three are zero unless they are
/// counted.
pub const CALLS: usize = RAN + 1;
/// Time in them, waits included; see [`BEGAN`].
pub const CALLS_NS: usize = CALLS + 1;
/// Bytes that they sent to sockets; see [`BEGAN`].
pub const SENT: usize = CALLS_NS + 1;
/// And received from sockets; see [`BEGAN`].
pub const RECEIVED: usize = SENT + 1;
const _: () = assert!(RECEIVED + 1 == RAW_WORDS);

/// What the sequence counter is once a page was begun, and the programs go on from.
pub const BEGUN_SEQUENCE: u64 = 2;

/// Values of a page's state.
pub const STATE_ON_CPU: u32 = 1;
/// See [`STATE_ON_CPU`].
pub const STATE_RUNQUEUE: u32 = 2;
/// See [`STATE_ON_CPU`].
pub const STATE_BLOCKED: u32 = 3;

/// Readings of a page that is written meanwhile; programs write it in less than a
/// microsecond, and only while the worker itself is switched.
const TRIES: usize = 16;

/// Times that have passed, in nanoseconds: totals up to a moment, or what lies between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// On a CPU; with what interrupts and the hypervisor took meanwhile.
    pub on_cpu_ns: u64,
    /// Could go on, and waited for a CPU.
    pub runqueue_ns: u64,
    /// Blocked, for each of the [`CAUSES`].
    pub blocked_ns: [u64; CAUSES],
    /// Times that it blocked.
    pub waits: u64,
    /// Waits that were told as records.
    pub written: u64,
    /// Waits that should have been, and for which the ring had no room.
    pub lost: u64,
    /// System calls in requests. This and the next three are zero unless they are counted.
    pub calls: u64,
    /// Time in them, waits included.
    pub calls_ns: u64,
    /// Bytes that they sent to sockets other than the request's own connection.
    pub sent: u64,
    /// And received from such.
    pub received: u64,
}

impl Times {
    /// Words that times are in records.
    pub const WORDS: usize = CAUSES + 9;

    /// All of it, on a CPU or not.
    pub fn total_ns(&self) -> u64 {
        self.blocked_total_ns()
            .saturating_add(self.on_cpu_ns)
            .saturating_add(self.runqueue_ns)
    }

    /// Blocked for whatever cause.
    pub fn blocked_total_ns(&self) -> u64 {
        self.blocked_ns.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// What has passed since an earlier reading. The sum is exact: where the programs have
    /// corrected themselves in between (a switch that the kernel did not tell of is made up
    /// for later), what one part has become less by comes off those that have become more by
    /// it: the time on a CPU, if it was on one after all, else that on the run queue.
    pub fn since(&self, earlier: &Times) -> Times {
        let mut debt = 0u64;
        let mut part = |now: u64, then: u64| {
            debt = debt.saturating_add(then.saturating_sub(now));
            now.saturating_sub(then)
        };
        let on_cpu_ns = part(self.on_cpu_ns, earlier.on_cpu_ns);
        let runqueue_ns = part(self.runqueue_ns, earlier.runqueue_ns);
        let blocked_ns: [u64; CAUSES] =
            std::array::from_fn(|cause| part(self.blocked_ns[cause], earlier.blocked_ns[cause]));
        let mut paid = |part: u64| {
            let paid = part.min(debt);
            debt -= paid;
            part - paid
        };
        Times {
            on_cpu_ns: paid(on_cpu_ns),
            runqueue_ns: paid(runqueue_ns),
            blocked_ns: blocked_ns.map(paid),
            waits: self.waits.saturating_sub(earlier.waits),
            written: self.written.saturating_sub(earlier.written),
            lost: self.lost.saturating_sub(earlier.lost),
            calls: self.calls.saturating_sub(earlier.calls),
            calls_ns: self.calls_ns.saturating_sub(earlier.calls_ns),
            sent: self.sent.saturating_sub(earlier.sent),
            received: self.received.saturating_sub(earlier.received),
        }
    }

    /// As they are in a record.
    pub fn to_words(&self) -> [u64; Times::WORDS] {
        let mut words = [0; Times::WORDS];
        words[0] = self.on_cpu_ns;
        words[1] = self.runqueue_ns;
        words[2..2 + CAUSES].copy_from_slice(&self.blocked_ns);
        words[2 + CAUSES..].copy_from_slice(&[
            self.waits,
            self.written,
            self.lost,
            self.calls,
            self.calls_ns,
            self.sent,
            self.received,
        ]);
        words
    }

    /// From a record.
    pub fn from_words(words: &[u64; Times::WORDS]) -> Times {
        Times {
            on_cpu_ns: words[0],
            runqueue_ns: words[1],
            blocked_ns: std::array::from_fn(|cause| words[2 + cause]),
            waits: words[2 + CAUSES],
            written: words[3 + CAUSES],
            lost: words[4 + CAUSES],
            calls: words[5 + CAUSES],
            calls_ns: words[6 + CAUSES],
            sent: words[7 + CAUSES],
            received: words[8 + CAUSES],
        }
    }

    /// From the raw words of a page, continued until `now_ns`; `None` before the first
    /// switch after the registration, if the page was not begun. `ran_ns` is asked for only if the page does not say
    /// that the process is on a CPU: what it has run in its life, by its own CPU clock, if
    /// it is known that it runs nevertheless (it is the reader). That happens where the
    /// kernel did not tell of a switch.
    pub fn of_raw(
        raw: &[u64; RAW_WORDS],
        now_ns: u64,
        ran_ns: impl FnOnce() -> Option<u64>,
    ) -> Option<(Times, u64)> {
        let halves = raw[STATE].to_ne_bytes();
        let half =
            |at: usize| u32::from_ne_bytes([halves[at], halves[at + 1], halves[at + 2], halves[at + 3]]);
        let (state, cause) = (half(0), half(4));
        let mut times = Times {
            on_cpu_ns: raw[ON_CPU],
            runqueue_ns: raw[RUNQUEUE],
            blocked_ns: std::array::from_fn(|cause| raw[BLOCKED + cause]),
            waits: raw[WAITS],
            written: raw[WRITTEN],
            lost: raw[LOST],
            calls: raw[CALLS],
            calls_ns: raw[CALLS_NS],
            sent: raw[SENT],
            received: raw[RECEIVED],
        };
        let mut passed = now_ns.saturating_sub(raw[SINCE]);
        if matches!(state, STATE_RUNQUEUE | STATE_BLOCKED)
            && let Some(ran_ns) = ran_ns()
        {
            let ran = ran_ns.saturating_sub(raw[RAN]).min(passed);
            times.on_cpu_ns = times.on_cpu_ns.saturating_add(ran);
            passed -= ran;
        }
        let place = match state {
            STATE_ON_CPU => &mut times.on_cpu_ns,
            STATE_RUNQUEUE => &mut times.runqueue_ns,
            STATE_BLOCKED => {
                let cause = usize::try_from(cause).unwrap_or(CAUSES);
                &mut times.blocked_ns[cause.min(CAUSES - 1)]
            }
            _ => return None,
        };
        *place = place.saturating_add(passed);
        Some((times, raw[BEGAN]))
    }
}

/// How much is known of where a request's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// Nothing but how long it took.
    #[default]
    Nothing,
    /// How long it waited for a CPU, as the scheduler's own counters say, nanoseconds.
    RunQueue(u64),
    /// All of it. The sum is the request's time.
    All(Times),
}

/// One worker's page.
#[derive(Debug)]
pub struct TimesPage {
    words: Words,
}

impl TimesPage {
    /// Maps the page of that number of the programs' map, writable.
    ///
    /// # Errors
    /// Those of mmap(2): the kernel refuses a page that the map does not have.
    pub fn map(map: impl AsFd, page: u32) -> Result<TimesPage, MapError> {
        let words = Words::map_value(map, u64::from(page) * PAGE_BYTES as u64, PAGE_BYTES)?;
        Ok(TimesPage { words })
    }

    /// Says which request is under way, 0 for none: it is on the records of the waits that
    /// begin from now on. One store.
    pub fn set_request(&self, number: u64) {
        if let Some(word) = self.words.get(REQUEST) {
            word.store(number, Ordering::Relaxed);
        }
    }

    /// Says by which descriptor the request under way came and is answered, so that waits for
    /// it are told from waits for others. One store.
    pub fn set_connection(&self, descriptor: Option<i32>) {
        let word = descriptor.and_then(|number| u64::try_from(number).ok());
        if let Some(place) = self.words.get(CONNECTION) {
            place.store(word.map_or(0, |number| number + 1), Ordering::Relaxed);
        }
    }

    /// Says of a worker that is about to be watched that it is on a CPU since `began_ns` of
    /// `CLOCK_MONOTONIC`; for a clear page. Whoever reads this is its worker, and the programs
    /// have not told of a switch yet, so it is true: its first request may begin and end
    /// before it ever leaves its CPU.
    pub fn begin(&self, began_ns: u64) {
        let word = |at: usize| self.words.get(at);
        let (Some(sequence), Some(began), Some(since), Some(state)) = (
            word(SEQUENCE),
            word(TIMES + BEGAN),
            word(TIMES + SINCE),
            word(TIMES + STATE),
        ) else {
            return;
        };
        sequence.store(BEGUN_SEQUENCE - 1, Ordering::Relaxed);
        fence(Ordering::Release);
        began.store(began_ns, Ordering::Relaxed);
        since.store(began_ns, Ordering::Relaxed);
        let mut halves = [0; 8];
        halves[..4].copy_from_slice(&STATE_ON_CPU.to_ne_bytes());
        state.store(u64::from_ne_bytes(halves), Ordering::Relaxed);
        sequence.store(BEGUN_SEQUENCE, Ordering::Release);
    }

    /// Forgets what the page says of its last worker, before another one has it; nobody
    /// may be watched there now. Whether there is such a page.
    pub fn clear(&self) -> bool {
        let words = self.words.slice(0, TIMES + RAW_WORDS);
        let words = words.inspect(|words| words.iter().for_each(|word| word.store(0, Ordering::Relaxed)));
        words.is_some()
    }

    /// The totals at `now_ns` of `CLOCK_MONOTONIC`; only for the process whose page it is,
    /// as this reads for somebody who runs (see [`Times::of_raw`]). `None` before its first
    /// switch unless its page was begun, if accounting began after `not_after_ns`, and if it
    /// was switched after `now_ns`: then the clock wants to be read anew. Some tens of
    /// nanoseconds.
    pub fn read(
        &self,
        now_ns: u64,
        not_after_ns: u64,
        ran_ns: impl FnOnce() -> Option<u64>,
    ) -> Option<Times> {
        let raw = self.raw()?;
        let (times, began_ns) = Times::of_raw(&raw, now_ns, ran_ns)?;
        (began_ns <= not_after_ns && raw[SINCE] <= now_ns).then_some(times)
    }

    fn raw(&self) -> Option<[u64; RAW_WORDS]> {
        let sequence: &AtomicU64 = self.words.get(SEQUENCE)?;
        let words = self.words.slice(TIMES, RAW_WORDS)?;
        for _ in 0..TRIES {
            let before = sequence.load(Ordering::Acquire);
            let mut raw = [0; RAW_WORDS];
            for (place, word) in raw.iter_mut().zip(words) {
                *place = word.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if before & 1 == 0 && before == sequence.load(Ordering::Relaxed) {
                return Some(raw);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a CPU since 5000.
    fn raw(state: u32, cause: u32) -> [u64; RAW_WORDS] {
        let mut raw = [0; RAW_WORDS];
        raw[BEGAN] = 1000;
        raw[SINCE] = 5000;
        let (state, cause) = (state.to_ne_bytes(), cause.to_ne_bytes());
        raw[STATE] = u64::from_ne_bytes(std::array::from_fn(|at| {
            if at < 4 { state[at] } else { cause[at - 4] }
        }));
        (raw[ON_CPU], raw[RUNQUEUE], raw[BLOCKED + 3], raw[RAN]) = (1000, 500, 2500, 70);
        raw
    }

    #[test]
    fn what_goes_on_is_counted_until_now() {
        let read = |state, cause, ran| {
            let (times, began) = Times::of_raw(&raw(state, cause), 5600, || ran).expect("has begun");
            assert_eq!(times.total_ns(), 5600 - began);
            (times.on_cpu_ns, times.runqueue_ns, times.blocked_ns[1])
        };
        assert_eq!(read(STATE_ON_CPU, 0, Some(999)), (1600, 500, 0));
        assert_eq!(read(STATE_RUNQUEUE, 0, None), (1000, 1100, 0));
        assert_eq!(read(STATE_RUNQUEUE, 0, Some(70 + 550)), (1550, 550, 0));
        assert_eq!(read(STATE_BLOCKED, 1, Some(70 + 10)), (1010, 500, 590));
        assert_eq!(read(STATE_BLOCKED, 1, Some(u64::MAX)), (1600, 500, 0));
        assert_eq!(Times::of_raw(&raw(0, 0), 5600, || None), None);
    }

    #[test]
    fn a_page_that_was_begun_tells_of_its_worker_before_the_first_switch() {
        let map = crate::create_slot_memory(2 * PAGE_BYTES).expect("a memory file");
        let page = TimesPage::map(&map, 1).expect("maps");
        assert_eq!(page.read(5600, 5600, || None), None);
        page.begin(5000);
        let on_cpu = |ns| Times {
            on_cpu_ns: ns,
            ..Times::default()
        };
        assert_eq!(page.read(5600, 5600, || None), Some(on_cpu(600)));
        assert_eq!(page.read(5600, 4999, || None), None, "it began before");
        assert!(page.clear());
        assert_eq!(page.read(5600, 5600, || None), None);
    }

    #[test]
    fn a_correction_in_between_does_not_change_the_sum() {
        let then = Times {
            on_cpu_ns: 100,
            runqueue_ns: 900,
            ..Times::default()
        };
        // It had run all the while, and goes on for 500.
        let now = Times {
            on_cpu_ns: 1_400,
            runqueue_ns: 100,
            ..Times::default()
        };
        let between = now.since(&then);
        assert_eq!(
            (between.on_cpu_ns, between.runqueue_ns, between.total_ns()),
            (500, 0, 500)
        );
        // It was thought to run before `then`, and had waited for a CPU; since then 600.
        let now = Times {
            on_cpu_ns: 0,
            runqueue_ns: 1_550,
            blocked_ns: [0, 50, 0, 0, 0, 0],
            ..Times::default()
        };
        let between = now.since(&then);
        assert_eq!(
            (between.on_cpu_ns, between.runqueue_ns, between.total_ns()),
            (0, 550, 600)
        );
    }

    #[test]
    fn nonsense_saturates_and_survives_the_way() {
        let wild = [u64::MAX; RAW_WORDS];
        assert_eq!(Times::of_raw(&wild, 3, || None), None);
        let mut wild = wild;
        wild[STATE] = u64::from_ne_bytes([3, 0, 0, 0, 255, 255, 255, 255]);
        let (times, _) = Times::of_raw(&wild, u64::MAX, || None).expect("blocked");
        assert_eq!(times.total_ns(), u64::MAX);
        assert_eq!(Times::from_words(&times.to_words()), times);
        assert_eq!(times.since(&times), Times::default());
    }
}
