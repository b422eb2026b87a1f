use std::sync::Arc;

use glasspool_abi::trace::{SpanId, TraceId};

use super::super::instruments::{KILLED, REQUEST_DURATION, RUNG, STOP_TIME};
use super::*;

fn snapshot(pool: &str) -> Snapshot {
    let one = |instrument, value| {
        let mut metric = Metric::new(instrument);
        metric.add(vec![KeyValue::new("php.pool", pool.to_owned())], value);
        metric
    };
    let mut histogram = Histogram::default();
    for ns in [4_000_000, 900_000_000, 1_000_000_000, 20_000_000_000] {
        histogram.record(ns);
    }
    histogram.remember(Exemplar {
        ns: 900_000_000,
        unix_ns: 1_700_000_000_123_456_789,
        trace_id: TraceId([0xab; 16]),
        span_id: SpanId([0x01; 8]),
    });
    Snapshot {
        start_unix_ns: 1,
        time_unix_ns: 2,
        metrics: vec![
            one(&KILLED, Figure::Int(3)),
            one(&STOP_TIME, Figure::Float(0.25)),
            one(&RUNG, Figure::Int(4)),
            Metric::new(&super::super::instruments::LOOKS),
            one(&REQUEST_DURATION, Figure::Histogram(Arc::new(histogram))),
        ],
    }
}

fn resource() -> Resource {
    Resource::builder_empty()
        .with_attributes([KeyValue::new("service.name", "sh\"op")])
        .build()
}

fn page(pool: &str, format: Format) -> String {
    let foreign = [Foreign {
        name: "phpfpm_up",
        help: "Whether it runs.",
        points: vec![(vec![("pool", pool.to_owned())], 1)],
    }];
    render(&snapshot(pool), &resource(), &foreign, format)
}

/// The line that starts so.
fn line<'a>(page: &'a str, start: &str) -> &'a str {
    let found = page.lines().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no {start:?} in:\n{page}"))
}

#[test]
fn the_text_format_is_what_every_scraper_reads() {
    let page = page("www", Format::Text);
    let scope = concat!(
        "otel_scope_name=\"glasspool\",otel_scope_version=\"",
        env!("CARGO_PKG_VERSION"),
        "\""
    );
    for expected in [
        "# TYPE target_info gauge".to_owned(),
        "target_info{service_name=\"sh\\\"op\"} 1".to_owned(),
        "# TYPE php_request_killed_total counter".to_owned(),
        format!("php_request_killed_total{{{scope},php_pool=\"www\"}} 3"),
        format!("php_observer_stop_time_seconds_total{{{scope},php_pool=\"www\"}} 0.25"),
        "# TYPE php_observer_rung gauge".to_owned(),
        "# TYPE http_server_request_duration_seconds histogram".to_owned(),
        format!("http_server_request_duration_seconds_bucket{{{scope},php_pool=\"www\",le=\"0.005\"}} 1"),
        format!("http_server_request_duration_seconds_bucket{{{scope},php_pool=\"www\",le=\"1\"}} 3"),
        format!("http_server_request_duration_seconds_bucket{{{scope},php_pool=\"www\",le=\"+Inf\"}} 4"),
        format!("http_server_request_duration_seconds_sum{{{scope},php_pool=\"www\"}} 21.904"),
        format!("http_server_request_duration_seconds_count{{{scope},php_pool=\"www\"}} 4"),
        "phpfpm_up{pool=\"www\"} 1".to_owned(),
    ] {
        assert!(
            page.lines().any(|line| line == expected),
            "no {expected:?} in:\n{page}"
        );
    }
    for foreign in ["trace_id", "# EOF", "# UNIT", "php_observer_looks"] {
        assert!(!page.contains(foreign), "{foreign} in:\n{page}");
    }
}

#[test]
fn openmetrics_has_exemplars_units_and_an_end() {
    let page = page("www", Format::OpenMetrics);
    let bucket = line(&page, "http_server_request_duration_seconds_bucket{")
        .split(",le=")
        .next()
        .expect("a start");
    let exemplar = format!(
        "{bucket},le=\"1.0\"}} 3 # {{trace_id=\"{}\",span_id=\"{}\"}} 0.9 1700000000.123",
        "ab".repeat(16),
        "01".repeat(8)
    );
    assert_eq!(line(&page, &format!("{bucket},le=\"1.0\"")), exemplar);
    assert_eq!(page.matches("trace_id").count(), 1);
    line(&page, "# TYPE php_request_killed counter");
    line(&page, "php_request_killed_total{");
    line(&page, "# TYPE target info");
    line(&page, "target_info{");
    line(&page, "# UNIT php_observer_stop_time_seconds seconds");
    line(&page, "# TYPE phpfpm_up unknown");
    assert!(page.ends_with("\n# EOF\n"));
    assert_eq!(page.matches("# EOF").count(), 1);
}

#[test]
fn no_value_breaks_its_line() {
    for format in [Format::Text, Format::OpenMetrics] {
        let plain = page("www", format);
        // As it comes from a configuration file that is not UTF-8.
        let odd = String::from_utf8_lossy(b"a\"b\\c\nd\xff{},# \xf0\x9f");
        let odd = page(&odd, format);
        assert_eq!(plain.lines().count(), odd.lines().count());
        assert!(
            odd.contains("php_pool=\"a\\\"b\\\\c\\nd\u{fffd}{},# \u{fffd}\""),
            "{odd}"
        );
    }
}

#[test]
fn scrapers_get_what_they_ask_for() {
    use Format::{OpenMetrics, Text};
    for (accept, expected) in [
        ("", Text),
        ("*/*", Text),
        ("text/html,application/xhtml+xml", Text),
        ("text/plain;version=0.0.4", Text),
        ("application/openmetrics-text", OpenMetrics),
        ("Application/OpenMetrics-Text; version=1.0.0", OpenMetrics),
        // Prometheus 2.42 and 3.0.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OpenMetrics,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
            OpenMetrics,
        ),
        ("application/openmetrics-text;q=0.1,text/plain", Text),
        ("application/openmetrics-text;q=0", Text),
        ("application/openmetrics-text;version=2.0.0", Text),
        ("application/openmetrics-text;q=nan", Text),
    ] {
        assert_eq!(Format::negotiate(accept), expected, "{accept}");
    }
}

proptest::proptest! {
    #[test]
    fn no_header_and_no_name_is_too_odd(accept in ".{0,80}", pool in ".{0,20}") {
        let _format = Format::negotiate(&accept);
        let lines = page("www", Format::OpenMetrics).lines().count();
        let odd = page(&pool, Format::OpenMetrics);
        proptest::prop_assert_eq!(odd.split('\n').count(), lines + 1);
    }
}
