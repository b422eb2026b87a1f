//! Every kind of frame, on every PHP there is here: scripts whose stack is known, frame
//! by frame, line by line, type by type.

#![expect(clippy::unwrap_used, reason = "all of this is a test, its helpers too")]

mod callbacks;
mod cases;
mod compiled;
mod extensions;
mod foreign;
mod golden;
mod images;
#[path = "../live/mod.rs"]
mod live;
mod requests;
mod series;
mod values;
