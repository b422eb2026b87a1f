//! What a pool does beside running scripts: pages of its own, and looking at slow requests.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::pool::Checker;
use super::{global, logs, or, seconds};
use crate::config::directives::{Placed, Slot, given};
use crate::config::effective::DEFAULT_SLOW_DEPTH;
use crate::config::error::{ConfigError, PoolFault, Shown};

/// A URI of a pool's own, and the words of its directive.
struct Page {
    what: &'static str,
    directive: &'static str,
    /// Least bytes.
    least: usize,
}

impl Checker<'_> {
    pub(super) fn status_path(&self) -> Result<Option<String>, ConfigError> {
        let lines = &self.raw.lines;
        let listener = given(&lines.status_listen).is_some();
        let page = Page {
            what: "status",
            directive: "pm.status_path",
            // A listener of its own has a site of its own, where `/` is a good name.
            least: if listener { 1 } else { 2 },
        };
        let path = self.page(&page, &lines.status_path)?;
        Ok(path.or_else(|| listener.then(|| "/".to_owned())))
    }

    pub(super) fn ping(&self) -> Result<(Option<String>, String), ConfigError> {
        const PONG: &str = "pong";
        let lines = &self.raw.lines;
        let page = Page {
            what: "ping",
            directive: "ping.path",
            least: 2,
        };
        let Some(path) = self.page(&page, &lines.ping_path)? else {
            return Ok((None, PONG.to_owned()));
        };
        match &lines.ping_response {
            None => Ok((Some(path), PONG.to_owned())),
            Some(response) if response.value.is_empty() => {
                Err(self.fault("ping.response", &lines.ping_response, PoolFault::PingResponse))
            }
            Some(response) => Ok((Some(path), response.value.clone())),
        }
    }

    fn page(&self, page: &Page, slot: &Slot<String>) -> Result<Option<String>, ConfigError> {
        let Some(Placed { value, .. }) = given(slot) else {
            return Ok(None);
        };
        let (what, path) = (page.what, Shown::from(value.as_str()));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.~".contains(&byte);
        let fault = if !value.starts_with('/') {
            PoolFault::PathStart { what, path }
        } else if value.len() < page.least {
            PoolFault::PathShort { what, path }
        } else if !value.bytes().all(fits) {
            PoolFault::PathCharacters { what, path }
        } else {
            return Ok(Some(value.clone()));
        };
        Err(self.fault(page.directive, slot, fault))
    }

    pub(super) fn slowlog(&self) -> Result<(Option<PathBuf>, NonZeroU32), ConfigError> {
        const TIMEOUT: &str = "request_slowlog_timeout";
        const DEPTH: &str = "request_slowlog_trace_depth";
        let lines = &self.raw.lines;
        let slowlog = self.file(&lines.slowlog);
        if let Some(slow) = global::positive(&lines.slow_timeout) {
            let blamed = |fault| self.fault(TIMEOUT, &seconds(&lines.slow_timeout), fault);
            let Some(file) = &slowlog else {
                return Err(blamed(PoolFault::NoSlowlog { directive: TIMEOUT }));
            };
            logs::slowlog(self.raw, file)?;
            let terminate = global::positive(&lines.terminate_timeout);
            if let Some(terminate) = terminate.filter(|terminate| *terminate < slow) {
                let (slow, terminate) = (slow.as_secs(), terminate.as_secs());
                return Err(blamed(PoolFault::SlowAfterTerminate { slow, terminate }));
            }
        }
        let found = or(&lines.slow_depth, 0);
        let blamed = |fault| self.fault(DEPTH, &lines.slow_depth, fault);
        if slowlog.is_none() && found != 0 {
            return Err(blamed(PoolFault::NoSlowlog { directive: DEPTH }));
        }
        let depth = u32::try_from(found).map_err(|_negative| blamed(PoolFault::TraceDepth { found }))?;
        Ok((slowlog, NonZeroU32::new(depth).unwrap_or(DEFAULT_SLOW_DEPTH)))
    }
}
