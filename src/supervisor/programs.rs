//! The programs in the kernel that account for workers' time, as the supervisor holds
//! them: each worker has a page of theirs, and observers get their ring of records.
//!
//! They run as long as somebody holds their parts: the supervisor, while its
//! configuration wants them, and the pages of workers that began with them. So they
//! outlive observers and reloads, and nothing of them is left when the supervisor is
//! gone, however it ends. `loading` is about how they come here.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasspool_abi::WorkerId;
use glasspool_abi::control::{LoadPrograms, ProgramPart, WaitPrograms};
use glasspool_abi::times::TimesPage;
use glasspool_abi::zend::PhpBuild;
use glasspool_waits::{RegisterError, Roster, SlotIndex};

use super::monotonic_ns;
use super::pages::Pages;
use super::process::Child;
use crate::config::{EbpfMode, Settings};
use crate::logs::ErrorLog;

/// Pages beside two for each worker that there may be: a reload has old and new ones, and
/// what is unread of those that are gone.
const SPARE_PAGES: u32 = 64;
/// Each takes 4 KiB of the kernel's memory.
const PAGES: std::ops::RangeInclusive<u32> = 256..=65_536;
/// Room for some hundred waits with their stacks; an observer reads them as often as the
/// workers' own rings, and at once when a quarter is full.
const RING_BYTES: u32 = 1 << 20;
/// Between two lines of the same kind.
const SELDOM: Duration = Duration::from_secs(60);

/// What a reading of the configuration wants of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) asked: LoadPrograms,
    /// Without them there is no start, and no reload.
    pub(super) required: bool,
}

impl Wish {
    /// `None` where nobody would see what they tell.
    pub(super) fn of(settings: &Settings, spans_are_made: bool) -> Option<Wish> {
        let ebpf = &settings.overlay.ebpf;
        if !spans_are_made || ebpf.mode == EbpfMode::Off {
            return None;
        }
        let workers = settings.pools.iter().map(|pool| pool.max_children.get());
        let workers = workers.fold(0, u32::saturating_add);
        let workers = settings
            .global
            .process_max
            .map_or(workers, |most| workers.min(most.get()));
        let pages = workers.saturating_mul(2).saturating_add(SPARE_PAGES);
        Some(Wish {
            asked: LoadPrograms {
                pages: pages.clamp(*PAGES.start(), *PAGES.end()),
                wait_threshold: ebpf.wait_threshold,
                frames: ebpf.frames,
                ring_bytes: RING_BYTES,
                system_calls: ebpf.system_calls,
            },
            required: ebpf.mode == EbpfMode::Required,
        })
    }
}

/// What there is of them.
#[derive(Debug, Clone, Default)]
pub(super) enum Waits {
    #[default]
    NotWanted,
    /// They cannot run here; see [`WaitPrograms::Refused`].
    Refused {
        name: String,
        reason: String,
    },
    Running(Rc<Programs>),
}

impl Waits {
    /// What observers are told.
    pub(super) fn told(&self) -> WaitPrograms {
        match self {
            Waits::NotWanted => WaitPrograms::NotWanted,
            Waits::Refused { name, reason } => WaitPrograms::Refused {
                name: name.clone(),
                reason: reason.clone(),
            },
            Waits::Running(programs) => WaitPrograms::Running {
                pages: programs.asked.pages,
            },
        }
    }

    /// What goes with that.
    pub(super) fn shared(&self) -> Vec<Arc<OwnedFd>> {
        match self {
            Waits::NotWanted | Waits::Refused { .. } => Vec::new(),
            Waits::Running(programs) => programs.shared.to_vec(),
        }
    }

    /// The CPUs' clocks, which run when their observer says so.
    pub(super) fn clocks(&self) -> &[Arc<OwnedFd>] {
        match self {
            Waits::NotWanted | Waits::Refused { .. } => &[],
            Waits::Running(programs) => &programs.clocks,
        }
    }

    /// Whether they do what is wished. The number of pages is not compared: it stays.
    pub(super) fn fulfil(&self, wish: &Wish) -> bool {
        let Waits::Running(programs) = self else {
            return false;
        };
        let asked = &programs.asked;
        LoadPrograms {
            pages: asked.pages,
            ..wish.asked.clone()
        } == *asked
    }

    /// Whether both are the same programs, or there are none.
    pub(super) fn are_those(&self, others: &Waits) -> bool {
        match (self, others) {
            (Waits::Running(these), Waits::Running(those)) => Rc::ptr_eq(these, those),
            (Waits::Running(_), _) | (_, Waits::Running(_)) => false,
            _ => true,
        }
    }

    /// The number of a worker's page, if it is one of these programs.
    pub(super) fn number_of(&self, page: Option<&Page>) -> Option<u32> {
        let (Waits::Running(programs), Some(page)) = (self, page) else {
            return None;
        };
        Rc::ptr_eq(programs, &page.programs).then_some(page.number)
    }

    /// A page for a worker that is about to be. None is left, or none can be had: then it
    /// is told, and the worker goes without.
    pub(super) fn take_page(&self, now: Instant, log: &ErrorLog) -> Option<Page> {
        let Waits::Running(programs) = self else {
            return None;
        };
        let taken = Programs::take_page(programs);
        if taken.is_none()
            && let Some(before) = programs.lacking.borrow_mut().pass(now)
        {
            let pages = programs.asked.pages;
            log.warning(format_args!(
                "all {pages} pages for the waits of workers are taken, so a worker is without{}: its spans do not tell \
                 where its time went (their number is what pm.max_children asked for at the start: start anew)",
                more(before)
            ));
        }
        taken
    }

    /// Says how it stands, where that is not what it was before.
    pub(super) fn announce(&self, before: &Waits, log: &ErrorLog) {
        match (self, before) {
            (Waits::Running(programs), _) if !self.are_those(before) => log.notice(format_args!(
                "ebpf: on, for up to {} workers at a time: spans tell where requests' time went, and which line of PHP \
                 waited for what",
                programs.asked.pages
            )),
            (Waits::Refused { reason, .. }, Waits::Refused { reason: known, .. }) if reason == known => {}
            (Waits::Refused { reason, .. }, _) => log.notice(format_args!(
                "ebpf: off ({reason}); spans tell how long requests waited for a CPU, and not for what else"
            )),
            (Waits::NotWanted, Waits::Running(_)) => log.notice("ebpf: off (the configuration does not ask for it)"),
            (Waits::Running(_) | Waits::NotWanted, _) => {}
        }
    }
}

/// Loaded, and running as long as this lives.
#[derive(Debug)]
pub(super) struct Programs {
    asked: LoadPrograms,
    /// What nobody else needs, and what keeps the programs running.
    _kept: Vec<OwnedFd>,
    map_of_pages: Arc<OwnedFd>,
    /// As `ToObserver::Start` wants them.
    shared: [Arc<OwnedFd>; 4],
    /// One of each CPU; none where the kernel does not give them.
    clocks: Vec<Arc<OwnedFd>>,
    roster: RefCell<Roster>,
    pages: RefCell<Pages>,
    /// Workers for which no page was left.
    lacking: RefCell<Seldom>,
    /// Workers that the kernel does not watch.
    unwatched: RefCell<Seldom>,
}

impl Programs {
    /// From what the loader has handed over.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn assemble(
        asked: LoadPrograms,
        parts: Vec<(ProgramPart, OwnedFd)>,
    ) -> Result<Programs, String> {
        let [mut workers, mut layouts, mut counts, mut ring, mut pages] = [const { None }; 5];
        let (mut kept, mut clocks) = (Vec::new(), Vec::new());
        for (part, fd) in parts {
            let place = match part {
                ProgramPart::Workers => &mut workers,
                ProgramPart::Layouts => &mut layouts,
                ProgramPart::Counts => &mut counts,
                ProgramPart::Ring => &mut ring,
                ProgramPart::Pages => &mut pages,
                ProgramPart::Link => {
                    kept.push(fd);
                    continue;
                }
                ProgramPart::Clock => {
                    clocks.push(Arc::new(fd));
                    continue;
                }
            };
            *place = Some(fd);
        }
        let (Some(workers), Some(layouts), Some(counts), Some(ring), Some(pages)) =
            (workers, layouts, counts, ring, pages)
        else {
            return Err("the loader has not handed over all their maps".to_owned());
        };
        let listed = workers
            .try_clone()
            .map_err(|e| format!("cannot keep their map of workers: {e}"))?;
        let map_of_pages = Arc::new(pages);
        Ok(Programs {
            _kept: kept,
            shared: [
                Arc::new(ring),
                Arc::new(workers),
                Arc::clone(&map_of_pages),
                Arc::new(counts),
            ],
            clocks,
            map_of_pages,
            roster: RefCell::new(Roster::new(listed, layouts, asked.pages)),
            pages: RefCell::new(Pages::new(asked.pages)),
            lacking: RefCell::default(),
            unwatched: RefCell::default(),
            asked,
        })
    }

    fn take_page(this: &Rc<Programs>) -> Option<Page> {
        let (number, is_used) = this.pages.borrow_mut().take()?;
        let page = Page {
            number,
            programs: Rc::clone(this),
        };
        // What the worker before has left would be taken for the new one's.
        let cleared = !is_used || TimesPage::map(&this.map_of_pages, number).is_ok_and(|page| page.clear());
        cleared.then_some(page)
    }
}

/// A worker's page, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Page {
    number: u32,
    programs: Rc<Programs>,
}

impl Page {
    /// Which one it is, in whatever programs it belongs to.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The map that it is in.
    pub(super) fn map(&self) -> &Arc<OwnedFd> {
        &self.programs.map_of_pages
    }

    /// Has the programs watch its worker from now on, which has just been forked. One that
    /// they cannot watch serves all the same.
    pub(super) fn watch(&self, worker: WorkerId, child: &Child, php: Option<&PhpBuild>, log: &ErrorLog) {
        let mut roster = self.programs.roster.borrow_mut();
        let page = TimesPage::map(self.map(), self.number).ok();
        // Its first request may begin any moment, and before its first switch.
        let began_ns = page.as_ref().map(|page| {
            let now = monotonic_ns();
            page.begin(now);
            now
        });
        let mut register = |php| {
            let (id, slot) = (glasspool_waits::WorkerId(worker.0), SlotIndex(self.number));
            roster.register_since(&child.pidfd, id, slot, php, began_ns)
        };
        let (refused, is_watched) = match register(php) {
            // Its end is on its way.
            Ok(()) | Err(RegisterError::Gone(_)) => return,
            Err(refused @ (RegisterError::TooManyLayouts { .. } | RegisterError::Layout { .. })) => {
                // Where its time goes can be told without its lines.
                match register(None) {
                    Ok(()) => (refused, true),
                    Err(refused) => (refused, false),
                }
            }
            Err(refused) => (refused, false),
        };
        if let Some(page) = page.filter(|_| !is_watched) {
            // Nobody goes on from what it says.
            page.clear();
        }
        let now = Instant::now();
        if let Some(before) = self.programs.unwatched.borrow_mut().pass(now) {
            let pid = child.pid;
            log.warning(format_args!(
                "child {pid}{}: {refused}; it serves all the same",
                more(before)
            ));
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.programs.pages.borrow_mut().give_back(self.number);
    }
}

fn more(before: u64) -> String {
    match before {
        0 => String::new(),
        before => format!(", and {before} before it"),
    }
}

/// Lets a line through once in a while, with the number of those that did not get through.
#[derive(Debug, Default)]
struct Seldom {
    next: Option<Instant>,
    held_back: u64,
}

impl Seldom {
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.held_back += 1;
            return None;
        }
        self.next = Some(now + SELDOM);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests;
