//! The real supervisor with a fake engine: no PHP, no root, no network. And the program
//! itself as it is called, where PHP is wanted only for what PHP itself does.

mod collector;
mod command_line;
mod crashes;
mod fastcgi;
mod harness;
mod kills;
mod last_looks;
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
mod with_php;
