//! A snapshot as OTLP.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::{
        common::v1::KeyValue as WireKeyValue,
        metrics::v1::{
            AggregationTemporality, Exemplar as WireExemplar, Gauge, Histogram as WireHistogram,
            HistogramDataPoint, Metric as WireMetric, NumberDataPoint, Sum, exemplar::Value as ExemplarValue,
            metric::Data, number_data_point::Value,
        },
    },
    transform::common::tonic::Attributes,
};

use super::{DURATION_BOUNDS, Exemplar, Figure, Histogram, Instrument, Kind, Metric, Snapshot};
use crate::options::Temporality;

/// All metrics of `now`; where the temporality says so, as differences to `before`, which
/// is the last snapshot that was taken by the receiver.
pub(crate) fn metrics(
    now: &Snapshot,
    before: Option<&Snapshot>,
    temporality: Temporality,
) -> Vec<WireMetric> {
    let metrics = now.metrics.iter().filter(|metric| !metric.points.is_empty());
    let encode = |metric: &Metric| {
        let differs = metric.instrument.is_difference(temporality);
        let before = before.filter(|_| differs);
        let times = Times {
            // The clock may have been set back since the last one.
            start: before.map_or(now.start_unix_ns, |before| {
                before.time_unix_ns.min(now.time_unix_ns.saturating_sub(1))
            }),
            now: now.time_unix_ns,
        };
        let before = before.and_then(|before| {
            let same = |old: &&Metric| old.instrument == metric.instrument;
            before.metrics.iter().find(same)
        });
        WireMetric {
            name: metric.instrument.name.to_owned(),
            description: metric.instrument.description.to_owned(),
            unit: metric.instrument.unit.to_owned(),
            metadata: Vec::new(),
            data: Some(data(metric, before, times, differs)),
        }
    };
    metrics.map(encode).collect()
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

impl Instrument {
    /// specification/metrics/sdk_exporters/otlp.md, "Additional Environment Variable
    /// Configuration". Our counters are read when a snapshot is made, which the
    /// specification calls asynchronous; histograms are recorded as things happen.
    fn is_difference(&self, temporality: Temporality) -> bool {
        match (temporality, self.kind) {
            (Temporality::Cumulative, _) | (_, Kind::UpDownCounter | Kind::Gauge) => false,
            (Temporality::Delta, Kind::Counter | Kind::Histogram) => true,
            (Temporality::LowMemory, kind) => kind == Kind::Histogram,
        }
    }
}

fn data(metric: &Metric, before: Option<&Metric>, times: Times, differs: bool) -> Data {
    let aggregation_temporality = if differs {
        AggregationTemporality::Delta
    } else {
        AggregationTemporality::Cumulative
    };
    let aggregation_temporality = aggregation_temporality.into();
    let old = |attributes: &[KeyValue]| {
        let points = before.map_or(&[][..], |before| &before.points);
        points
            .iter()
            .find(|point| point.attributes == attributes)
            .map(|point| &point.value)
    };
    let numbers = || {
        let points = metric.points.iter();
        points
            .filter_map(|point| number(&point.attributes, &point.value, old(&point.attributes), times))
            .collect()
    };
    match metric.instrument.kind {
        Kind::Gauge => Data::Gauge(Gauge {
            data_points: numbers(),
        }),
        kind @ (Kind::Counter | Kind::UpDownCounter) => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality,
            is_monotonic: kind == Kind::Counter,
        }),
        Kind::Histogram => Data::Histogram(WireHistogram {
            data_points: metric
                .points
                .iter()
                .filter_map(|point| {
                    histogram(
                        &point.attributes,
                        &point.value,
                        old(&point.attributes),
                        times,
                        differs,
                    )
                })
                .collect(),
            aggregation_temporality,
        }),
    }
}

fn number(
    attributes: &[KeyValue],
    value: &Figure,
    old: Option<&Figure>,
    times: Times,
) -> Option<NumberDataPoint> {
    let value = match (value, old) {
        (Figure::Int(now), Some(Figure::Int(old))) => Value::AsInt(now.saturating_sub(*old)),
        (Figure::Int(now), _) => Value::AsInt(*now),
        (Figure::Float(now), Some(Figure::Float(old))) => Value::AsDouble((now - old).max(0.0)),
        (Figure::Float(now), _) => Value::AsDouble(*now),
        (Figure::Histogram(_), _) => return None,
    };
    Some(NumberDataPoint {
        attributes: on_wire(attributes),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(
    attributes: &[KeyValue],
    value: &Figure,
    old: Option<&Figure>,
    times: Times,
    differs: bool,
) -> Option<HistogramDataPoint> {
    let Figure::Histogram(total) = value else {
        return None;
    };
    let difference: Histogram;
    let told = match old {
        Some(Figure::Histogram(old)) => {
            difference = total.since(old);
            &difference
        }
        _ => total.as_ref(),
    };
    // Those of a whole life say nothing of one interval.
    let extremes = total.extremes().filter(|_| !differs);
    Some(HistogramDataPoint {
        attributes: on_wire(attributes),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: told.count(),
        sum: Some(told.sum().as_secs_f64()),
        bucket_counts: told.buckets().to_vec(),
        explicit_bounds: DURATION_BOUNDS.to_vec(),
        exemplars: told.exemplars().iter().flatten().map(exemplar).collect(),
        min: extremes.map(|(min, _)| min.as_secs_f64()),
        max: extremes.map(|(_, max)| max.as_secs_f64()),
        ..HistogramDataPoint::default()
    })
}

fn exemplar(of: &Exemplar) -> WireExemplar {
    WireExemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: of.unix_ns,
        span_id: of.span_id.0.to_vec(),
        trace_id: of.trace_id.0.to_vec(),
        value: Some(ExemplarValue::AsDouble(Duration::from_nanos(of.ns).as_secs_f64())),
    }
}

fn on_wire(attributes: &[KeyValue]) -> Vec<WireKeyValue> {
    Attributes::from(attributes.iter().cloned()).0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::instruments::{ACTIVE_REQUESTS, LOOKS, REQUEST_DURATION, RUNG, STOP_TIME};
    use super::*;

    fn snapshot(time: u64, looks: u64, stopped: f64, durations: &[u64]) -> Snapshot {
        let mut histogram = Histogram::default();
        durations.iter().for_each(|ns| histogram.record(*ns));
        let one = |instrument, value: Figure| {
            let mut metric = Metric::new(instrument);
            metric.add(vec![KeyValue::new("php.pool", "www")], value);
            metric
        };
        Snapshot {
            start_unix_ns: 1,
            time_unix_ns: time,
            metrics: vec![
                one(&LOOKS, looks.into()),
                one(&STOP_TIME, Figure::Float(stopped)),
                one(&ACTIVE_REQUESTS, Figure::Int(5)),
                one(&RUNG, Figure::Int(3)),
                one(&REQUEST_DURATION, Figure::Histogram(Arc::new(histogram))),
            ],
        }
    }

    /// Start, value and temporality of each metric; for a histogram its count.
    fn told(metrics: &[WireMetric]) -> Vec<(u64, f64, i32)> {
        let number = |point: &NumberDataPoint| match point.value {
            Some(Value::AsInt(value)) => (point.start_time_unix_nano, value as f64),
            Some(Value::AsDouble(value)) => (point.start_time_unix_nano, value),
            None => panic!("a point without a value"),
        };
        let tell = |metric: &WireMetric| match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => {
                let (start, value) = number(&gauge.data_points[0]);
                (start, value, 0)
            }
            Data::Sum(sum) => {
                let (start, value) = number(&sum.data_points[0]);
                (start, value, sum.aggregation_temporality)
            }
            Data::Histogram(histogram) => {
                let point = &histogram.data_points[0];
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                (
                    point.start_time_unix_nano,
                    point.count as f64,
                    histogram.aggregation_temporality,
                )
            }
            other => panic!("{other:?}"),
        };
        metrics.iter().map(tell).collect()
    }

    const DELTA: i32 = AggregationTemporality::Delta as i32;
    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

    #[test]
    fn each_temporality_is_for_the_instruments_that_the_specification_names() {
        let before = snapshot(10, 3, 0.5, &[1, 2]);
        let now = snapshot(20, 10, 0.75, &[1, 2, 3]);
        let told = |temporality| told(&metrics(&now, Some(&before), temporality));
        let total = |value| (1, value, CUMULATIVE);
        let since = |value| (10, value, DELTA);
        let (active, rung) = ((1, 5.0, CUMULATIVE), (1, 3.0, 0));
        assert_eq!(
            told(Temporality::Cumulative),
            [total(10.0), total(0.75), active, rung, total(3.0)]
        );
        assert_eq!(
            told(Temporality::Delta),
            [since(7.0), since(0.25), active, rung, since(1.0)]
        );
        assert_eq!(
            told(Temporality::LowMemory),
            [total(10.0), total(0.75), active, rung, since(1.0)]
        );
    }

    #[test]
    fn the_first_difference_is_that_since_the_start() {
        let now = snapshot(20, 10, 0.5, &[3]);
        let all = told(&metrics(&now, None, Temporality::Delta));
        assert_eq!(all[0], (1, 10.0, DELTA));
        assert_eq!(all[4], (1, 1.0, DELTA));
    }

    #[test]
    fn a_bucket_names_the_request_that_stands_for_it() {
        use glasspool_abi::trace::{SpanId, TraceId};
        let mut histogram = Histogram::default();
        histogram.record(250_000_000);
        histogram.remember(Exemplar {
            ns: 250_000_000,
            unix_ns: 9,
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([0xcd; 8]),
        });
        let mut metric = Metric::new(&REQUEST_DURATION);
        metric.add(Vec::new(), Figure::Histogram(Arc::new(histogram)));
        let now = Snapshot {
            start_unix_ns: 1,
            time_unix_ns: 10,
            metrics: vec![metric],
        };
        let told = metrics(&now, None, Temporality::Cumulative);
        let Some(Data::Histogram(told)) = &told[0].data else {
            panic!("{told:?}");
        };
        let [exemplar] = &told.data_points[0].exemplars[..] else {
            panic!("{told:?}");
        };
        assert_eq!(exemplar.trace_id, [0xab; 16]);
        assert_eq!(exemplar.span_id, [0xcd; 8]);
        assert_eq!(exemplar.time_unix_nano, 9);
        assert_eq!(exemplar.value, Some(ExemplarValue::AsDouble(0.25)));
    }

    #[test]
    fn an_instrument_without_figures_is_not_told() {
        let now = Snapshot {
            start_unix_ns: 1,
            time_unix_ns: 2,
            metrics: vec![Metric::new(&LOOKS)],
        };
        assert_eq!(metrics(&now, None, Temporality::Cumulative), []);
    }
}
