//! Metrics: what is measured ([`instruments`]), one moment's figures of all of it
//! ([`Snapshot`]), and that as Prometheus reads it ([`prometheus`]).
//!
//! Figures are totals that the caller keeps in plain integers; nothing here is touched
//! while a request is served or its record is read, but for [`Histogram::record`]. A snapshot
//! is made when it is to be sent.

mod histogram;
pub mod instruments;
pub mod prometheus;
mod text;
pub(crate) mod wire;

use std::sync::Arc;

pub use opentelemetry::KeyValue;

pub use self::histogram::{DURATION_BOUNDS, Exemplar, Histogram};
pub use self::instruments::{Instrument, Kind};
pub(crate) use self::text::render;

/// All figures at one moment, counted since the same start.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Wall clock when counting began, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    /// Wall clock now, likewise; later than every snapshot before.
    pub time_unix_ns: u64,
    /// The figures, each instrument at most once.
    pub metrics: Vec<Metric>,
}

/// One instrument's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// What is measured.
    pub instrument: &'static Instrument,
    /// One for each set of attributes; no set twice.
    pub points: Vec<Point>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// What it is about, in an order that does not change from snapshot to snapshot.
    pub attributes: Vec<KeyValue>,
    /// How much.
    pub value: Figure,
}

/// A figure's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Figure {
    /// A count.
    Int(i64),
    /// A measured quantity, such as seconds.
    Float(f64),
    /// A distribution. Shared, as it is copied with each snapshot.
    Histogram(Arc<Histogram>),
}

impl From<u64> for Figure {
    fn from(count: u64) -> Figure {
        Figure::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }
}

impl Metric {
    /// A metric without figures.
    pub fn new(instrument: &'static Instrument) -> Metric {
        Metric {
            instrument,
            points: Vec::new(),
        }
    }

    /// Adds a figure.
    pub fn add(&mut self, attributes: Vec<KeyValue>, value: impl Into<Figure>) {
        self.points.push(Point {
            attributes,
            value: value.into(),
        });
    }
}
