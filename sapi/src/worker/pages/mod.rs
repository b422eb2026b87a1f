//! What a pool answers itself: the status page, the ping page, and the figures for
//! `fpm_get_status()`.
//!
//! Which page a request means is decided before any script is opened ([`Page::of`]).
//! PHP sends the answer, so that its headers, HEAD and output handlers are as for any
//! script. The figures come from the supervisor ([`figures`]); everything else here is
//! pure ([`asked`], [`fields`], [`render`], [`escape`]).
//!
//! Like the exchange, the desk that answers is found by PHP's callbacks in a thread
//! local. Nothing here calls PHP.

mod asked;
mod escape;
pub(crate) mod fields;
mod figures;
mod openmetrics;
mod render;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use glasspool_abi::control::{Channel, Pages, PoolSpec};
use jiff::tz::TimeZone;

use asked::Asked;
use figures::Figures;
use render::Clock;

use super::clock;

/// A page of the pool's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Page {
    Status = 1,
    Ping = 2,
}

impl Page {
    /// The page that a request means: its URI, as the path fix-ups leave it, is the
    /// page's path, byte by byte.
    pub(crate) fn of(pages: &Pages, request_uri: Option<&[u8]>) -> Option<Page> {
        let is = |path: &Option<String>| {
            let path = path.as_deref().map(str::as_bytes);
            path.is_some() && path == request_uri
        };
        if is(&pages.ping_path) {
            Some(Page::Ping)
        } else if is(&pages.status_path) {
            Some(Page::Status)
        } else {
            None
        }
    }
}

/// A page ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    /// In the order in which they are sent; empty ones are not.
    pub(crate) headers: [&'static str; 3],
    pub(crate) body: Vec<u8>,
    /// What goes to the error log.
    pub(crate) errors: Vec<String>,
}

const EXPIRES: &str = "Expires: Thu, 01 Jan 1970 00:00:00 GMT";
const CACHE_CONTROL: &str = "Cache-Control: no-cache, no-store, must-revalidate, max-age=0";
const CONTENT_TYPE_PLAIN: &str = "Content-Type: text/plain";

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// What a worker needs to answer for its pool.
#[derive(Debug)]
pub(crate) struct Desk {
    pool: String,
    ping_response: String,
    supervisor: Channel,
    zone: TimeZone,
    /// The latest answer: PHP reads it in place.
    answer: Answer,
    /// What a running `fpm_get_status()` reads in place, and the time it was asked.
    figures: Option<(Figures, u64)>,
}

/// Makes this worker answer for the pool; `supervisor` is where questions go, `zone`
/// where those live who read the page.
pub(crate) fn install(pool: &PoolSpec, supervisor: Channel, zone: TimeZone) {
    let desk = Desk {
        pool: pool.name.clone(),
        ping_response: pool.pages.ping_response.clone(),
        supervisor,
        zone,
        answer: Answer::default(),
        figures: None,
    };
    DESK.with_borrow_mut(|current| *current = Some(desk));
}

/// Runs `f` on the worker's desk; `None` in an engine.
pub(crate) fn with<R>(f: impl FnOnce(&mut Desk) -> R) -> Option<R> {
    DESK.with(|current| current.try_borrow_mut().ok()?.as_mut().map(f))
}

impl Desk {
    /// Answers the request for a page. Waits for the supervisor, but not for long.
    pub(crate) fn answer(&mut self, page: Page, query: &[u8]) -> &Answer {
        self.answer = match page {
            Page::Ping => Answer {
                status: 200,
                headers: [CONTENT_TYPE_PLAIN, EXPIRES, CACHE_CONTROL],
                body: self.ping_response.clone().into_bytes(),
                errors: Vec::new(),
            },
            Page::Status => self.status(Asked::read(query)),
        };
        &self.answer
    }

    fn status(&self, asked: Asked) -> Answer {
        match figures::fetch(&self.supervisor, figures::WITHIN) {
            Ok(figures) => Answer {
                status: 200,
                headers: [EXPIRES, CACHE_CONTROL, render::content_type(asked.format)],
                body: render::page(asked, &figures, &self.clock()).into_bytes(),
                errors: Vec::new(),
            },
            Err(reason) => Answer {
                status: 500,
                headers: [CONTENT_TYPE_PLAIN, EXPIRES, CACHE_CONTROL],
                body: b"Internal error. Please review log file for errors.".to_vec(),
                errors: vec![
                    format!("scoreboard: {reason}"),
                    "status: unable to find or access status shared memory".to_owned(),
                ],
            },
        }
    }

    fn clock(&self) -> Clock {
        Clock {
            now: clock::unix_ns() / 1_000_000_000,
            zone: self.zone.clone(),
        }
    }

    /// Fetches figures for [`Desk::value`] and gives the number of workers; an error is
    /// what goes to the log.
    pub(crate) fn take_figures(&mut self) -> Result<usize, String> {
        match figures::fetch(&self.supervisor, figures::WITHIN) {
            Ok(figures) => {
                let count = figures.processes.len();
                self.figures = Some((figures, self.clock().now));
                Ok(count)
            }
            Err(reason) => Err(format!("[pool {}] status: {reason}", self.pool)),
        }
    }

    /// A value of the figures taken, by number: of the pool, or of a worker. `None`
    /// past the last.
    pub(crate) fn value(&self, process: Option<usize>, index: usize) -> Option<fields::Field<'_>> {
        let (figures, now) = self.figures.as_ref()?;
        match process {
            None => fields::pool_for_scripts(&figures.pool, *now)
                .into_iter()
                .nth(index),
            Some(process) => {
                let process = figures.processes.get(process)?;
                fields::process_for_scripts(process, *now).into_iter().nth(index)
            }
        }
    }

    /// Forgets the figures.
    pub(crate) fn drop_figures(&mut self) {
        self.figures = None;
    }
}
