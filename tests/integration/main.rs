//! The real supervisor with a fake engine: no PHP, no root, no network. And the program
//! itself as it is called, where PHP is wanted only for what PHP itself does.

mod collector;
mod command_line;
mod crashes;
#[cfg(test)]
#[path = "../../probes/tests/live_native/database.rs"]
mod database;
mod fastcgi;
mod harness;
mod kills;
mod known_loads;
mod last_looks;
mod loader;
mod looks;
mod metrics;
mod prometheus;
mod reloads;
mod replaces;
mod schedules;
mod site;
mod sockets;
mod starts;
mod stops;
mod successor;
mod tail;
mod telemetry;
mod tracing;
mod waits_access;
mod waits_on_cpu;
mod waits_spans;
mod with_php;
