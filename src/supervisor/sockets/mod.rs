//! The pools' listening sockets, with php-fpm's rules for addresses, owners and modes,
//! and how they outlive the pools that opened them.
//!
//! A [`Listener`] belongs to the pools that hold it. When the last of them drops it, it
//! is closed and its file is gone: so a socket that the next generation of pools takes
//! over never stops accepting, and one that it does not want closes with the old
//! generation. [`Sockets`] only knows which there are, and holds those that came with
//! the program's start until [`Sockets::settle`].
//!
//! Sockets are blocking, because workers share them and sleep in accept(2), and
//! close-on-exec, so that programs started by scripts do not inherit them.
//! Start reading at [`Sockets::open`]; `bind` makes sockets, `inherit` takes those that
//! another program has left, `queue` asks the kernel who waits.

mod access;
mod bind;
mod error;
mod export;
mod inherit;
mod key;
mod listener;
mod queue;
mod scrape;

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Weak};

pub use error::ListenError;
pub use export::Handover;
pub use key::Key;
pub use listener::Listener;
pub use queue::Queue;
pub(super) use scrape::listen as listen_for_scrapes;

use self::inherit::Inherited;
use self::listener::Wanted;
use crate::config::{ListenAddress, Pool};
use crate::logs::ErrorLog;

/// Every listening socket of this process.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Those that pools hold, in the order in which they were opened, and some that no
    /// pool holds any more.
    held: Vec<Weak<Listener>>,
    /// Those that no pool has asked for yet.
    inherited: Vec<Inherited>,
}

impl Sockets {
    /// Takes over what the program was started with: `FPM_SOCKETS` as php-fpm leaves it
    /// for its next image, and `LISTEN_FDS` as a service manager does, if its
    /// `LISTEN_PID` is ours or our launcher's. What is named there and is not a socket that listens at
    /// that address is left alone, with a warning.
    ///
    /// To be called once, before the process makes listening sockets of its own.
    pub fn from_environment(
        environment: impl Iterator<Item = (OsString, OsString)>,
        log: &ErrorLog,
    ) -> Sockets {
        Sockets {
            held: Vec::new(),
            inherited: inherit::take(environment, log),
        }
    }

    /// The pool's socket: the one that is already there at that address, as it is, or
    /// else a new one.
    ///
    /// # Errors
    /// When a new one cannot be made; nothing is left of it then.
    pub fn open(&mut self, pool: &Pool, log: &ErrorLog) -> Result<Arc<Listener>, ListenError> {
        let wanted = Wanted::new(&pool.listen);
        if let Some(held) = self.listeners().find(|held| held.answers_to(&wanted)) {
            return Ok(held);
        }
        let inherited = self.inherited.iter();
        let found = inherited
            .enumerate()
            .find(|(_, found)| found.listener.answers_to(&wanted));
        let listener = match found.map(|(place, _)| place) {
            Some(place) => self.inherited.remove(place).listener,
            None => bind::listen(pool, log)?,
        };
        let listener = Arc::new(listener);
        self.held.retain(|held| held.strong_count() > 0);
        self.held.push(Arc::downgrade(&listener));
        Ok(listener)
    }

    /// The first generation has its sockets: what was inherited beyond that is closed,
    /// and its file removed, as php-fpm does.
    pub fn settle(&mut self, log: &ErrorLog) {
        for unwanted in self.inherited.drain(..) {
            unwanted.dismiss(log);
        }
    }

    /// Logs the sockets that a reload passes on, as php-fpm's next image would.
    pub fn announce(&self, log: &ErrorLog) {
        self.listeners()
            .for_each(|listener| inherit::announce(log, listener.number(), listener.key()));
    }

    /// Prepares all sockets for a program that this process is about to become by
    /// execve(2), in the form that php-fpm reads.
    ///
    /// # Errors
    /// When a descriptor cannot be made inheritable.
    pub fn export(&self) -> std::io::Result<Handover> {
        Handover::prepare(self.listeners().collect())
    }

    fn listeners(&self) -> impl Iterator<Item = Arc<Listener>> {
        self.held.iter().filter_map(Weak::upgrade)
    }
}

/// Whether a variable of our own environment is about sockets that were passed to this
/// process alone: engines and workers must not see it.
pub(super) fn is_private(name: &OsStr) -> bool {
    inherit::is_private(name)
}

/// The pool's address as the operator knows it.
pub fn name(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::TcpPort(port) => port.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests;
