//! What two Glasspool processes share: the slot (a worker's shared pages), the
//! control messages, W3C trace context, and the Zend offsets an engine hands over.
//!
//! This room knows no other room. It does no policy and no I/O beyond mapping a
//! slot and passing messages over a socket. Start reading at [`slot`].
//!
//! **Trust.** A worker runs the application's code, so every byte it can write is
//! hostile input to whoever reads it: readers here never follow a length, an
//! offset or a counter that a worker wrote without bounding it by something the
//! supervisor said.

mod channel;
pub mod control;
pub mod ids;
mod mapping;
pub mod record;
mod ring;
pub mod slot;
pub mod times;
pub mod trace;
pub mod zend;

pub use ids::{EngineId, Pid, PoolId, WorkerId};
pub use mapping::{MapError, create_slot_memory};

/// Version of everything in this crate that crosses a process boundary. An engine
/// object of another version is refused at its greeting.
pub const ABI_VERSION: u32 = 6;
