//! The arguments of the commands.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::targets::Selector;

const TARGETS_HELP: &str = "\
PID, POOL or all. A pool is every process with the title `php-fpm: pool POOL`, of Glasspool and of \
php-fpm alike; `pool:NAME` where the name is a number or `all`";

const DUMP_EXAMPLES: &str = "\
Examples:
  glasspool dump 4182             the stack of one process
  glasspool dump www              of a pool's workers, those that do the same as one
  glasspool dump all --json       of everything that runs PHP, for a program
  glasspool dump www --no-group --native
A line after ~ is the last one that PHP noted; the process may be a little further.
Exit status: 0 all were read, 1 some could not be (standard error says which), 64 wrong arguments.";

const RECORD_EXAMPLES: &str = "\
Examples:
  glasspool record www --seconds 10 -o www.svg                 a flame graph of a pool
  glasspool record 4182 --seconds 5 --format collapsed
  glasspool record all --by uri --seconds 30 --rate 49 --format speedscope -o all.json
  glasspool record www --seconds 10 --format pprof -o www.pb.gz && pprof -http : www.pb.gz
Time is wall-clock time: a process that waits is counted too, with what it waits for as the
innermost frame. Idle workers are left out, unless with --idle. No process is ever stopped.
Ctrl-C ends it early and writes what there is.
Exit status: 0 recorded, 1 something could not be read or written, 64 wrong arguments.";

const TOP_EXAMPLES: &str = "\
Examples:
  glasspool top                   everything that runs PHP
  glasspool top www api           two pools
  glasspool top www --once        one table as text
Where standard output is no terminal, the table is printed again and again.
Keys: arrows or j k select, enter dump, s sort, r reverse, / filter, space pause, ? help, q quit.
Exit status: 0, 1 nothing could be read, 64 wrong arguments.";

const WAITS_EXAMPLES: &str = "\
Examples:
  glasspool waits www             where a pool's time goes that no CPU gets, for ten seconds
  glasspool waits 4182 --seconds 60
  glasspool waits www --format flamegraph -o www-waits.svg     the stacks that wait, and what for
  glasspool waits all --format collapsed -o all.folded
The kernel tells each wait of a millisecond and longer: the line of PHP, what for, and with
whom; no process is stopped. Needs root, or CAP_BPF and CAP_PERFMON; and CAP_SYS_PTRACE to find
PHP in the processes of others. Ctrl-C ends it early and shows what there is.
Exit status: 0 all were watched, 1 some could not be, or there was nothing to write (standard error
says which), 64 wrong arguments.";

/// Which processes, and how to show their stacks.
#[derive(Debug, Clone, Args)]
#[command(after_help = DUMP_EXAMPLES)]
pub struct DumpArguments {
    /// What to look at
    #[arg(value_name = "PID|POOL|all", required = true, help = TARGETS_HELP)]
    pub targets: Vec<Selector>,
    /// Also the C functions below PHP's, where a process waits; with source lines where there is debug information
    #[arg(long)]
    pub native: bool,
    /// What to show of arguments; values are never shown
    #[arg(long, value_enum, default_value = "off", value_name = "WHAT")]
    pub args: ShowArgs,
    /// One JSON document rather than text
    #[arg(long)]
    pub json: bool,
    /// Show each process by itself, also those that do the same as another
    #[arg(long)]
    pub no_group: bool,
    /// Frames of each stack, innermost first
    #[arg(long, value_name = "FRAMES", default_value = "128")]
    pub limit: NonZeroUsize,
}

/// What a dump shows of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShowArgs {
    /// Nothing.
    Off,
    /// Their types and sizes, such as `string(41)`.
    Types,
}

/// Which processes to record, for how long, and into what.
#[derive(Debug, Clone, Args)]
#[command(after_help = RECORD_EXAMPLES)]
pub struct RecordArguments {
    /// What to look at
    #[arg(value_name = "PID|POOL|all", required = true, help = TARGETS_HELP)]
    pub targets: Vec<Selector>,
    /// How long
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Looks at each process in a second; 99 rather than 100 keeps out of step with timers
    #[arg(long, value_name = "HZ", default_value = "99", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Where it goes; `-` is standard output, which is the default where it is no terminal
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What it is
    #[arg(long, value_enum, default_value = "flamegraph")]
    pub format: Format,
    /// What the outermost frame stands for
    #[arg(long, value_enum, default_value = "pool")]
    pub by: By,
    /// Count processes that run no PHP code, too
    #[arg(long)]
    pub idle: bool,
}

/// What a recording is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A picture to look around in with a browser (SVG)
    Flamegraph,
    /// JSON for speedscope
    Speedscope,
    /// A line for each stack: its frames, outermost first, and how often it was seen
    Collapsed,
    /// Gzipped protocol buffer of `pprof` and the tools that read its format
    Pprof,
}

/// What the samples are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The pool; a process that belongs to none counts by its program.
    Pool,
    /// Method and path of the request, without the query.
    Uri,
    /// The process.
    Process,
}

/// What to watch, and how often.
#[derive(Debug, Clone, Args)]
#[command(after_help = TOP_EXAMPLES)]
pub struct TopArguments {
    /// What to look at
    #[arg(value_name = "PID|POOL|all", default_value = "all", help = TARGETS_HELP)]
    pub targets: Vec<Selector>,
    /// From one look to the next (ms, s)
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = interval)]
    pub interval: Duration,
    /// Print one table and end
    #[arg(long)]
    pub once: bool,
}

/// Whose waits to add up, and for how long.
#[derive(Debug, Clone, Args)]
#[command(after_help = WAITS_EXAMPLES)]
pub struct WaitsArguments {
    /// What to look at
    #[arg(value_name = "PID|POOL|all", required = true, help = TARGETS_HELP)]
    pub targets: Vec<Selector>,
    /// How long
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Where it goes; `-` is standard output, which is the default
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What it is
    #[arg(long, value_enum, default_value = "table")]
    pub format: WaitsFormat,
}

/// What waits are shown as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitsFormat {
    /// A line for each place that waits, the most time first
    Table,
    /// A picture to look around in with a browser (SVG)
    Flamegraph,
    /// A line for each stack: its frames, outermost first, what it waits for, and microseconds
    #[value(alias = "folded")]
    Collapsed,
}

/// A whole number with `ms` or `s`, from 50 ms to an hour.
fn interval(text: &str) -> Result<Duration, String> {
    let (digits, scale) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').unwrap_or_default(), 1000),
    };
    digits
        .parse::<u32>()
        .ok()
        .map(|count| Duration::from_millis(u64::from(count) * scale))
        .filter(|time| (Duration::from_millis(50)..=Duration::from_secs(3600)).contains(time))
        .ok_or_else(|| "expected a number with ms or s, from 50ms to 3600s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, Subcommand};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Dump(DumpArguments),
        Record(RecordArguments),
        Top(TopArguments),
        Waits(WaitsArguments),
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("glasspool").chain(line.split(' '));
        Program::try_parse_from(words).map(|program| program.command)
    }

    #[test]
    fn the_command_lines_are_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let Ok(Command::Dump(dump)) = parse("dump www") else {
            panic!("is a dump")
        };
        assert!(!dump.native && !dump.json && !dump.no_group);
        assert_eq!((dump.args, dump.limit.get()), (ShowArgs::Off, 128));
        let Ok(Command::Record(record)) = parse("record www") else {
            panic!("is a record")
        };
        assert_eq!((record.seconds, record.rate, record.idle), (10, 99, false));
        assert_eq!((record.format, record.by), (Format::Flamegraph, By::Pool));
        let Ok(Command::Top(top)) = parse("top") else {
            panic!("is a top")
        };
        assert_eq!(top.targets, [Selector::All]);
        assert_eq!(top.interval, Duration::from_millis(500));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "dump",
            "dump www --limit 0",
            "dump www --args values",
            "record www --seconds 0",
            "record www --rate 0",
            "record www --rate 5000",
            "record www --format svg",
            "top --interval 10ms",
            "waits",
            "waits www --seconds 0",
            "waits www --format pprof",
            "top --interval 500",
            "top --interval -1s",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
