//! The web server's side: make requests, read responses. For `serve`, the command line, and tests.
//!
//! One request at a time on a connection, as the server side has it.

mod request;
mod response;

pub use request::RequestEncoder;
pub use response::{Event, Fed, ResponseReader};
