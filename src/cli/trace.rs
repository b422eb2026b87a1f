//! `glasspool trace`: has some requests sampled for a time, in the running program.
//!
//! The request is the packet `trace ORDER`, the order in JSON (`crate::raise`); the answer
//! is lines, one a packet, the last of which is `ok` or `failed: REASON`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::Failure;
use super::supervisor::{Whom, connect, put, receive};
use crate::raise::{MOST_SECONDS, Order, PREFIX, Raise};

/// Lines of an answer that are read at most.
const MAX_LINES: usize = 1000;
/// Longest silence.
const PATIENCE: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  glasspool trace --path '/checkout*' --for 10m               all of them, whatever the sampler says
  glasspool trace --method POST --for 1h --ratio 0.1          one in ten
  glasspool trace --path /api/orders --pool shop --for 90s
  glasspool trace --list                                      what is raised, and for how long
  glasspool trace --clear                                     back to the configuration
A rule adds to what is sampled anyway and takes nothing away. It holds for requests that begin
from now on, also after a reload and in new workers; it ends by itself, or with the program. The
newest rule for a request decides. Only root and the supervisor's own user may ask. What is raised
is shown afterwards. Exit status: 0 it is in force, 1 it is not (standard error says why), 64 wrong
arguments.";

/// For which requests, or what else.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["time", "list", "clear"]))]
pub struct TraceArguments {
    #[command(flatten)]
    whom: Whom,
    /// Requests of this path; * stands for any characters, ? for one [default: every path]
    #[arg(long, value_name = "PATTERN", requires = "time", conflicts_with_all = ["list", "clear"])]
    path: Option<String>,
    /// Requests of this method [default: every method]
    #[arg(long, requires = "time", conflicts_with_all = ["list", "clear"])]
    method: Option<String>,
    /// Requests of this pool [default: every pool]
    #[arg(long, requires = "time", conflicts_with_all = ["list", "clear"])]
    pool: Option<String>,
    /// Share of them to sample, 0 to 1
    #[arg(long, default_value_t = 1.0, requires = "time", value_parser = ratio, conflicts_with_all = ["list", "clear"])]
    ratio: f64,
    /// For how long: a number with s, m or h, up to 24h
    #[arg(id = "time", long = "for", value_name = "TIME", value_parser = seconds)]
    seconds: Option<u64>,
    /// Show the rules that are raised
    #[arg(long)]
    list: bool,
    /// End all of them
    #[arg(long)]
    clear: bool,
}

pub(super) fn trace(arguments: TraceArguments, say: impl Fn(&str)) -> Result<ExitCode, Failure> {
    let pid = arguments.whom.find().map_err(Failure::ordinary)?;
    let order = match arguments.seconds {
        Some(seconds) => Order::Raise(Raise {
            path: arguments.path,
            method: arguments.method,
            pool: arguments.pool,
            ratio: arguments.ratio,
            seconds,
        }),
        None if arguments.clear => Order::Clear,
        None => Order::List,
    };
    ask(pid, &order, &say).map_err(Failure::ordinary)?;
    if !matches!(order, Order::List) {
        // What is in force now.
        ask(pid, &Order::List, &say).map_err(Failure::ordinary)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(pid: i32, order: &Order, say: impl Fn(&str)) -> anyhow::Result<()> {
    let socket = connect(pid)?;
    let question = [PREFIX, &serde_json::to_vec(order)?].concat();
    put(&socket, &question)?;
    let is_list = matches!(order, Order::List);
    let mut lines = 0;
    while lines < MAX_LINES {
        let line = receive(&socket, PATIENCE).with_context(|| format!("process {pid} does not answer"))?;
        match line.as_deref() {
            Some("ok") => {
                if is_list && lines == 0 {
                    say("no rules are raised");
                }
                return Ok(());
            }
            Some(line) => match line.strip_prefix("failed: ") {
                Some(reason) => bail!("{reason}"),
                None => say(line),
            },
            None => bail!("process {pid} stopped answering"),
        }
        lines += 1;
    }
    bail!("process {pid} does not come to an end")
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "a number from 0 to 1 is needed".to_owned())
}

fn seconds(text: &str) -> Result<u64, String> {
    let unit = text.len() - text.chars().next_back().map_or(0, char::len_utf8);
    let (count, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let count: Option<u64> = count.parse().ok();
    let time = count
        .zip(seconds)
        .and_then(|(count, unit)| count.checked_mul(unit));
    time.filter(|time| (1..=MOST_SECONDS).contains(time))
        .ok_or_else(|| "a whole number with s, m or h is needed, up to 24h, such as 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        trace: TraceArguments,
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for (line, is_right) in [
            ("--for 10m --path /a --pool www --ratio 0.5", true),
            ("--list", true),
            ("--clear 4711", true),
            ("--clear --path /a", false),
            ("--clear --pool www", false),
            ("--clear --ratio 0.5", false),
            ("--list --method GET", false),
            ("--list --clear", false),
            ("--path /a", false),
        ] {
            let words = std::iter::once("trace").chain(line.split_whitespace());
            assert_eq!(Program::try_parse_from(words).is_ok(), is_right, "{line}");
        }
    }

    #[test]
    fn times_and_ratios() {
        for (text, expected) in [("90s", 90), ("10m", 600), ("24h", 86_400)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in [
            "",
            "10",
            "m",
            "0s",
            "25h",
            "-1m",
            "1.5h",
            "10\u{b5}",
            "99999999999999999999h",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(ratio("0.5"), Ok(0.5));
        for bad in ["", "2", "-0.1", "NaN", "all"] {
            assert!(ratio(bad).is_err(), "{bad}");
        }
    }
}
