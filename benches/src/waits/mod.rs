//! What the kernel's programs cost a request, and whether what they tell adds up.
//!
//! - [`sum`]: many requests that sleep, wait, write and compute by chance, every one exported: of each, do the parts
//!   add up to the whole?
//! - [`cost`]: hello at full load with the programs and without, Glasspool against itself; and what a run of a program
//!   takes, as the kernel measures it.

pub mod cost;
mod programs;
pub mod sum;

use std::num::NonZeroU32;

use crate::BenchError;
use crate::bench::Setup;
use crate::server::{Ebpf, More, Server, Side, Spec, Tracing};

/// Glasspool, exporting every request.
fn start(setup: &Setup<'_>, workers: u32, ebpf: Ebpf) -> Result<Server, BenchError> {
    let spec = Spec {
        side: Side::Candidate,
        program: setup.candidate,
        php: setup.stock,
        ini: setup.ini,
        dir: setup.dir,
        scripts: setup.scripts,
        tcp: false,
        workers: NonZeroU32::new(workers).unwrap_or(NonZeroU32::MIN),
        tracing: Tracing::All,
        slow_after_s: None,
        hold: false,
        ebpf,
        more: More::default(),
    };
    Server::start(&spec, setup.stop)
}
