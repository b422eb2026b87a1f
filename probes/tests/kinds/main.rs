//! Every kind of frame, on every PHP there is here: scripts whose stack is known, frame
//! by frame, line by line, type by type.

#![expect(clippy::unwrap_used, reason = "all of this is a test, its helpers too")]

mod cases;
mod foreign;
mod golden;
mod images;
mod series;
mod values;
