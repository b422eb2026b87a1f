//! Why a pool has no socket, in php-fpm's words.

use std::io;

use crate::logs::Errno;
use crate::supervisor::identity::IdentityError;

/// Why a pool cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system gives no socket.
    #[error("failed to create new listening socket: socket(): {}", Errno(.why))]
    Socket {
        /// Why.
        why: io::Error,
    },
    /// The address is taken, not ours, or not allowed.
    #[error("unable to bind listening socket for address '{address}': {}", Errno(.why))]
    Bind {
        /// Where.
        address: String,
        /// Why.
        why: io::Error,
    },
    /// Bound, but it cannot listen.
    #[error("failed to listen to address '{address}': {}", Errno(.why))]
    Listen {
        /// Where.
        address: String,
        /// Why.
        why: io::Error,
    },
    /// Somebody accepts there.
    #[error("Another FPM instance seems to already listen on {path}")]
    InUse {
        /// Where.
        path: String,
    },
    /// php-fpm would remove it, whatever it is.
    #[error(
        "[pool {pool}] cannot listen on '{path}': it exists and is no socket (remove it, or choose another path)"
    )]
    NotASocket {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
    },
    /// The mode cannot be set.
    #[error("[pool {pool}] failed to chmod() the socket '{path}': {}", Errno(.why))]
    Mode {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
        /// Why.
        why: io::Error,
    },
    /// The owner may not be set.
    #[error("[pool {pool}] failed to chown() the socket '{path}': {}", Errno(.why))]
    Owner {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
        /// Why.
        why: io::Error,
    },
    /// The ACL cannot be set.
    #[error(
        "[pool {pool}] failed to write the ACL of the socket '{path}': {} (does its file system have ACLs?)",
        Errno(.why)
    )]
    Acl {
        /// Whose.
        pool: String,
        /// Where.
        path: String,
        /// Why.
        why: io::Error,
    },
    /// Owner, group or a name in an ACL is unknown.
    #[error(transparent)]
    Account(#[from] IdentityError),
}
