//! What the kernel's programs cost and whether what they tell adds up: tables and promises.

use std::fmt;

use super::Verdict;
use super::table::{range, shown};
use crate::stats::Summary;
use crate::waits::cost::CostResult;
use crate::waits::sum::{Off, SumResult};

/// Of the worker's CPU time for hello.
const MOST_CPU: f64 = 1.03;
/// Of a run of `on_switch`.
const MOST_NS: f64 = 300.0;
/// Of all requests, how many may be more than 0.1 ms off: one in so many.
const ONE_IN: u64 = 1_000;

impl fmt::Display for CostResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "hello-ebpf  (Glasspool without and with programs in the kernel, one at a time)"
        )?;
        let side = |values: &[Option<f64>]| Summary::of(values.iter().filter_map(|value| *value));
        for (what, off, on, ratio) in [
            (
                "worker CPU/request, us",
                &self.off_us,
                &self.on_us,
                self.worker_cpu(),
            ),
            (
                "requests/s",
                &self.off_per_second,
                &self.on_per_second,
                self.per_second(),
            ),
        ] {
            if let (Some(off), Some(on), Some(ratio)) = (side(off), side(on), ratio) {
                let (off, on, ratio) = (shown(&off), shown(&on), range(&ratio));
                writeln!(f, "  {what:<24} without {off}, with {on}, ratio {ratio}")?;
            }
        }
        for runs in &self.runs {
            writeln!(
                f,
                "  {:<12} {:<10} {:.0} ns a run, {:.1} runs a request, of all tasks ({} runs, measured by the kernel)",
                runs.load, runs.program, runs.each_ns, runs.per_request, runs.runs
            )?;
        }
        for reason in &self.not_measured {
            writeln!(f, "  not measured: {reason}")?;
        }
        if self.errors > 0 {
            writeln!(f, "  {} FAILED REQUESTS", self.errors)?;
        }
        Ok(())
    }
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1}, p99 {:.1}, p99.9 {:.1}, most {:.1}",
            self.p50_us, self.p99_us, self.p999_us, self.most_us
        )
    }
}

impl fmt::Display for SumResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "waits-sum  ({} requests that sleep, wait, write and compute by chance, in {:.0} s)",
            self.requests, self.elapsed_s
        )?;
        writeln!(
            f,
            "  {} spans say where the time went, {} do not, {} are missing; {} failed requests",
            self.told,
            self.untold,
            self.missing(),
            self.errors
        )?;
        writeln!(
            f,
            "  on a CPU + waiting for one + blocked, off the request's time, us: {}; {} beyond 100, {} beyond 1000",
            self.parts, self.beyond_close, self.beyond_far
        )?;
        writeln!(f, "  the causes, off the time blocked, us: {}", self.causes)?;
        writeln!(f, "  time on a CPU, off that of getrusage(2), us: {}", self.cpu)?;
        let [on_cpu, runqueue, blocked] = self.totals_s;
        write!(
            f,
            "  in all: {on_cpu:.2} s on a CPU, {runqueue:.2} s waiting for one, {blocked:.2} s blocked"
        )?;
        match self.workers_cpu_s {
            Some(cpu) => writeln!(f, "; the workers used {cpu:.2} s of CPU, between requests too"),
            None => writeln!(f),
        }?;
        for example in &self.examples {
            writeln!(f, "  off: {example}")?;
        }
        Ok(())
    }
}

impl SumResult {
    fn missing(&self) -> u64 {
        self.requests.saturating_sub(self.told + self.untold)
    }
}

/// The promises about them.
pub(super) fn verdicts(cost: Option<&CostResult>, sum: Option<&SumResult>) -> Vec<Verdict> {
    let ratio = cost.and_then(CostResult::worker_cpu);
    let errors = cost.map_or(0, |cost| cost.errors);
    let mut all = vec![Verdict {
        promise: "hello-ebpf: worker CPU per request, with programs to without".to_owned(),
        wanted: format!("≤ {MOST_CPU}"),
        measured: ratio.map_or_else(|| "not measured".to_owned(), |ratio| range(&ratio)),
        met: ratio.map(|ratio| errors == 0 && ratio.median <= MOST_CPU),
    }];
    for load in ["hello", "wordpress"] {
        let switches = cost.and_then(|cost| {
            let mut runs = cost.runs.iter();
            runs.find(|runs| runs.load == load && runs.program == "on_switch")
        });
        all.push(Verdict {
            promise: format!("hello-ebpf: a switch, under {load}"),
            wanted: format!("≤ {MOST_NS} ns"),
            measured: switches.map_or_else(
                || "not measured".to_owned(),
                |switches| format!("{:.0} ns", switches.each_ns),
            ),
            met: switches.map(|switches| switches.runs > 0 && switches.each_ns <= MOST_NS),
        });
    }
    let counted = |of: fn(&SumResult) -> u64| {
        sum.map_or_else(
            || "not measured".to_owned(),
            |sum| format!("{} of {}", of(sum), sum.requests),
        )
    };
    all.extend([
        Verdict {
            promise: "waits-sum: parts more than 0.1 ms off the whole".to_owned(),
            wanted: format!("1/{ONE_IN}"),
            measured: counted(|sum| sum.beyond_close),
            met: sum.map(|sum| sum.told > 0 && sum.beyond_close * ONE_IN <= sum.told),
        },
        Verdict {
            promise: "waits-sum: more than 1 ms off".to_owned(),
            wanted: "0".to_owned(),
            measured: counted(|sum| sum.beyond_far),
            met: sum.map(|sum| sum.told > 0 && sum.beyond_far == 0),
        },
        Verdict {
            promise: "waits-sum: requests without times".to_owned(),
            wanted: "0".to_owned(),
            measured: counted(|sum| sum.requests.saturating_sub(sum.told)),
            met: sum.map(|sum| sum.told >= sum.requests),
        },
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::cost::Runs;

    fn cost(on_us: f64, each_ns: f64) -> CostResult {
        CostResult {
            off_us: vec![Some(20.0)],
            on_us: vec![Some(on_us)],
            off_per_second: vec![Some(1000.0)],
            on_per_second: vec![Some(990.0)],
            errors: 0,
            runs: vec![Runs {
                load: "hello",
                program: "on_switch",
                runs: 10,
                per_request: 5.0,
                each_ns,
            }],
            not_measured: vec!["wordpress: no tool".to_owned()],
        }
    }

    fn sum(told: u64, beyond_close: u64, beyond_far: u64) -> SumResult {
        let off = Off {
            p50_us: 0.0,
            p99_us: 0.1,
            p999_us: 0.2,
            most_us: 12.0,
        };
        SumResult {
            requests: 10_000,
            errors: 0,
            told,
            untold: 10_000 - told,
            parts: off,
            beyond_close,
            beyond_far,
            causes: off,
            cpu: off,
            totals_s: [1.0, 2.0, 3.0],
            examples: Vec::new(),
            workers_cpu_s: Some(1.5),
            elapsed_s: 10.0,
        }
    }

    #[test]
    fn promises_are_judged() {
        let met = |cost: &CostResult, sum: &SumResult| {
            let verdicts = verdicts(Some(cost), Some(sum));
            verdicts.iter().map(|verdict| verdict.met).collect::<Vec<_>>()
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(
            met(&cost(20.4, 250.0), &sum(10_000, 10, 0)),
            [yes, yes, None, yes, yes, yes]
        );
        assert_eq!(
            met(&cost(20.8, 310.0), &sum(9_999, 11, 1)),
            [no, no, None, no, no, no]
        );
        assert!(verdicts(None, None).iter().all(|verdict| verdict.met.is_none()));
    }

    #[test]
    fn what_is_missing_is_told() {
        let text = sum(9_999, 0, 0).to_string();
        assert!(
            text.contains("9999 spans say where the time went, 1 do not, 0 are missing"),
            "{text}"
        );
        let text = cost(20.0, 250.0).to_string();
        assert!(
            text.contains("ratio 1.00 [1.00-1.00]") && text.contains("not measured: wordpress"),
            "{text}"
        );
    }
}
