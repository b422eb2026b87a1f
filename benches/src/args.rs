//! The command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::case;

const EXAMPLES: &str = "\
Examples, after `cargo run --release -p glasspool-benches --`:
  --quick                                      everything, roughly
  --only nginx-hello --only cpu --rounds 9     two cases, thoroughly
  --only torn --traces 1000000                 whether looks are ever wrong, a million times
  --only telemetry-counts --requests 1000000   whether all that counts requests agrees, over a million
  --only telemetry-black-hole --rounds 6 --seconds 10   a minute without a collector that answers
  --only hello-ebpf --rounds 14                what programs in the kernel cost
  --candidate php-fpm8.2                       php-fpm with itself: how much noise is there?
  load --unix /run/php/php8.2-fpm.sock --root /srv --path /hello.php

Ratios are candidate to stock, the median over the rounds. Without options it takes about ten minutes.
Judge no number on a machine that does something else.
Exit status: 0 also when a promise is missed, 1 when something could not be measured, 2 for wrong arguments.";

/// Measures Glasspool against stock php-fpm in the same run.
#[derive(Debug, Parser)]
#[command(name = "glasspool-benches", about, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Without a command: `run`.
    #[command(flatten)]
    pub run: RunArguments,
    /// What else there is.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare the two servers, case by case (the default)
    Run(RunArguments),
    /// Make load on one server that runs already, and report it
    Load(LoadArguments),
    /// List the cases
    Cases,
}

/// Options of a comparison.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// How often each side of a case is measured
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds of one measurement
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Two rounds of one second: shows that everything works, proves nothing
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    pub quick: bool,
    /// Looks at each script of the case `torn`, and requests of `waits-sum`
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub traces: u64,
    /// Requests of the case `telemetry-counts`
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub requests: u64,
    /// Only this case; may be repeated (see `cases`)
    #[arg(long, value_name = "CASE", value_parser = PossibleValuesParser::new(case::names()), hide_possible_values = true)]
    pub only: Vec<String>,
    /// What is measured: glasspool, or a php-fpm to see how much noise there is
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/glasspool")]
    pub candidate: PathBuf,
    /// What it is compared with, and the PHP that glasspool hosts its engine in
    #[arg(long, value_name = "PROGRAM", default_value = "php-fpm8.2")]
    pub stock: PathBuf,
    /// Where all numbers go [default: bench-results/bench-SECONDS.json]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// A tool with `provision DIR` and `db-stop DIR` that makes a WordPress site; without it that case is skipped
    #[arg(long, value_name = "TOOL", env = "GLASSPOOL_BENCH_WORDPRESS")]
    pub wordpress: Option<PathBuf>,
    /// Keep the WordPress site here for the next run, rather than in a folder that is removed
    #[arg(long, value_name = "DIR", requires = "wordpress")]
    pub wordpress_dir: Option<PathBuf>,
}

/// Options of plain load.
#[derive(Debug, Clone, Args)]
pub struct LoadArguments {
    /// The server's unix socket
    #[arg(
        long,
        value_name = "SOCKET",
        required_unless_present = "tcp",
        conflicts_with = "tcp"
    )]
    pub unix: Option<PathBuf>,
    /// The server's port on 127.0.0.1
    #[arg(long, value_name = "PORT")]
    pub tcp: Option<u16>,
    /// DOCUMENT_ROOT, as the server sees it
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// The script, below the root
    #[arg(long, default_value = "/hello.php")]
    pub path: String,
    /// The query string
    #[arg(long, default_value = "")]
    pub query: String,
    /// What every answer must contain
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub expect: String,
    /// A connection for each request, or kept ones
    #[arg(long, value_enum, default_value = "new")]
    pub connections: Connections,
    /// Requests under way at a time
    #[arg(long, default_value = "4")]
    pub clients: NonZeroU32,
    /// Seconds
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// So many requests, rather than a time
    #[arg(long, conflicts_with = "seconds")]
    pub count: Option<u64>,
}

/// What happens to a connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Connections {
    /// Closed.
    New,
    /// Used again.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let plain = parse("benches --only cpu --only wordpress --rounds 3").unwrap();
        assert_eq!(
            (plain.run.rounds, plain.run.only.len(), plain.command.is_none()),
            (3, 2, true)
        );
        let named = parse("benches run --quick").unwrap();
        assert!(matches!(named.command, Some(Command::Run(run)) if run.quick));
        assert!(parse("benches --quick --rounds 3").is_err());
        assert!(parse("benches --rounds 0").is_err());
        assert!(parse("benches --only helo").is_err());
        assert!(parse("benches load --root /srv").is_err());
        assert!(parse("benches load --root /srv --tcp 9000 --connections keep").is_ok());
    }
}
