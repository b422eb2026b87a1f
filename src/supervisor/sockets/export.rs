//! Passing all sockets on to the program that this process becomes.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use rustix::io::FdFlags;

use super::inherit::{MOST_VARIABLES, VARIABLE};
use super::listener::Listener;

/// Entries in one variable, as in php-fpm: the kernel bounds the length of each.
const ENTRIES: usize = 128;

/// Sockets that survive execve(2), until this is dropped.
#[derive(Debug)]
pub struct Handover {
    /// `FPM_SOCKETS`, `FPM_SOCKETS_1` …, to be set for the next program. Any others of
    /// those names must not be. Whoever hands over more adds it here.
    pub variables: Vec<(String, OsString)>,
    listeners: Vec<Arc<Listener>>,
}

impl Handover {
    pub(super) fn prepare(listeners: Vec<Arc<Listener>>) -> io::Result<Handover> {
        let most = ENTRIES * MOST_VARIABLES;
        if listeners.len() > most {
            return Err(io::Error::other(format!(
                "there are {} sockets, and php-fpm's variables hold {most}",
                listeners.len()
            )));
        }
        let variables = listeners.chunks(ENTRIES).enumerate();
        let variables = variables.map(|(number, listeners)| (variable(number), value(listeners)));
        let handover = Handover {
            variables: variables.collect(),
            listeners,
        };
        for listener in &handover.listeners {
            rustix::io::fcntl_setfd(&listener.socket, FdFlags::empty())?;
        }
        Ok(handover)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // Fails only for a descriptor that is not open, and this one is.
            rustix::io::fcntl_setfd(&listener.socket, FdFlags::CLOEXEC).unwrap_or_default();
        }
    }
}

fn variable(number: usize) -> String {
    match number {
        0 => VARIABLE.to_owned(),
        _ => format!("{VARIABLE}_{number}"),
    }
}

fn value(listeners: &[Arc<Listener>]) -> OsString {
    let mut value = OsString::new();
    for listener in listeners {
        if !value.is_empty() {
            value.push(",");
        }
        value.push(listener.key().as_os_str());
        value.push(format!("={}", listener.number()));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::key::Key;
    use super::*;

    fn listener() -> Arc<Listener> {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let key = Key::of_socket(&socket).expect("bound");
        Arc::new(Listener::new(socket.into(), key, None))
    }

    #[test]
    fn entries_are_spread_over_variables_as_php_fpm_does() {
        let one = listener();
        let count = |all: usize| {
            let handover = Handover::prepare(vec![Arc::clone(&one); all]).expect("fits");
            let entry = format!("{}={}", one.key(), one.number());
            let in_each = handover.variables.iter().map(|(name, value)| {
                let value = value.to_str().expect("text");
                assert!(value.split(',').all(|part| part == entry), "{value}");
                (name.clone(), value.split(',').count())
            });
            in_each.collect::<Vec<_>>()
        };
        let named = |name: &str, count| (name.to_owned(), count);
        assert_eq!(count(0), []);
        assert_eq!(count(128), [named("FPM_SOCKETS", 128)]);
        assert_eq!(count(129), [named("FPM_SOCKETS", 128), named("FPM_SOCKETS_1", 1)]);
        assert!(Handover::prepare(vec![one; 128 * 256 + 1]).is_err());
    }

    #[test]
    fn sockets_are_inheritable_only_meanwhile() {
        let one = listener();
        let flags = || rustix::io::fcntl_getfd(&one.socket).expect("reads");
        let handover = Handover::prepare(vec![Arc::clone(&one)]).expect("fits");
        assert!(!flags().contains(FdFlags::CLOEXEC));
        drop(handover);
        assert!(flags().contains(FdFlags::CLOEXEC));
    }
}
