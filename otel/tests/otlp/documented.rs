//! `docs/instrumentation.md` names everything that is sent, and nothing else.

use glasspool_otel::metrics::{Kind, instruments};

const PAGE: &str = include_str!("../../../docs/instrumentation.md");

/// The names between backticks.
fn named() -> Vec<&'static str> {
    PAGE.split('`').skip(1).step_by(2).collect()
}

/// The texts of the constants of a source file.
fn constants(source: &'static str) -> impl Iterator<Item = &'static str> {
    let lines = source
        .lines()
        .filter(|line| line.trim_start().starts_with("pub const "));
    lines.filter_map(|line| line.split_once(": &str = \"")?.1.split('"').next())
}

#[test]
fn every_attribute_and_event_is_documented() {
    let named = named();
    let sources = [
        include_str!("../../src/semconv.rs"),
        include_str!("../../src/metrics/instruments.rs"),
    ];
    let mut count = 0;
    for name in sources
        .into_iter()
        .flat_map(constants)
        .filter(|name| *name != "REDACTED")
    {
        assert!(named.contains(&name), "{name} is not in docs/instrumentation.md");
        count += 1;
    }
    assert!(count > 60, "{count} constants: are they written otherwise now?");
}

#[test]
fn every_instrument_is_documented_with_its_kind_and_unit() {
    for instrument in instruments::ALL {
        let name = format!("`{}`", instrument.name);
        let row = PAGE
            .lines()
            .find(|line| line.starts_with('|') && line.contains(&name));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/instrumentation.md"));
        let kind = match instrument.kind {
            Kind::Counter => "counter",
            Kind::UpDownCounter => "sum",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let cell = row.split('|').nth(2).unwrap_or_default();
        assert!(
            cell.contains(kind) && cell.contains(instrument.unit),
            "{name}: {cell}"
        );
    }
}

#[test]
fn what_is_documented_exists() {
    let known: Vec<_> = [
        include_str!("../../src/semconv.rs"),
        include_str!("../../src/metrics/instruments.rs"),
    ]
    .into_iter()
    .flat_map(|source| source.split('"').skip(1).step_by(2))
    .collect();
    for name in named().into_iter().filter(|name| name.starts_with("php.")) {
        assert!(
            name == "php." || known.contains(&name),
            "{name} is not sent any more"
        );
    }
}
