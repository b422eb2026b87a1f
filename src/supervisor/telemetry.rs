//! What workers and observer are told of telemetry: the `OTEL_*` variables of our
//! environment, and `glasspool.toml` in the same words.

use std::collections::HashMap;
use std::os::fd::AsFd;

use glasspool_abi::trace::Sampler;
use glasspool_otel::options::{ExporterKind, FileDefaults, Options};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::FileType;

use crate::config::{self, Exporter, Overlay, Protocol};

/// Name and value pairs.
pub(super) type Variables = Vec<(String, String)>;

/// What may stand in a member of a W3C baggage list as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The `OTEL_*` variables of an environment; those that are not text are left out, as
/// no exporter could read them.
pub(super) fn from_env(
    environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Variables {
    let text =
        environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| name.starts_with("OTEL_")).collect()
}

/// `[otel]` and `[trace]` as variables.
pub(super) fn from_overlay(overlay: &Overlay) -> Variables {
    let otel = &overlay.otel;
    let exporter = |exporter| match exporter {
        Exporter::Otlp => "otlp",
        Exporter::Console => "console",
        Exporter::None => "none",
    };
    let protocol = |protocol| match protocol {
        Protocol::Grpc => "grpc",
        Protocol::HttpProtobuf => "http/protobuf",
    };
    let list = |pairs: Vec<(&str, &str)>| {
        let encode = |text| utf8_percent_encode(text, ENCODED).to_string();
        let members = pairs
            .into_iter()
            .map(|(key, value)| format!("{}={}", encode(key), encode(value)));
        Some(members.collect::<Vec<_>>().join(",")).filter(|list| !list.is_empty())
    };
    let headers = otel
        .headers
        .iter()
        .map(|(key, value)| (key.as_str(), value.expose()));
    let resource = otel
        .resource
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let flush = otel.flush.map(|flush| flush.as_millis().max(1).to_string());
    let variables = [
        ("OTEL_SERVICE_NAME", otel.service_name.clone()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", otel.endpoint.clone()),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            otel.protocol.map(protocol).map(str::to_owned),
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", list(headers.collect())),
        ("OTEL_RESOURCE_ATTRIBUTES", list(resource.collect())),
        (
            "OTEL_TRACES_EXPORTER",
            otel.traces.map(exporter).map(str::to_owned),
        ),
        ("OTEL_LOGS_EXPORTER", otel.logs.map(exporter).map(str::to_owned)),
        (
            "OTEL_METRICS_EXPORTER",
            otel.metrics.map(exporter).map(str::to_owned),
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", flush),
        (
            "OTEL_TRACES_SAMPLER",
            overlay.trace.sampler.map(sampler_name).map(str::to_owned),
        ),
        (
            "OTEL_TRACES_SAMPLER_ARG",
            overlay.trace.ratio.map(|ratio| ratio.to_string()),
        ),
    ];
    variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// What the file says where nothing is said anywhere: export nothing. The OpenTelemetry
/// default, a collector on this machine, is for who has asked for telemetry; who has only
/// replaced php-fpm gets no connection attempts and no `traceparent` in the application.
pub(super) fn unless_asked(env: &Variables, file: Variables) -> Variables {
    if !env.is_empty() || !file.is_empty() {
        return file;
    }
    let none = |name: &str| (name.to_owned(), "none".to_owned());
    ["TRACES", "LOGS", "METRICS"]
        .map(|signal| none(&format!("OTEL_{signal}_EXPORTER")))
        .into()
}

/// How workers sample, the environment before the file; `None` when no spans are made.
/// Also returns what is wrong with the variables.
pub(super) fn sampler(env: &Variables, file: &Variables) -> (Option<Sampler>, Vec<String>) {
    let all: HashMap<String, String> = file.iter().chain(env).cloned().collect();
    let (options, warnings) = Options::from_env(&all, FileDefaults::default());
    let warnings = warnings
        .into_iter()
        .filter(|warning| warning.variable.starts_with("OTEL_TRACES_SAMPLER"));
    let makes_spans = options.traces.exporter != ExporterKind::None;
    (
        makes_spans.then_some(options.sampler),
        warnings.map(|warning| warning.to_string()).collect(),
    )
}

/// What is to be written to standard output although that leads nowhere, as it does under
/// php-fpm's flags: there it has been let go of, as php-fpm does.
pub(super) fn unseen(env: &Variables, file: &Variables) -> Option<String> {
    let all: HashMap<String, String> = file.iter().chain(env).cloned().collect();
    let (options, _) = Options::from_env(&all, FileDefaults::default());
    let signals = [
        ("traces", &options.traces),
        ("logs", &options.logs),
        ("metrics", &options.metrics),
    ];
    let unseen: Vec<_> = signals
        .into_iter()
        .filter(|(_, signal)| signal.exporter == ExporterKind::Console)
        .map(|(name, _)| name)
        .collect();
    (!unseen.is_empty()).then(|| {
        format!(
            "nothing will be seen of {}: the exporter `console` writes to standard output, which is /dev/null (under \
             php-fpm's flags it always is); start with `glasspool run`, which keeps standard output, or choose the \
             exporter `otlp`",
            unseen.join(", ")
        )
    })
}

/// Whether this is the null device: character device 1:3, whatever its name
/// (Documentation/admin-guide/devices.txt of the kernel).
pub(super) fn is_null_device(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}

fn sampler_name(sampler: config::Sampler) -> &'static str {
    match sampler {
        config::Sampler::AlwaysOn => "always_on",
        config::Sampler::AlwaysOff => "always_off",
        config::Sampler::TraceIdRatio => "traceidratio",
        config::Sampler::ParentBasedAlwaysOn => "parentbased_always_on",
        config::Sampler::ParentBasedAlwaysOff => "parentbased_always_off",
        config::Sampler::ParentBasedTraceIdRatio => "parentbased_traceidratio",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn what_nobody_will_see_is_named() {
        let set = |pairs: &[(&str, &str)]| -> Variables {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let mut overlay = Overlay::default();
        overlay.otel.traces = Some(Exporter::Console);
        let file = from_overlay(&overlay);
        let metrics = set(&[("OTEL_METRICS_EXPORTER", "console")]);
        let text = unseen(&metrics, &file).expect("neither is seen");
        assert!(
            text.starts_with("nothing will be seen of traces, metrics: "),
            "{text}"
        );
        let otlp = set(&[("OTEL_TRACES_EXPORTER", "otlp")]);
        assert_eq!(unseen(&otlp, &file), None);
        assert_eq!(unseen(&vec![], &unless_asked(&vec![], vec![])), None);
        let null = std::fs::File::open("/dev/null").expect("opens");
        let zero = std::fs::File::open("/dev/zero").expect("opens");
        assert!(is_null_device(&null) && !is_null_device(&zero));
    }

    #[test]
    fn the_file_speaks_in_variables_and_the_environment_wins() {
        let mut overlay = Overlay::default();
        assert_eq!(from_overlay(&overlay), []);
        overlay.otel.metrics = Some(Exporter::None);
        let none = ("OTEL_METRICS_EXPORTER".to_owned(), "none".to_owned());
        assert_eq!(from_overlay(&overlay), [none]);
        overlay.otel.metrics = None;
        overlay
            .otel
            .headers
            .insert("authorization".into(), Secret::new("Bearer a,b=c"));
        overlay.trace.sampler = Some(config::Sampler::ParentBasedTraceIdRatio);
        overlay.trace.ratio = Some(0.25);
        let file = from_overlay(&overlay);
        assert_eq!(file[0].1, "authorization=Bearer%20a%2Cb%3Dc");
        assert_eq!(
            sampler(&vec![], &file).0,
            Some(Sampler {
                parent_based: true,
                ratio: 0.25
            })
        );
        let env = vec![("OTEL_TRACES_SAMPLER".to_owned(), "always_off".to_owned())];
        assert_eq!(
            sampler(&env, &file).0,
            Some(Sampler {
                parent_based: false,
                ratio: 0.0
            })
        );
        let env = vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned())];
        assert_eq!(sampler(&env, &file).0, None);
        assert_eq!(sampler(&vec![], &unless_asked(&vec![], vec![])).0, None);
        let env = vec![("OTEL_SERVICE_NAME".to_owned(), "shop".to_owned())];
        assert!(sampler(&env, &unless_asked(&env, vec![])).0.is_some());
        let env = vec![("OTEL_TRACES_SAMPLER".to_owned(), "sometimes".to_owned())];
        assert_eq!(sampler(&env, &vec![]).1.len(), 1);
    }
}
