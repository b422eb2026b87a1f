//! What the observer itself logs, for whoever reads along. Not as log records: that they cannot
//! be delivered would have to be delivered.

use std::sync::{Arc, Mutex, PoisonError};

use crate::logs::{ErrorLog, Heard, Listener, Told};
use crate::observer::report::Report;
use crate::tail::Kind;

/// Lines that wait here at most; more wait in the log, within its own bound.
const MOST_WAITING: usize = 64;

/// Lines that were logged and not kept yet. Other threads log too.
#[derive(Debug, Clone, Default)]
pub(in crate::observer) struct Own(Arc<Mutex<Vec<Told>>>);

impl Own {
    /// Hears what this log says from now on.
    pub(in crate::observer) fn of(log: &ErrorLog) -> Own {
        let own = Own::default();
        log.tell(Box::new(own.clone()));
        own
    }

    /// Keeps what has come.
    pub(in crate::observer) fn keep(&self, log: &ErrorLog, report: &mut Report) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() {
            return;
        }
        for line in lines {
            report
                .history
                .line(Kind::Log, &super::supervisor::told(line.into()));
        }
        log.hand_on();
    }
}

impl Listener for Own {
    fn hear(&mut self, line: &Told) -> Heard {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST_WAITING {
            return Heard::NotNow;
        }
        waiting.push(line.clone());
        Heard::Taken
    }
}
