//! What looking into processes costs, and whether it is right: tables and promises.

use std::fmt;

use super::Verdict;
use super::table::shown;
use crate::look::costs::{CHECKED, DEPTHS, HELD, SPINNING, STACK, WORDS};
use crate::look::torn::TornResult;
use crate::look::watch::{AWAKE, WATCHED};
use crate::look::{LookResult, costs, pause, watch};

impl fmt::Display for LookResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "look  (what one look at a PHP process costs, us)")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for depth in DEPTHS {
            let pair = self.p50_us(STACK, depth).zip(self.p50_us(WORDS, depth));
            if let Some((stack, words)) = pair {
                writeln!(
                    f,
                    "  {depth:>3} frames: {:.1} times as fast as a struct at a time",
                    words / stack
                )?;
            }
        }
        write!(f, "{}{}", self.pause, self.watch)
    }
}

impl fmt::Display for costs::Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  {:<36} {:>4} frames  min {:>7.1}  p50 {:>7.1}  p99 {:>8.1}  {} looks",
            self.what, self.frames, self.min_us, self.p50_us, self.p99_us, self.looks
        )?;
        if self.partial > 0 {
            write!(f, ", {} not whole", self.partial)?;
        }
        if self.wrong > 0 {
            write!(f, ", {} WRONG", self.wrong)?;
        }
        Ok(())
    }
}

impl fmt::Display for pause::PauseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((stock, candidate)) = self.summaries() else {
            return writeln!(f, "  a worker's pause for its stack was not measured");
        };
        writeln!(
            f,
            "  a worker's longest pause around the look, {SPINNING} frames, seen from inside, us: stock {}, held by the candidate {}; {} and {} entries",
            shown(&stock),
            shown(&candidate),
            self.entries.0,
            self.entries.1
        )
    }
}

impl fmt::Display for watch::WatchResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(top) = self.top() {
            writeln!(
                f,
                "  top at 2 Hz over {WATCHED} processes, one in {AWAKE} waking 20 times a second: {} % of a core",
                shown(&top)
            )?;
        }
        if let Some(record) = self.record() {
            writeln!(
                f,
                "  record at 99 Hz, CPU time of the same work: {}",
                percent(record.median)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for TornResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "torn  (unstopped looks at two chains of 22 calls, entered and left without a pause)"
        )?;
        for run in &self.runs {
            writeln!(
                f,
                "  {:<16} {} looks, {} WRONG, {} given up ({:.3} %), {:.2} reads each, p50 {:.1} us, p99 {:.1} us, up to {} frames",
                run.what,
                run.traces,
                run.wrong,
                run.given_up,
                share(run.given_up, run.traces),
                share(run.tries, run.traces - run.given_up) / 100.0,
                run.p50_us,
                run.p99_us,
                run.deepest
            )?;
            for wrong in &run.first_wrong {
                writeln!(f, "    {wrong}")?;
            }
        }
        Ok(())
    }
}

/// The promises about them.
pub(super) fn verdicts(look: Option<&LookResult>, torn: Option<&TornResult>) -> Vec<Verdict> {
    let most = |promise: String, most: f64, unit: &str, measured: Option<f64>| Verdict {
        promise,
        wanted: format!("≤ {most} {unit}"),
        measured: measured.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.1} {unit}")),
        met: measured.map(|value| value <= most),
    };
    let row = |what: &str, frames| look.and_then(|look| look.p50_us(what, frames));
    let watch = look.map(|look| &look.watch);
    let top = watch.and_then(watch::WatchResult::top);
    let record = watch.and_then(watch::WatchResult::record);
    let pauses = look.and_then(|look| look.pause.summaries());
    let totals = torn.map(TornResult::totals);
    vec![
        most(
            "look: unstopped stack of 9 frames, p50".to_owned(),
            15.0,
            "us",
            row(STACK, 9),
        ),
        most(
            "look: unstopped stack of 104 frames, p50".to_owned(),
            40.0,
            "us",
            row(STACK, 104),
        ),
        most(
            "look: the same with the check, p50".to_owned(),
            40.0,
            "us",
            row(CHECKED, 104),
        ),
        most(
            format!("look: time held at {SPINNING} frames, p50"),
            40.0,
            "us",
            row(HELD, SPINNING),
        ),
        Verdict {
            promise: "look: pause of a held worker, to stock's slowlog".to_owned(),
            wanted: "≤ 0.3 x".to_owned(),
            measured: pauses.map_or_else(
                || "not measured".to_owned(),
                |(stock, ours)| format!("{:.2} x", ours.median / stock.median),
            ),
            met: pauses.map(|(stock, ours)| ours.median <= 0.3 * stock.median),
        },
        most(
            format!("look: top at 2 Hz over {WATCHED} processes, of a core"),
            2.0,
            "%",
            top.map(|top| top.median),
        ),
        Verdict {
            promise: "look: what record at 99 Hz takes from a script".to_owned(),
            wanted: "≤ 1 %".to_owned(),
            measured: record.map_or_else(|| "not measured".to_owned(), |record| percent(record.median)),
            met: record.map(|record| record.median <= 1.01),
        },
        Verdict {
            promise: "torn: wrong stacks".to_owned(),
            wanted: "0".to_owned(),
            measured: totals.map_or_else(
                || "not measured".to_owned(),
                |(traces, wrong, _)| format!("{wrong} of {traces}"),
            ),
            met: totals.map(|(_, wrong, _)| wrong == 0),
        },
        Verdict {
            promise: "torn: given up".to_owned(),
            wanted: "< 0.2 %".to_owned(),
            measured: totals.map_or_else(
                || "not measured".to_owned(),
                |(traces, _, given_up)| format!("{:.3} %", share(given_up, traces)),
            ),
            met: totals.map(|(traces, _, given_up)| share(given_up, traces) < 0.2),
        },
    ]
}

/// `+0.4 %` for 1.004.
fn percent(ratio: f64) -> String {
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

/// Percent.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
fn share(part: u64, of: u64) -> f64 {
    if of == 0 {
        0.0
    } else {
        part as f64 / of as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::torn::TornRun;

    #[test]
    fn one_wrong_stack_breaks_the_promise() {
        let run = |wrong| TornRun {
            what: "without opcache",
            traces: 1_000,
            wrong,
            first_wrong: vec![],
            given_up: 1,
            tries: 1_998,
            p50_us: 20.0,
            p99_us: 90.0,
            deepest: 23,
        };
        let result = |wrong| TornResult {
            runs: vec![run(0), run(wrong)],
        };
        let met = |wrong| {
            let verdicts = verdicts(None, Some(&result(wrong)));
            verdicts
                .iter()
                .rev()
                .take(2)
                .map(|verdict| verdict.met)
                .collect::<Vec<_>>()
        };
        assert_eq!(met(0), [Some(true), Some(true)]);
        assert_eq!(met(1), [Some(true), Some(false)]);
        let text = result(0).to_string();
        assert!(text.contains("1 given up (0.100 %), 2.00 reads each"), "{text}");
        assert!(verdicts(None, None).iter().all(|verdict| verdict.met.is_none()));
    }

    #[test]
    fn ratios_are_told_as_differences() {
        assert_eq!(
            (percent(1.004).as_str(), percent(0.99).as_str()),
            ("+0.4 %", "-1.0 %")
        );
    }
}
