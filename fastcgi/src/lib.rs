//! FastCGI 1.0 in both directions, sans-I/O: bytes go in, events come out; bytes to send are appended to
//! a buffer. The worker serves with [`RequestReader`] and [`ResponseWriter`]; tests, `serve` and the
//! command line call others with [`client`].
//!
//! Deliberately not here: sockets, time limits, what a parameter means, how PHP is run. A connection
//! carries one request at a time; a second one is answered with `CANT_MPX_CONN`.
//!
//! Everything that a peer sends is hostile: each length is checked against [`Limits`] before memory is
//! taken, every byte is looked at a bounded number of times, and no input panics. After warm-up neither
//! reading nor writing an ordinary request allocates.
//!
//! The protocol is the "FastCGI Specification", version 1.0, 29 April 1996, Open Market, Inc.; section
//! numbers in comments are of that text. Where php-fpm differs (`main/fastcgi.c` of php-src) the comment
//! says so: what web servers see of us must match it, what it gets wrong we do right:
//!
//! | situation | php-fpm | here |
//! |---|---|---|
//! | a name-value pair straddles two PARAMS records | connection closed | decoded |
//! | reserved bytes of END_REQUEST | old buffer contents | zero |
//! | unknown role | connection closed | END_REQUEST with UNKNOWN_ROLE |
//! | unknown management record | connection closed | UNKNOWN_TYPE |
//! | GET_VALUES of FCGI_MAX_CONNS, FCGI_MAX_REQS | left out | answered |
//! | ABORT_REQUEST while reading | ends the parameters or the body | [`Event::Aborted`] |
//! | STDIN with content before PARAMS ended | ends the parameters | [`ProtocolError::OutOfPlace`] |
//!
//! Start reading at [`RequestReader::feed`]; [`record`](Header) has the eight bytes, `framer` cuts a stream
//! into records, `pairs` decodes name-value pairs.

#![forbid(unsafe_code)]

pub mod client;
mod error;
mod framer;
mod limits;
mod pairs;
mod params;
mod record;
mod request;
mod response;

pub use error::ProtocolError;
pub use limits::Limits;
pub use params::Params;
pub use record::{EndRequest, Header, ProtocolStatus, RecordType, Role};
pub use request::{Event, Fed, RequestReader};
pub use response::ResponseWriter;
