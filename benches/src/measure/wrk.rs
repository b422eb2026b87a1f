//! `wrk`: HTTP load, for what runs behind nginx.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::BenchError;
use crate::process::run_tool;
use crate::stop::Stop;

/// wrk ends a second after its time at the latest, unless connections hang.
const GRACE: Duration = Duration::from_secs(20);

/// What wrk reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Complete answers.
    pub answered: u64,
    /// Answers per second.
    pub per_second: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99_us: f64,
    /// Failed connects, reads, writes and time-outs.
    pub socket_errors: u64,
    /// Answers with another status than 2xx or 3xx.
    pub bad_status: u64,
}

/// Loads `http://address/path` with kept HTTP connections from one thread.
///
/// # Errors
/// wrk cannot be started, does not end, or its report is not understood.
pub fn run(
    wrk: &Path,
    address: SocketAddr,
    path: &str,
    clients: u32,
    time: Duration,
    dir: &Path,
    stop: &Stop,
) -> Result<Report, BenchError> {
    let seconds = time.as_secs().max(1);
    let mut command = Command::new(wrk);
    command
        .arg("-t1")
        .arg(format!("-c{clients}"))
        .arg(format!("-d{seconds}s"))
        .args(["--latency", "--timeout", "10s"])
        .arg(format!("http://{address}{path}"));
    let text = run_tool(command, &dir.join("wrk-output"), time + GRACE, stop)?;
    parse(&text).ok_or_else(|| BenchError::Tool {
        program: "wrk".to_owned(),
        reason: "wrote a report that is not understood".to_owned(),
        output: text,
    })
}

fn parse(text: &str) -> Option<Report> {
    let after = |prefix: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(prefix))
            .map(str::trim)
    };
    let answered = text.lines().find(|line| line.contains(" requests in "))?;
    let socket_errors = after("Socket errors:").map_or(Some(0), |list| {
        list.split(',')
            .map(|part| part.split_whitespace().next_back()?.parse::<u64>().ok())
            .sum()
    })?;
    Some(Report {
        answered: answered.split_whitespace().next()?.parse().ok()?,
        per_second: after("Requests/sec:")?
            .parse()
            .ok()
            .filter(|rate: &f64| rate.is_finite())?,
        p50_us: parse_time_us(after("50%")?)?,
        p99_us: parse_time_us(after("99%")?)?,
        socket_errors,
        bad_status: after("Non-2xx or 3xx responses:").map_or(Some(0), |count| count.parse().ok())?,
    })
}

/// A time as wrk's `units.c` formats it: `628.00us`, `1.23ms`, `2.50s`, `1.10m`.
fn parse_time_us(text: &str) -> Option<f64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => return None,
    };
    number
        .parse::<f64>()
        .ok()
        .filter(|time| time.is_finite())
        .map(|time| time * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Running 2s test @ http://127.0.0.1:8080/hello.php
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   380.12us  101.00us   3.45ms   90.12%
    Req/Sec    20.85k     1.20k   22.10k    75.00%
  Latency Distribution
     50%  374.00us
     75%  420.00us
     90%  480.00us
     99%    1.23ms
  41701 requests in 2.00s, 7.12MB read
Requests/sec:  20848.55
Transfer/sec:      3.56MB
";

    #[test]
    fn a_report_is_read() {
        let report = parse(TEXT).unwrap();
        let expected = Report {
            answered: 41701,
            per_second: 20848.55,
            p50_us: 374.0,
            p99_us: 1230.0,
            socket_errors: 0,
            bad_status: 0,
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn errors_are_counted() {
        let errors = "  Socket errors: connect 1, read 20, write 3, timeout 4\n  Non-2xx or 3xx responses: 17\nRequests/sec:";
        let report = parse(&TEXT.replace("Requests/sec:", errors)).unwrap();
        assert_eq!((report.socket_errors, report.bad_status), (28, 17));
    }

    #[test]
    fn times_have_units() {
        for (text, us) in [
            ("628.00us", 628.0),
            ("1.50ms", 1500.0),
            ("2.00s", 2e6),
            ("1.00m", 6e7),
        ] {
            assert_eq!(parse_time_us(text), Some(us));
        }
        for wrong in ["", "12", "ms", "nan", "infs", "1.0fortnights"] {
            assert_eq!(parse_time_us(wrong), None, "{wrong}");
        }
        assert_eq!(
            parse("unable to connect to 127.0.0.1:1 Connection refused\n"),
            None
        );
    }
}
