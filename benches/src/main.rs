//! The `glasspool-benches` program: reads its arguments, calls the library, prints.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use glasspool_benches::args::{Arguments, Command, Connections, LoadArguments, RunArguments};
use glasspool_benches::case::{
    BLACK_HOLE, CASES, COST, COUNTS, HELLO_EBPF, LOOK, SLOW_STOP, TORN, WAITS_SUM,
};
use glasspool_benches::load::{self, Address, Bound, Load, request};
use glasspool_benches::run;
use glasspool_benches::stop::Stop;

/// How long one request of `load` may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None => compare(&arguments.run),
        Some(Command::Run(run)) => compare(&run),
        Some(Command::Load(load)) => make_load(&load),
        Some(Command::Cases) => {
            let cases = CASES
                .iter()
                .map(|case| format!("{:<20} {}\n", case.name, case.title()));
            say(&cases.collect::<String>());
            say(&format!(
                "{SLOW_STOP:<20} how long a worker is stopped for the backtrace of a slow request\n"
            ));
            say(&format!("{LOOK:<20} what looking into PHP processes costs\n"));
            say(&format!("{TORN:<20} whether unstopped looks are ever wrong\n"));
            say(&format!(
                "{COUNTS:<20} whether clients, spans, metrics and access log agree\n"
            ));
            say(&format!("{BLACK_HOLE:<20} a collector that never answers\n"));
            say(&format!(
                "{COST:<20} what tracing costs, and the observer's share of a core\n"
            ));
            say(&format!(
                "{HELLO_EBPF:<20} what programs in the kernel cost hello, and each time they run\n"
            ));
            say(&format!(
                "{WAITS_SUM:<20} whether the parts of requests' times add up to the whole\n"
            ));
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        // Where standard error is gone, so is the reader; the status still tells.
        writeln!(std::io::stderr(), "glasspool-benches: {error:#}").unwrap_or_default();
        ExitCode::FAILURE
    })
}

fn compare(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let report = run::run(arguments, &stop, &mut |text| say(&format!("{text}\n")))?;
    let json = arguments
        .json
        .clone()
        .unwrap_or_else(|| format!("bench-results/bench-{}.json", report.machine.time_unix_s).into());
    report.write_json(&json)?;
    say(&format!("{report}\nall numbers: {}\n", json.display()));
    Ok(if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn make_load(arguments: &LoadArguments) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let address = match (&arguments.unix, arguments.tcp) {
        (Some(path), _) => Address::Unix(path.clone()),
        (None, Some(port)) => Address::Tcp(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)),
        (None, None) => anyhow::bail!("neither --unix nor --tcp is given"),
    };
    let root = arguments
        .root
        .canonicalize()
        .with_context(|| format!("--root {}", arguments.root.display()))?;
    let load = Load {
        address,
        keep: arguments.connections == Connections::Keep,
        clients: arguments.clients,
        bound: arguments
            .count
            .map_or(Bound::Time(Duration::from_secs(arguments.seconds)), Bound::Count),
        patience: PATIENCE,
        params: request::params(&root, &arguments.path, &arguments.query),
        expect: arguments.expect.clone().into_bytes(),
    };
    let outcome = load::run(&load, &stop)?;
    say(&format!(
        "{} answered, {} errors in {:.2} s: {:.0} requests/s, p50 {:.0} us, p99 {:.0} us\n",
        outcome.answered,
        outcome.errors.total(),
        outcome.elapsed.as_secs_f64(),
        outcome.per_second(),
        outcome.percentile_us(50.0),
        outcome.percentile_us(99.0),
    ));
    if let Some(first) = outcome.errors.first {
        say(&format!("first error: {first}\n"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe, as of `| head`, must not keep results from being written to the file.
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .unwrap_or_default();
}
