//! The parts of the programs, and a worker's end of its page.

use std::os::fd::OwnedFd;

use glasspool_abi::control::ProgramPart;
use glasspool_abi::times::TimesPage;
use glasspool_waits::{Eye, Records, Roster, Settings, load};

use crate::php;

/// All parts, as supervisor and observer hold them together.
pub(crate) struct Watch {
    _links: Vec<OwnedFd>,
    pages: OwnedFd,
    pub(crate) roster: Roster,
    pub(crate) records: Records,
    pub(crate) eye: Eye,
    /// Of all CPUs, standing still.
    pub(crate) clocks: Vec<OwnedFd>,
}

impl Watch {
    /// Loads the programs, or says why not where `make test` counts it.
    pub(crate) fn load(settings: &Settings) -> Option<Watch> {
        php::load(settings).map(|_| Watch::of(load(settings).unwrap(), settings.slots))
    }

    fn of(mut parts: Vec<(ProgramPart, OwnedFd)>, slots: u32) -> Watch {
        let mut all = |wanted| {
            let found = parts.extract_if(.., |(part, _)| *part == wanted);
            found.map(|(_, fd)| fd).collect::<Vec<_>>()
        };
        let mut take = |wanted| all(wanted).remove(0);
        let (workers, layouts) = (take(ProgramPart::Workers), take(ProgramPart::Layouts));
        let (pages, counts) = (take(ProgramPart::Pages), take(ProgramPart::Counts));
        let records = Records::new(take(ProgramPart::Ring)).unwrap();
        let mapped = pages.try_clone().unwrap();
        let eye = Eye::new(workers.try_clone().unwrap(), mapped, counts, slots).unwrap();
        Watch {
            pages,
            roster: Roster::new(workers, layouts, slots),
            records,
            eye,
            clocks: all(ProgramPart::Clock),
            _links: all(ProgramPart::Link),
        }
    }

    /// What a worker maps.
    pub(crate) fn page(&self, number: u32) -> TimesPage {
        TimesPage::map(&self.pages, number).unwrap()
    }
}
