//! Whether a request's time is all somewhere: on a CPU, waiting for one, or blocked.

use hdrhistogram::Histogram;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

/// What is promised of all but one request in a thousand, nanoseconds.
pub const CLOSE_NS: u64 = 100_000;
/// What is promised of all.
pub const FAR_NS: u64 = 1_000_000;
/// That are kept.
const EXAMPLES: usize = 5;
/// What is farther off counts as this: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// Of all requests whose spans have arrived.
#[derive(Debug, Clone)]
pub struct Sums {
    /// Spans that say where the time went, by the kernel's programs.
    pub told: u64,
    /// Spans that do not.
    pub untold: u64,
    /// By how much the parts are off the whole, nanoseconds.
    pub parts: Histogram<u64>,
    /// More than [`CLOSE_NS`] off.
    pub beyond_close: u64,
    /// More than [`FAR_NS`] off.
    pub beyond_far: u64,
    /// By how much the causes are off the time blocked, nanoseconds.
    pub causes: Histogram<u64>,
    /// By how much the time on a CPU is off what getrusage(2) says, nanoseconds.
    pub cpu: Histogram<u64>,
    /// Total of each part, seconds: on a CPU, waiting for one, blocked.
    pub totals_s: [f64; 3],
    /// The first that are more than [`CLOSE_NS`] off, in words.
    pub examples: Vec<String>,
}

impl Default for Sums {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds and digits are possible");
        Self {
            told: 0,
            untold: 0,
            parts: empty(),
            beyond_close: 0,
            beyond_far: 0,
            causes: empty(),
            cpu: empty(),
            totals_s: [0.0; 3],
            examples: Vec::new(),
        }
    }
}

impl Sums {
    /// Adds a request.
    pub(super) fn add(&mut self, span: &Span) {
        let number = |key: &str| match value(span, key) {
            Some(Value::DoubleValue(seconds)) => Some(*seconds),
            _ => None,
        };
        let parts = ["php.time.on_cpu", "php.time.runqueue", "php.time.blocked"].map(number);
        let ([Some(on_cpu), Some(runqueue), Some(blocked)], Some(_)) =
            (parts, value(span, "php.waits.count"))
        else {
            self.untold += 1;
            return;
        };
        self.told += 1;
        let after = number("php.request.post_response_duration").unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "requests are shorter than 2^53 ns")]
        let whole = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) as f64 / 1e9 + after;
        let off = nanoseconds(on_cpu + runqueue + blocked - whole);
        self.parts.saturating_record(off);
        if off > CLOSE_NS && self.examples.len() < EXAMPLES {
            self.examples.push(format!(
                "{whole:.6} s, of it {after:.6} s after the response: {on_cpu:.6} s on a CPU, {runqueue:.6} s waiting \
                 for one, {blocked:.6} s blocked"
            ));
        }
        self.beyond_close += u64::from(off > CLOSE_NS);
        self.beyond_far += u64::from(off > FAR_NS);
        let causes = span.attributes.iter().filter_map(|attribute| {
            attribute.key.strip_prefix("php.blocked.")?;
            number(&attribute.key)
        });
        self.causes
            .saturating_record(nanoseconds(blocked - causes.sum::<f64>()));
        let cpu = ["php.cpu.user_time", "php.cpu.system_time"].map(|key| number(key).unwrap_or(0.0));
        self.cpu
            .saturating_record(nanoseconds(on_cpu - cpu.iter().sum::<f64>()));
        for (total, part) in self.totals_s.iter_mut().zip([on_cpu, runqueue, blocked]) {
            *total += part;
        }
    }
}

fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.as_ref()?.value.as_ref()
}

/// Of seconds, whatever their sign.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is not negative"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds.abs() * 1e9).round() as u64
}
