//! What workers and observer are told of telemetry: the `OTEL_*` variables of our
//! environment, and `glasspool.toml` in the same words.

use std::collections::HashMap;
use std::os::fd::AsFd;

use glasspool_abi::trace::Sampler;
use glasspool_abi::trace::policy::Propagators;
use glasspool_otel::options::{ExporterKind, FileDefaults, Options};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::FileType;

use super::error::StartError;
use crate::config::{self, Exporter, ListenAddress, Overlay, Protocol};

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
    // Who names a file and no collector wants everything there.
    let implied = (otel.file.is_some() && otel.endpoint.is_none()).then_some(Exporter::OtlpFile);
    let name = |exporter| match exporter {
        Exporter::Otlp => "otlp",
        Exporter::OtlpFile => "otlp_file",
        Exporter::OtlpStdout => "otlp/stdout",
        Exporter::Console => "console",
        Exporter::None => "none",
    };
    let exporter = |chosen: Option<Exporter>| chosen.or(implied).map(name).map(str::to_owned);
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
        ("OTEL_TRACES_EXPORTER", exporter(otel.traces)),
        ("OTEL_LOGS_EXPORTER", exporter(otel.logs)),
        ("OTEL_METRICS_EXPORTER", exporter(otel.metrics)),
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

/// What the file says where nothing is said anywhere, also not by what variables have no
/// words for (`asked`): export nothing. The OpenTelemetry
/// default, a collector on this machine, is for who has asked for telemetry; who has only
/// replaced php-fpm gets no connection attempts and no `traceparent` in the application.
pub(super) fn unless_asked(env: &Variables, file: Variables, asked: bool) -> Variables {
    if asked || !env.is_empty() || !file.is_empty() {
        return file;
    }
    let none = |name: &str| (name.to_owned(), "none".to_owned());
    ["TRACES", "LOGS", "METRICS"]
        .map(|signal| none(&format!("OTEL_{signal}_EXPORTER")))
        .into()
}

/// The port that the specification gives to metrics that are fetched.
const SCRAPE_PORT: u16 = 9464;

/// Where metrics are fetched, if they are: where the environment says, else where the file
/// does, else where the specification does.
///
/// # Errors
/// When the environment names a host that is no address.
pub(super) fn scrape_address(
    env: &Variables,
    file: &Variables,
    overlay: &Overlay,
) -> Result<Option<ListenAddress>, StartError> {
    let options = options(env, file);
    let (asked, listen) = (options.prometheus, overlay.metrics.listen.as_ref());
    if options.disabled || !(asked.wanted || listen.is_some()) {
        return Ok(None);
    }
    if !asked.wanted || (asked.host.is_none() && asked.port.is_none() && listen.is_some()) {
        return Ok(listen.cloned());
    }
    let (host, port) = (
        asked.host.as_deref().unwrap_or("localhost"),
        asked.port.unwrap_or(SCRAPE_PORT),
    );
    let ip = config::scrape_host(host).ok_or_else(|| StartError::Metrics {
        address: format!("{host}:{port}"),
        why: "the host is neither an IP address nor localhost, and names are not looked up".to_owned(),
    })?;
    Ok(Some(ListenAddress::Tcp((ip, port).into())))
}

/// Whether metrics are sent to anybody.
pub(super) fn sends_metrics(env: &Variables, file: &Variables) -> bool {
    options(env, file).metrics.exporter != ExporterKind::None
}

fn options(env: &Variables, file: &Variables) -> Options {
    let all: HashMap<String, String> = file.iter().chain(env).cloned().collect();
    // The observer tells what is wrong with them.
    Options::from_env(&all, FileDefaults::default()).0
}

/// How workers sample, the environment before the file, and which headers they read;
/// without a sampler when no spans are made. Also returns what is wrong with the variables.
pub(super) fn sampling(env: &Variables, file: &Variables) -> (Option<Sampler>, Propagators, Vec<String>) {
    let all: HashMap<String, String> = file.iter().chain(env).cloned().collect();
    let (options, warnings) = Options::from_env(&all, FileDefaults::default());
    let warnings = warnings.into_iter().filter(|warning| warning.is_about_workers());
    let makes_spans = options.traces.exporter != ExporterKind::None;
    (
        makes_spans.then_some(options.sampler),
        options.propagators,
        warnings.map(|warning| warning.to_string()).collect(),
    )
}

/// Where each signal goes, for people, and what is wrong with the variables.
pub(super) fn describe(env: &Variables, file: &Variables) -> (Vec<String>, Vec<String>) {
    let all: HashMap<String, String> = file.iter().chain(env).cloned().collect();
    let (options, warnings) = Options::from_env(&all, FileDefaults::default());
    let signals = [
        ("traces", &options.traces),
        ("logs", &options.logs),
        ("metrics", &options.metrics),
    ];
    let lines = signals.map(|(name, signal)| match signal.exporter {
        ExporterKind::Otlp => format!("{name}: sent to {}", signal.target.endpoint),
        ExporterKind::OtlpFile => format!("{name}: written to the file of [otel]"),
        ExporterKind::OtlpStdout => format!("{name}: written to standard output as OTLP"),
        ExporterKind::Console => format!("{name}: shown at standard output"),
        ExporterKind::None => format!("{name}: sent to nobody"),
    });
    let warnings = warnings.iter().map(ToString::to_string);
    (lines.into(), warnings.collect())
}

/// What is to be written to a file that nobody has named.
pub(super) fn without_file(env: &Variables, file: &Variables) -> Option<String> {
    let signals = signals_to(env, file, &[ExporterKind::OtlpFile]);
    (!signals.is_empty()).then(|| {
        format!(
            "{} will be lost: the exporter `otlp_file` has no file; name one in glasspool.toml, [otel] file",
            signals.join(", ")
        )
    })
}

/// The signals that go to one of these.
fn signals_to(env: &Variables, file: &Variables, kinds: &[ExporterKind]) -> Vec<&'static str> {
    let all: HashMap<String, String> = file.iter().chain(env).cloned().collect();
    let (options, _) = Options::from_env(&all, FileDefaults::default());
    let signals = [
        ("traces", &options.traces),
        ("logs", &options.logs),
        ("metrics", &options.metrics),
    ];
    let signals = signals.into_iter();
    let chosen = signals.filter(|(_, signal)| kinds.contains(&signal.exporter));
    chosen.map(|(name, _)| name).collect()
}

/// What is to be written to standard output although that leads nowhere, as it does under
/// php-fpm's flags: there it has been let go of, as php-fpm does.
pub(super) fn unseen(env: &Variables, file: &Variables) -> Option<String> {
    let unseen = signals_to(env, file, &[ExporterKind::Console, ExporterKind::OtlpStdout]);
    (!unseen.is_empty()).then(|| {
        format!(
            "nothing will be seen of {}: the exporters `console` and `otlp/stdout` write to standard output, which is \
             /dev/null (under php-fpm's flags it always is); start with `glasspool run`, which keeps standard output, \
             or choose the exporter `otlp` or `otlp_file`",
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
    use crate::config::{Otel, Secret};

    #[test]
    fn where_each_signal_goes_is_told_with_what_is_wrong() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let file = vec![set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
        let env = vec![
            set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            set("OTEL_LOGS_EXPORTER", "otlp_file"),
            set("OTEL_METRICS_EXPORTER", "none"),
            set("OTEL_TRACES_SAMPLER", "bogus"),
        ];
        let (lines, wrong) = describe(&env, &file);
        assert_eq!(
            lines,
            [
                "traces: sent to http://collector:4318/v1/traces",
                "logs: written to the file of [otel]",
                "metrics: sent to nobody"
            ]
        );
        assert!(matches!(&wrong[..], [one] if one.contains("bogus")), "{wrong:?}");
    }

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
        assert_eq!(unseen(&vec![], &unless_asked(&vec![], vec![], false)), None);
        let nowhere = set(&[("OTEL_LOGS_EXPORTER", "otlp_file")]);
        let text = without_file(&nowhere, &file).expect("there is no file");
        assert!(text.starts_with("logs will be lost: "), "{text}");
        assert_eq!(without_file(&otlp, &file), None);
        let null = std::fs::File::open("/dev/null").expect("opens");
        let zero = std::fs::File::open("/dev/zero").expect("opens");
        assert!(is_null_device(&null) && !is_null_device(&zero));
    }

    #[test]
    fn metrics_are_fetched_where_the_environment_says_then_where_the_file_does() {
        let address = |listen: Option<&str>, env: &[(&str, &str)]| {
            let mut overlay = Overlay::default();
            overlay.metrics.listen = listen.map(|text| ListenAddress::Tcp(text.parse().expect("an address")));
            let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let env: Variables = env.collect();
            let file = unless_asked(&env, from_overlay(&overlay), false);
            match scrape_address(&env, &file, &overlay) {
                Ok(Some(ListenAddress::Tcp(address))) => Some(address.to_string()),
                Ok(None) => None,
                other => Some(format!("{other:?}")),
            }
        };
        let on = ("OTEL_METRICS_EXPORTER", "otlp,prometheus");
        let (host, port) = ("OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT");
        let file = Some("127.0.0.9:1");
        for (listen, env, expected) in [
            (None, &[][..], None),
            (None, &[(port, "7")], None),
            (None, &[on], Some("127.0.0.1:9464")),
            (None, &[on, (host, "::")], Some("[::]:9464")),
            (None, &[on, (port, "7")], Some("127.0.0.1:7")),
            (file, &[], Some("127.0.0.9:1")),
            (file, &[("OTEL_METRICS_EXPORTER", "none")], Some("127.0.0.9:1")),
            (file, &[on], Some("127.0.0.9:1")),
            (file, &[on, (host, "0.0.0.0")], Some("0.0.0.0:9464")),
            (file, &[on, ("OTEL_SDK_DISABLED", "true")], None),
        ] {
            assert_eq!(address(listen, env).as_deref(), expected, "{listen:?} {env:?}");
        }
        let refused = address(None, &[on, (host, "web7")]).expect("is refused");
        assert!(
            refused.contains("web7:9464") && refused.contains("not looked up"),
            "{refused}"
        );
    }

    #[test]
    fn the_file_speaks_in_variables_and_the_environment_wins() {
        let mut overlay = Overlay::default();
        assert_eq!(from_overlay(&overlay), []);
        overlay.otel.metrics = Some(Exporter::None);
        let none = ("OTEL_METRICS_EXPORTER".to_owned(), "none".to_owned());
        assert_eq!(from_overlay(&overlay), [none]);
        overlay.otel.metrics = None;
        overlay.otel.file = Some("/var/log/telemetry".into());
        overlay.otel.logs = Some(Exporter::None);
        let implied = [
            ("TRACES", "otlp_file"),
            ("LOGS", "none"),
            ("METRICS", "otlp_file"),
        ];
        let implied = implied.map(|(signal, name)| (format!("OTEL_{signal}_EXPORTER"), name.to_owned()));
        assert_eq!(from_overlay(&overlay), implied);
        overlay.otel.endpoint = Some("http://[::1]:4317".into());
        assert_eq!(
            from_overlay(&overlay).len(),
            2,
            "a collector and no traces to the file"
        );
        overlay.otel = Otel::default();
        overlay
            .otel
            .headers
            .insert("authorization".into(), Secret::new("Bearer a,b=c"));
        overlay.trace.sampler = Some(config::Sampler::ParentBasedTraceIdRatio);
        overlay.trace.ratio = Some(0.25);
        let file = from_overlay(&overlay);
        assert_eq!(file[0].1, "authorization=Bearer%20a%2Cb%3Dc");
        assert_eq!(
            sampling(&vec![], &file).0,
            Some(Sampler {
                parent_based: true,
                ratio: 0.25
            })
        );
        let env = vec![("OTEL_TRACES_SAMPLER".to_owned(), "always_off".to_owned())];
        assert_eq!(
            sampling(&env, &file).0,
            Some(Sampler {
                parent_based: false,
                ratio: 0.0
            })
        );
        let env = vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned())];
        assert_eq!(sampling(&env, &file).0, None);
        assert_eq!(sampling(&vec![], &unless_asked(&vec![], vec![], false)).0, None);
        let env = vec![("OTEL_SERVICE_NAME".to_owned(), "shop".to_owned())];
        assert!(sampling(&env, &unless_asked(&env, vec![], false)).0.is_some());
        let env = vec![("OTEL_TRACES_SAMPLER".to_owned(), "sometimes".to_owned())];
        assert_eq!(sampling(&env, &vec![]).2.len(), 1);
    }
}
