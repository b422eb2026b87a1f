//! The bar: promises as numbers, met or missed. Missing one is a result; nothing fails because of it.

use std::fmt;

use serde::Serialize;

use super::table::range;
use super::{CaseReport, Report, look, waits};
use crate::case;
use crate::stats::Summary;
use crate::telemetry::{black_hole::BlackHoleResult, counts::CountsResult};

/// One promise against what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Of what.
    pub promise: String,
    /// The bound.
    pub wanted: String,
    /// What was measured, or why nothing was.
    pub measured: String,
    /// Whether it holds; `None` when it was not measured.
    pub met: Option<bool>,
}

/// Which ratio is promised.
type Pick = fn(&CaseReport) -> Option<Summary>;

const WORKER_CPU: Pick = |case| case.ratios.worker_cpu;
const PER_SECOND: Pick = |case| case.ratios.per_second;
const P99: Pick = |case| case.ratios.p99;

impl Verdict {
    /// Judges all promises by the medians.
    pub fn all(report: &Report) -> Vec<Self> {
        let mut all = Self::of_cases(&report.cases);
        all.extend(look::verdicts(report.look.as_ref(), report.torn.as_ref()));
        all.extend(report.counts.iter().map(CountsResult::verdict));
        all.extend(report.black_hole.iter().flat_map(BlackHoleResult::verdicts));
        all.extend(waits::verdicts(
            report.hello_ebpf.as_ref(),
            report.waits_sum.as_ref(),
        ));
        all
    }

    fn of_cases(cases: &[CaseReport]) -> Vec<Self> {
        let find = |name: &str| cases.iter().find(|case| case.result.case.name == name);
        let judge = |name: &str, promise: &str, least: f64, most: f64, pick: Pick| {
            Self::judge(name, promise, (least, most), find(name), pick)
        };
        vec![
            judge(case::HELLO_TRACED, "worker CPU per request", 0.0, 0.5, WORKER_CPU),
            judge(case::HELLO_NGINX, "requests/s", 1.3, f64::INFINITY, PER_SECOND),
            judge(case::HELLO_NGINX, "p99", 0.0, 1.1, P99),
            judge(case::CPU, "worker CPU per request", 0.97, 1.03, WORKER_CPU),
            judge(case::WORDPRESS, "worker CPU per request", 0.0, 1.03, WORKER_CPU),
            Self::spans(cases),
        ]
    }

    fn judge(
        name: &str,
        promise: &str,
        (least, most): (f64, f64),
        found: Option<&CaseReport>,
        pick: Pick,
    ) -> Self {
        let ratio = found.and_then(pick);
        let wanted = match (least > 0.0, most.is_finite()) {
            (true, true) => format!("{least}-{most}"),
            (true, false) => format!("≥ {least}"),
            (false, _) => format!("≤ {most}"),
        };
        let errors: u64 = found.map_or(0, |case| {
            let sides = [&case.result.stock, &case.result.candidate];
            sides
                .iter()
                .flat_map(|side| &side.rounds)
                .map(|round| round.errors)
                .sum()
        });
        let mut measured = ratio.map_or_else(|| "not measured".to_owned(), |ratio| range(&ratio));
        if errors > 0 {
            measured += &format!(", with {errors} failed requests");
        }
        let holds = |ratio: Summary| errors == 0 && (least..=most).contains(&ratio.median);
        Self {
            promise: format!("{name}: {promise}"),
            wanted,
            measured,
            met: ratio.map(holds),
        }
    }

    /// Over all cases that export every request.
    fn spans(cases: &[CaseReport]) -> Self {
        let spans = || cases.iter().filter_map(|case| case.result.candidate.spans);
        let exact = || spans().filter_map(|spans| Some((spans, spans.lost?)));
        let requests: u64 = exact().map(|(spans, _)| spans.requests).sum();
        let lost: u64 = exact().map(|(_, lost)| lost).sum();
        let surplus: u64 = spans().map(|spans| spans.surplus).sum();
        let measured = match requests {
            0 => "not measured".to_owned(),
            _ if surplus > 0 => format!("{lost} of {requests} lost, and {surplus} too many"),
            _ => format!("{lost} of {requests} lost"),
        };
        Self {
            promise: "spans lost where every request is exported".to_owned(),
            wanted: "0".to_owned(),
            measured,
            met: (requests > 0).then_some(lost == 0 && surplus == 0),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "-",
        };
        write!(
            f,
            "{:<62}{:>8}  {:<32} {met}",
            self.promise, self.wanted, self.measured
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{CaseResult, Sample, SideResult, Spans};
    use crate::server::Facts;

    fn side(worker_cpu_us: f64, per_second: f64, errors: u64) -> SideResult {
        let sample = Sample {
            per_second,
            p50_us: 100.0,
            p99_us: 300.0,
            worker_cpu_us: Some(worker_cpu_us),
            other_cpu_us: None,
            requests: 1000,
            errors,
        };
        SideResult {
            rounds: vec![sample.clone(), sample],
            ..SideResult::default()
        }
    }

    fn report(name: &str, stock: SideResult, candidate: SideResult) -> CaseReport {
        let case = *case::CASES.iter().find(|case| case.name == name).unwrap();
        CaseReport::new(CaseResult {
            case,
            title: case.title(),
            php: Facts::default(),
            stock,
            candidate,
        })
    }

    #[test]
    fn promises_are_judged_by_the_median_ratio() {
        let cases = [
            report(case::HELLO_TRACED, side(40.0, 1.0, 0), side(20.0, 1.0, 0)),
            report(case::HELLO_NGINX, side(1.0, 1000.0, 0), side(1.0, 1290.0, 0)),
            report(case::CPU, side(100.0, 1.0, 0), side(96.0, 1.0, 0)),
        ];
        let verdicts = Verdict::of_cases(&cases);
        let met: Vec<_> = verdicts.iter().map(|verdict| verdict.met).collect();
        assert_eq!(
            met,
            [Some(true), Some(false), Some(true), Some(false), None, None]
        );
        assert!(
            verdicts[1].to_string().contains("≥ 1.3  1.29 [1.29-1.29]"),
            "{}",
            verdicts[1]
        );
        assert!(verdicts[1].to_string().ends_with("MISSED"));
    }

    #[test]
    fn a_fast_failure_meets_nothing() {
        let cases = [report(
            case::HELLO_NGINX,
            side(1.0, 1000.0, 0),
            side(1.0, 9000.0, 5),
        )];
        let verdict = &Verdict::of_cases(&cases)[1];
        assert_eq!(verdict.met, Some(false));
        assert!(verdict.measured.ends_with("with 10 failed requests"));
    }

    #[test]
    fn spans_are_counted_over_all_exact_cases() {
        let with = |lost, surplus| {
            let spans = Some(Spans {
                requests: 100,
                received: 0,
                lost,
                surplus,
            });
            report(
                case::HELLO_TRACED,
                SideResult::default(),
                SideResult {
                    spans,
                    ..SideResult::default()
                },
            )
        };
        let met = |cases: &[CaseReport]| Verdict::of_cases(cases).pop().unwrap().met;
        assert_eq!(met(&[with(Some(0), 0), with(None, 0)]), Some(true));
        assert_eq!(met(&[with(Some(0), 0), with(Some(1), 0)]), Some(false));
        assert_eq!(met(&[with(Some(0), 1)]), Some(false));
        assert_eq!(met(&[with(None, 0)]), None);
    }
}
