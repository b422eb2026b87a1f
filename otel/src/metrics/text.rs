//! A snapshot as text for people: one line for each figure.

use super::{Figure, Point, Snapshot};

/// `http.server.active_requests{php.pool=www} 3`, sorted as in the snapshot.
pub(crate) fn render(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for metric in &snapshot.metrics {
        for point in &metric.points {
            out += metric.instrument.name;
            out += &labels(point);
            out += &match &point.value {
                Figure::Int(value) => format!(" {value}"),
                Figure::Float(value) => format!(" {value:.6} {}", metric.instrument.unit),
                Figure::Histogram(histogram) => {
                    let mean = histogram.sum().as_secs_f64() / histogram.count().max(1) as f64;
                    format!(" {} requests, {:.1} ms on average", histogram.count(), mean * 1e3)
                }
            };
            out.push('\n');
        }
    }
    out
}

fn labels(point: &Point) -> String {
    let pairs = point.attributes.iter();
    let pairs: Vec<_> = pairs.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!("{{{}}}", pairs.join(","))
}
