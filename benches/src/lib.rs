//! Measures Glasspool against stock php-fpm: same machine, same run, same php-fpm.conf, php.ini and scripts,
//! rounds in turn (A B A B …), ratios pair by pair.
//!
//! Start reading at [`run`], then [`bench`] for what is done for one case and [`case`] for the table of them.
//! Load comes from [`load`] (own, FastCGI) or from `wrk` through [`nginx`]; [`measure`] asks the kernel; [`sink`]
//! receives what is exported; [`report`] judges.
//!
//! Deliberately not here: assertions. A missed promise is printed and written down, it fails nothing: machines that
//! run tests are too noisy for that. Nor is anything measured that is not compared, and nothing leaves loopback.

#![forbid(unsafe_code)]

pub mod args;
pub mod bench;
pub mod case;
pub mod error;
pub mod load;
pub mod look;
pub mod machine;
pub mod measure;
pub mod nginx;
pub mod process;
pub mod report;
pub mod run;
pub mod server;
pub mod sink;
pub mod site;
pub mod slow;
pub mod stats;
pub mod stop;
pub mod telemetry;
pub mod waits;
pub mod wordpress;

pub use error::BenchError;
