//! The workers of all pools: asked for, watched, replaced, and told of to log and observer.
//! What each report about one means is decided in `supervisor::worker`; how many there
//! should be, in `pm`. Start reading at `keeping`.

mod keeping;
mod worker;

pub(super) use worker::{Birth, Worker};
