//! What the Makefile's verbs do when they need an `if`: one subcommand a file.

#![forbid(unsafe_code)]

mod account;
mod apps;
mod build;
mod conformance;
mod migrating;
mod process;
mod report;
mod run;
mod service;
mod soak;
mod stage;
mod tally;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

/// Chores of this repository.
#[derive(Debug, Parser)]
#[command(name = "xtask")]
enum Task {
    /// Prove Glasspool with real applications behind nginx.
    Apps(apps::Options),
    /// Build the program and its engine object.
    Build {
        /// Optimised.
        #[arg(long)]
        release: bool,
    },
    /// Run every test.
    Test,
    /// Check formatting, clippy and the rules of the house.
    Lint,
    /// Compare with stock php-fpm, and run its own tests.
    Conformance(conformance::Options),
    /// Prove that a real Jaeger shows what Glasspool sends.
    E2eJaeger(apps::jaeger::Options),
    /// Run it by a service manager, with Debian's own configuration.
    Service(service::Options),
    /// Reload again and again under load, also with broken files.
    Soak(soak::Options),
    /// Run each fuzz target for a while.
    Fuzz,
    /// Install below PREFIX.
    Install,
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Apps(options) => apps::run(&options),
        Task::Build { release } => build::build(release).map(|_| true),
        Task::Test => test::test(),
        Task::Lint => test::lint().map(|()| true),
        Task::Conformance(options) => conformance::conformance(&options),
        Task::E2eJaeger(options) => apps::jaeger::run(&options),
        Task::Service(options) => service::trial(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Fuzz => test::fuzz().map(|()| true),
        Task::Install => build::install().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            // The chain of causes in one line.
            use std::io::Write as _;
            writeln!(std::io::stderr(), "xtask: {e:#}").unwrap_or_default();
            ExitCode::from(2)
        }
    }
}
