//! The state of a TCP connection that somebody waits for, as attributes.

use opentelemetry::KeyValue;

use crate::semconv::name;

/// A TCP connection at the moment when a wait for it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpState {
    /// Value of `network.connection.state`.
    pub state: &'static str,
    /// Bytes that have been received and not read.
    pub receive_queue: u32,
    /// Bytes that have been written and that the other end has not acknowledged.
    pub send_queue: u32,
}

impl TcpState {
    pub(crate) fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new(name::NETWORK_CONNECTION_STATE, self.state),
            KeyValue::new(name::PHP_WAIT_RECEIVE_QUEUE, i64::from(self.receive_queue)),
            KeyValue::new(name::PHP_WAIT_SEND_QUEUE, i64::from(self.send_queue)),
        ]
    }
}
