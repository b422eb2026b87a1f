//! What a server costs, asked of the kernel and of tools; the parsers are pure.

pub mod proc;
pub mod syscalls;
pub mod wrk;
