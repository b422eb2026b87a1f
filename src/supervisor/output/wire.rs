//! The way of lines to the observer, for workers and for the log of the supervisor itself.
//! Nothing waits here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glasspool_abi::control::{MAX_LINE_BYTES, ObserverStart, ToObserver};
use glasspool_otel::options::{ExporterKind, FileDefaults, Options};

use crate::logs::{Heard, Listener, MAX_TOLD_BYTES, Told};
use crate::supervisor::link::WeakLink;

/// Messages that may wait for the observer at most when a worker's line is added: 4 MiB of text.
pub(super) const MOST_WAITING: usize = 512;
/// The same for a line of the supervisor's own, which a flood of workers' lines must not keep out.
const MOST_WAITING_OF_OWN: usize = MOST_WAITING + 64;
const _: () = assert!(MAX_TOLD_BYTES <= MAX_LINE_BYTES);

/// Whether an observer that is started so has a use for lines.
pub(in crate::supervisor) fn wants_lines(start: &ObserverStart) -> bool {
    let variables = start.otel_file.iter().chain(&start.otel_env).cloned().collect();
    let (options, _) = Options::from_env(&variables, FileDefaults::default());
    start.history_bytes > 0 || options.logs.exporter != ExporterKind::None
}

/// The way to the observer, whichever runs at the moment; shared by all workers.
#[derive(Debug, Clone, Default)]
pub(in crate::supervisor) struct Wire(Arc<Mutex<Way>>);

#[derive(Debug, Default)]
enum Way {
    /// Nobody wants lines.
    #[default]
    Unwanted,
    /// They are wanted, and no observer runs.
    Broken,
    Open(WeakLink<ToObserver>),
}

impl Wire {
    /// From now on lines go there.
    pub(in crate::supervisor) fn connect(&self, link: WeakLink<ToObserver>) {
        *self.way() = Way::Open(link);
    }

    /// There is no observer to take lines until the next [`Wire::connect`]; `wanted` if they
    /// are for its successor.
    pub(in crate::supervisor) fn disconnect(&self, wanted: bool) {
        *self.way() = match wanted {
            true => Way::Broken,
            false => Way::Unwanted,
        };
    }

    pub(super) fn is_wanted(&self) -> bool {
        !matches!(*self.way(), Way::Unwanted)
    }

    /// False if there is no observer to take it, or more than so much waits for it.
    pub(super) fn send(&self, message: ToObserver, most_waiting: usize) -> bool {
        match &*self.way() {
            Way::Open(link) => link.send_if_idle(message, most_waiting),
            Way::Unwanted | Way::Broken => false,
        }
    }

    /// Nobody can leave it half-changed: each change is one assignment.
    fn way(&self) -> MutexGuard<'_, Way> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the supervisor logs goes to the observer too.
impl Listener for Wire {
    fn hear(&mut self, line: &Told) -> Heard {
        match *self.way() {
            Way::Unwanted => return Heard::Unwanted,
            Way::Broken => return Heard::NotNow,
            Way::Open(_) => {}
        }
        let line = ToObserver::Logged(Box::new(line.clone().into()));
        match self.send(line, MOST_WAITING_OF_OWN) {
            true => Heard::Taken,
            false => Heard::NotNow,
        }
    }
}
