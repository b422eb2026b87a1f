//! The text on the terminal.

use std::fmt;

use super::{CaseReport, Measure, OTHER_CPU, P50, P99, PER_SECOND, Report, WORKER_CPU, ratio};
use crate::bench::{SideResult, Spans};
use crate::slow::SlowResult;
use crate::stats::Summary;

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = &self.result;
        let (stock, candidate) = (&result.stock, &result.candidate);
        writeln!(f, "{}  ({})", result.case.name, result.title)?;
        writeln!(
            f,
            "  {:<24}{:>12}{:>12}   ratio [range]",
            "", "stock", "candidate"
        )?;
        let rows: [(&str, Measure); 5] = [
            ("requests/s", PER_SECOND),
            ("p50, us", P50),
            ("p99, us", P99),
            ("worker CPU/request, us", WORKER_CPU),
            ("other CPU/request, us", OTHER_CPU),
        ];
        for (name, measure) in rows {
            let ratio = ratio(result, measure).filter(|_| measure as usize != OTHER_CPU as usize);
            row(f, name, median(stock, measure), median(candidate, measure), ratio)?;
        }
        let single = |f: &mut fmt::Formatter<'_>, name, of: fn(&SideResult) -> Option<f64>| {
            let pair = of(stock).zip(of(candidate)).filter(|(stock, _)| *stock != 0.0);
            let ratio = pair.map(|(stock, candidate)| candidate / stock);
            row(
                f,
                name,
                of(stock),
                of(candidate),
                ratio.and_then(|ratio| Summary::of([ratio])),
            )
        };
        single(f, "syscalls/request", |side| side.syscalls_per_request)?;
        single(f, "USS/worker, KB", |side| side.unique_set_kb)?;
        for (name, side) in [("stock", stock), ("candidate", candidate)] {
            if let Some(spans) = &side.spans {
                writeln!(f, "  spans of {name}: {spans}")?;
            }
            let errors: u64 = side.rounds.iter().map(|round| round.errors).sum();
            if errors > 0 {
                let first = side.first_error.as_deref().unwrap_or("as wrk counts them");
                writeln!(f, "  {errors} FAILED REQUESTS of {name}, first: {first}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} requests", self.received, self.requests)?;
        match self.lost {
            Some(lost) => write!(f, ", {lost} lost")?,
            None => write!(f, ", a share is exported")?,
        }
        if self.surplus > 0 {
            write!(f, ", {} TOO MANY", self.surplus)
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for SlowResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "slow-stop  (longest time a running script did not run, seen from inside, us)"
        )?;
        for (name, side) in [("stock", &self.stock), ("candidate", &self.candidate)] {
            let words =
                |gap: Option<Summary>| gap.map_or_else(|| "not measured".to_owned(), |gap| shown(&gap));
            let (gap, undisturbed) = (words(side.gap()), words(side.undisturbed()));
            let (entries, runs) = (side.slowlog_entries, side.gaps_us.len());
            let resolved = if side.is_resolved() {
                ""
            } else {
                " (no difference to be told on this machine)"
            };
            write!(
                f,
                "  {name:<10} with a slow log {gap}, without {undisturbed}{resolved}; "
            )?;
            writeln!(f, "{entries} entries for {runs} runs")?;
            for (what, samples) in [("running", &side.own_running), ("blocked", &side.own_blocked)] {
                let costs = samples.iter().map(|sample: &crate::sink::Sample| sample.cost_us);
                let Some(cost) = Summary::of(costs) else { continue };
                let how = samples.first().map_or("", |sample| sample.how.as_str());
                writeln!(
                    f,
                    "  {name:<10} {what} worker, cost by its own events: {} ({how})",
                    shown(&cost)
                )?;
            }
        }
        writeln!(
            f,
            "  not measured: what stock php-fpm's look costs a worker that sleeps in the kernel"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.skipped {
            writeln!(f, "skipped  {}: {}", note.name, note.reason)?;
        }
        for note in &self.failed {
            writeln!(
                f,
                "FAILED   {}: {}",
                note.name,
                note.reason.lines().next().unwrap_or("")
            )?;
        }
        writeln!(
            f,
            "\n{:<62}{:>8}  measured",
            "promise (candidate to stock)", "wanted"
        )?;
        for verdict in &self.bar {
            writeln!(f, "{verdict}")?;
        }
        let machine = &self.machine;
        let guest = if machine.virtual_machine {
            ", virtual machine"
        } else {
            ""
        };
        write!(
            f,
            "\n{} x {}{guest}, {}, load before the run {}; {} rounds of {} s",
            machine.cpus,
            machine.cpu,
            machine.kernel,
            machine.load_average,
            self.options.rounds,
            self.options.seconds
        )
    }
}

fn median(side: &SideResult, measure: Measure) -> Option<f64> {
    Summary::of(side.rounds.iter().filter_map(measure)).map(|summary| summary.median)
}

fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    stock: Option<f64>,
    candidate: Option<f64>,
    ratio: Option<Summary>,
) -> fmt::Result {
    if stock.is_none() && candidate.is_none() {
        return Ok(());
    }
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    write!(f, "  {name:<24}{:>12}{:>12}", cell(stock), cell(candidate))?;
    match ratio {
        Some(Summary { median, min, max }) if min == max => writeln!(f, "   {median:.2}"),
        Some(ratio) => writeln!(f, "   {}", range(&ratio)),
        None => writeln!(f),
    }
}

/// `0.43 [0.41-0.45]`.
pub(super) fn range(ratio: &Summary) -> String {
    format!("{:.2} [{:.2}-{:.2}]", ratio.median, ratio.min, ratio.max)
}

/// `229 [201-551]`.
pub(super) fn shown(summary: &Summary) -> String {
    format!(
        "{} [{}-{}]",
        number(summary.median),
        number(summary.min),
        number(summary.max)
    )
}

/// Three significant digits, as good as any of this is.
fn number(value: f64) -> String {
    match value.abs() {
        below if below < 10.0 => format!("{value:.2}"),
        below if below < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slow;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 1.234, 15.52, 443.4, 61_087.2].map(number);
        assert_eq!(numbers, ["0.00", "1.23", "15.5", "443", "61087"]);
    }

    #[test]
    fn spans_are_told_honestly() {
        let spans = Spans {
            requests: 10,
            received: 12,
            lost: Some(0),
            surplus: 2,
        };
        assert_eq!(spans.to_string(), "12 for 10 requests, 0 lost, 2 TOO MANY");
        let spans = Spans {
            requests: 1000,
            received: 9,
            lost: None,
            surplus: 0,
        };
        assert_eq!(spans.to_string(), "9 for 1000 requests, a share is exported");
    }

    #[test]
    fn the_slow_table_names_what_is_missing() {
        let side = slow::SideResult {
            gaps_us: vec![],
            undisturbed_us: vec![50.0],
            slowlog_entries: 0,
            own_running: vec![],
            own_blocked: vec![],
        };
        let text = SlowResult {
            stock: side.clone(),
            candidate: side,
        }
        .to_string();
        assert!(
            text.contains("with a slow log not measured, without 50.0 [50.0-50.0] (no difference"),
            "{text}"
        );
    }
}
