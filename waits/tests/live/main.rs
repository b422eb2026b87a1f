//! The programs in the running kernel, and real PHP processes whose time is known from
//! elsewhere.
//!
//! Needs root (or CAP_BPF and CAP_PERFMON), a kernel that tells its types, and the `php`
//! command line of PHP 8.2, which `make deps` installs. What is missing is named in the
//! file that `GLASSPOOL_SKIPS` names.

#![cfg_attr(
    feature = "ebpf",
    expect(
        clippy::unwrap_used,
        clippy::print_stdout,
        reason = "all of this is a test, its helpers too"
    )
)]
#![cfg(feature = "ebpf")]

mod calls;
mod clock;
mod cost;
mod database;
mod handover;
mod loads;
mod php;
mod places;
mod series;
mod stacks;
mod watch;
