//! `glasspool.toml`: what it gives, what it overrides, and how its mistakes read.

use std::time::Duration;

use glasspool_abi::trace::origin::ProxyHeaders;
use glasspool_abi::trace::policy::Trust;

use super::super::*;
use super::{Fixture, pool_text};

const ALL: &str = r#"
[php]
binary = "/usr/sbin/php-fpm8.2"
ini = "/etc/php/8.2/fpm/php.ini"
define = ["memory_limit=64M", "display_errors"]

[otel]
service_name = "shop"
endpoint = "http://127.0.0.1:4317"
protocol = "http/protobuf"
headers = { authorization = "Bearer hunter2" }
resource = { "deployment.environment.name" = "test" }
traces = "console"
logs = "none"
metrics = "otlp"
queue_bytes = 1048576
flush = "5s"

[metrics]
listen = "[::1]:9464"
phpfpm_names = true

[trace]
sampler = "parentbased_traceidratio"
ratio = 0.01

[slow]
after = "250ms"
depth = 30
samples = 7
stop = "never"

[observer]
user = "nobody"
samples_per_second = 50
stop_per_second = "5ms"
history_bytes = 1048576

[logs]
error_format = "json"
slow_format = "php-fpm"
access_format = "%s %{trace_id}x"

[ebpf]
mode = "required"
wait_threshold = "2ms"
span_threshold = "1s"
frames = 32
system_calls = true

[pool.WWW.slow]
after = "2s"
samples = 1
stop = "always"
"#;

const PHP_FPM: &str = "slowlog = /dev/null\nrequest_slowlog_timeout = 9\nrequest_slowlog_trace_depth = 7\n\
                       [api]\nlisten = 9001\npm = static\npm.max_children = 1";

fn fixture(overlay: &str) -> Fixture {
    let fixture = Fixture::new(&pool_text(PHP_FPM));
    fixture.write("glasspool.toml", overlay);
    fixture
}

#[test]
fn every_key_arrives() {
    let settings = fixture(ALL).load().unwrap();
    let overlay = &settings.overlay;
    assert_eq!(overlay.php.binary, Some("/usr/sbin/php-fpm8.2".into()));
    assert_eq!(overlay.php.ini, Some("/etc/php/8.2/fpm/php.ini".into()));
    assert_eq!(overlay.php.define, ["memory_limit=64M", "display_errors"]);
    assert_eq!(overlay.observer.history_bytes, 1 << 20);
    assert_eq!(settings.global.error_form, LogForm::Json);
    assert_eq!(settings.pools[0].slow_form, LogForm::PhpFpm);
    let codes = AccessForm::Codes("%s %{trace_id}x".to_owned());
    assert_eq!(settings.pools[0].access_form, Some(codes));
    assert_eq!(overlay.otel.service_name.as_deref(), Some("shop"));
    assert_eq!(overlay.otel.endpoint.as_deref(), Some("http://127.0.0.1:4317"));
    assert_eq!(overlay.otel.protocol, Some(Protocol::HttpProtobuf));
    assert_eq!(overlay.otel.headers["authorization"].expose(), "Bearer hunter2");
    assert_eq!(overlay.otel.resource["deployment.environment.name"], "test");
    assert_eq!(
        (overlay.otel.traces, overlay.otel.logs, overlay.otel.metrics),
        (
            Some(Exporter::Console),
            Some(Exporter::None),
            Some(Exporter::Otlp)
        )
    );
    assert_eq!(
        (overlay.otel.queue_bytes, overlay.otel.flush),
        (1 << 20, Some(Duration::from_secs(5)))
    );
    assert_eq!(overlay.trace.sampler, Some(Sampler::ParentBasedTraceIdRatio));
    assert_eq!(overlay.trace.ratio, Some(0.01));
    let listen = ListenAddress::Tcp("[::1]:9464".parse().unwrap());
    assert_eq!(overlay.metrics.listen, Some(listen));
    assert!(overlay.metrics.phpfpm_names);
    assert_eq!(overlay.observer.user.as_deref(), Some("nobody"));
    assert_eq!(
        (
            overlay.observer.samples_per_second.get(),
            overlay.observer.stop_per_second
        ),
        (50, Duration::from_millis(5))
    );
    let ebpf = Ebpf {
        mode: EbpfMode::Required,
        wait_threshold: Duration::from_millis(2),
        span_threshold: Duration::from_secs(1),
        frames: 32,
        system_calls: true,
    };
    assert_eq!(overlay.ebpf, ebpf);
    assert!(
        !format!("{settings:?}").contains("hunter2"),
        "a credential shows in Debug"
    );
}

#[test]
fn metrics_are_fetched_at_an_address_or_a_path() {
    let listen = |text: &str| {
        let settings = fixture(&format!("[metrics]\nlisten = \"{text}\"")).load();
        settings.unwrap().overlay.metrics.listen.unwrap()
    };
    let tcp = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
    assert_eq!(listen("0.0.0.0:1"), tcp("0.0.0.0:1"));
    assert_eq!(listen("LocalHost:9464"), tcp("127.0.0.1:9464"));
    assert_eq!(listen("[::]:9464"), tcp("[::]:9464"));
    assert_eq!(
        listen("unix:/run/m.sock"),
        ListenAddress::Unix("/run/m.sock".into())
    );
}

#[test]
fn slow_values_by_precedence() {
    let slow = |overlay: &str| -> Vec<(Option<Duration>, u32, u32, SlowStop)> {
        let pools = fixture(overlay).load().unwrap().pools;
        pools
            .iter()
            .map(|pool| {
                let (depth, samples) = (pool.slow_depth.get(), pool.slow_samples.get());
                (pool.slow_after, depth, samples, pool.slow_stop)
            })
            .collect()
    };
    let (ms, s) = (
        |n| Some(Duration::from_millis(n)),
        |n| Some(Duration::from_secs(n)),
    );
    assert_eq!(
        slow(""),
        [
            (s(9), 7, 4, SlowStop::IfNeeded),
            (None, 20, 4, SlowStop::IfNeeded)
        ]
    );
    assert_eq!(
        slow(ALL),
        [(s(2), 30, 1, SlowStop::Always), (ms(250), 30, 7, SlowStop::Never)]
    );
    let off = "slow.after = \"1m\"\npool.api.slow.after = \"0s\"";
    assert_eq!(
        slow(off),
        [
            (s(60), 7, 4, SlowStop::IfNeeded),
            (None, 20, 4, SlowStop::IfNeeded)
        ]
    );
}

#[test]
fn telemetry_may_go_to_a_file() {
    let otel =
        fixture("[otel]\nfile = \"/var/log/php.jsonl\"\ntraces = \"otlp_file\"\nlogs = \"otlp/stdout\"");
    let otel = otel.load().unwrap().overlay.otel;
    assert_eq!(otel.file.as_deref(), Some("/var/log/php.jsonl"));
    assert_eq!(
        (otel.traces, otel.logs),
        (Some(Exporter::OtlpFile), Some(Exporter::OtlpStdout))
    );
    for path in ["php.jsonl", "/var/log/", ""] {
        let refused = fixture(&format!("[otel]\nfile = \"{path}\"")).refusal();
        assert!(
            refused.starts_with("[glasspool.toml:2:8] invalid value: "),
            "{refused}"
        );
        assert!(refused.contains("a file's whole path"), "{refused}");
    }
}

#[test]
fn early_spans_are_left_out_where_it_is_said() {
    let early = |overlay: &str| -> Vec<bool> {
        let pools = fixture(overlay).load().unwrap().pools;
        pools.iter().map(|pool| pool.still_running).collect()
    };
    assert_eq!(early(""), [true, true]);
    assert_eq!(early("slow.still_running = false"), [false, false]);
    assert_eq!(
        early("slow.still_running = false\npool.api.slow.still_running = true"),
        [false, true]
    );
}

#[test]
fn a_pool_may_have_a_php_of_its_own() {
    let own = "[pool.api.php]\nbinary = \"/usr/sbin/php-fpm8.4\"\nini = \"/etc/api.ini\"\ndefine = [\"a=1\", \"b\"]";
    let pools = fixture(own).load().unwrap().pools;
    let expected = PoolPhp {
        binary: Some("/usr/sbin/php-fpm8.4".into()),
        ini: Some("/etc/api.ini".into()),
        define: vec!["a=1".into(), "b".into()],
    };
    assert_eq!((&pools[0].php, &pools[1].php), (&PoolPhp::default(), &expected));
    let refused = fixture("[pool.api.php]\ndefine = [\"=1\"]").refusal();
    assert!(
        refused.starts_with("[glasspool.toml:2:10] invalid value: string \"=1\""),
        "{refused}"
    );
    let refused = fixture("pool.api.php.bin = \"x\"").refusal();
    assert!(
        refused.contains("unknown key 'bin' (did you mean 'binary'?)"),
        "{refused}"
    );
}

#[test]
fn every_sampler_and_exporter_name() {
    let samplers = [
        ("always_on", Sampler::AlwaysOn),
        ("always_off", Sampler::AlwaysOff),
        ("traceidratio", Sampler::TraceIdRatio),
        ("parentbased_always_on", Sampler::ParentBasedAlwaysOn),
        ("parentbased_always_off", Sampler::ParentBasedAlwaysOff),
        ("parentbased_traceidratio", Sampler::ParentBasedTraceIdRatio),
    ];
    for (name, sampler) in samplers {
        let settings = fixture(&format!("[trace]\nsampler = \"{name}\"")).load().unwrap();
        assert_eq!(settings.overlay.trace.sampler, Some(sampler));
    }
    let settings = fixture("[otel]\nprotocol = \"grpc\"\ntraces = \"otlp\"")
        .load()
        .unwrap();
    assert_eq!(settings.overlay.otel.protocol, Some(Protocol::Grpc));
    assert_eq!(settings.overlay.otel.traces, Some(Exporter::Otlp));
}

#[test]
fn ebpf_may_be_its_mode_alone() {
    for (text, mode) in [
        ("", EbpfMode::Auto),
        ("ebpf = \"off\"", EbpfMode::Off),
        ("ebpf = \"required\"", EbpfMode::Required),
        ("[ebpf]\nmode = \"off\"", EbpfMode::Off),
        ("ebpf.mode = \"auto\"", EbpfMode::Auto),
    ] {
        let ebpf = fixture(text).load().unwrap().overlay.ebpf;
        let expected = Ebpf {
            mode,
            ..Ebpf::default()
        };
        assert_eq!(ebpf, expected, "{text}");
    }
}

#[test]
fn mistakes_in_ebpf() {
    let table = [
        (
            "ebpf = \"on\"",
            "[glasspool.toml:1:8] unknown variant `on`, expected one of `auto`, `off`, `required`",
        ),
        (
            "[ebpf]\nmode = \"on\"",
            "[glasspool.toml:2:8] unknown variant `on`, expected one of `auto`, `off`, `required`",
        ),
        (
            "[slow]\n[ebpf]\nmod = 1",
            "[glasspool.toml:3:1] unknown key 'mod' (did you mean 'mode'?), allowed are mode, wait_threshold, span_threshold, frames, system_calls",
        ),
        (
            "ebpf = true",
            "[glasspool.toml:1:8] invalid type: boolean `true`, expected a table, or one of `auto`, `off`, `required`",
        ),
        (
            "[ebpf]\nwait_threshold = \"0ms\"",
            "[glasspool.toml:2:18] invalid value: string \"0ms\", expected a whole number with ms or s, from 1ms to 60s",
        ),
        ("[ebpf]\nspan_threshold = \"2m\"", "from 1ms to 60s"),
        (
            "[ebpf]\nframes = 33",
            "[glasspool.toml:2:10] invalid value: integer `33`, expected a number from 1 to 32",
        ),
        ("[ebpf]\nframes = 0", "expected a number from 1 to 32"),
        (
            "[slow]\n[ebpf]\nwait_threshold = \"20ms\"",
            "span_threshold (10ms) is below wait_threshold (20ms), and shorter waits are not told",
        ),
        (
            "[ebpf]\nmode = \"off\"\nsystem_calls = true",
            "system_calls = true needs the programs, and mode = \"off\" leaves them out",
        ),
    ];
    for (text, expected) in table {
        let message = fixture(text).refusal();
        assert!(message.contains(expected), "{text}: {message}");
    }
    let place = fixture("[slow]\n[ebpf]\nwait_threshold = \"20ms\"").refusal();
    assert!(place.starts_with("[glasspool.toml:2:1]"), "{place}");
}

#[test]
fn mistakes_have_file_line_column_and_what_is_allowed() {
    let table = [
        (
            "[slow]\naftr = \"1s\"",
            "[glasspool.toml:2:1] unknown key 'aftr' (did you mean 'after'?), allowed are after, depth, samples, \
             stop, still_running",
        ),
        (
            "[sloww]",
            "[glasspool.toml:1:2] unknown key 'sloww' (did you mean 'slow'?), allowed are php, otel, metrics, trace, slow, logs, observer, ebpf, pool",
        ),
        (
            "[pool.www]\nslwo = 1",
            "[glasspool.toml:2:1] unknown key 'slwo' (did you mean 'slow'?), allowed are php, access_format, slow, trace",
        ),
        (
            "[trace]\nsampler_ratio = 1",
            "[glasspool.toml:2:1] unknown key 'sampler_ratio' (did you mean 'sampler'?)",
        ),
        (
            "[pool.shop.slow]",
            "[glasspool.toml:1:7] [pool.shop] overrides a pool that php-fpm.conf does not define (known: www, api)",
        ),
        (
            "[slow]\nafter = \"soon\"",
            "[glasspool.toml:2:9] invalid value: string \"soon\", expected a whole number with ms, s or m",
        ),
        ("[slow]\nafter = \"25h\"", "a whole number with ms, s or m"),
        ("[slow]\nafter = \"1500m\"", "up to 24 hours"),
        (
            "[slow]\nafter = 3",
            "[glasspool.toml:2:9] invalid type: integer `3`, expected a string",
        ),
        (
            "[slow]\ndepth = 0",
            "[glasspool.toml:2:9] invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "[slow]\nsamples = 0",
            "[glasspool.toml:2:11] invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "[slow]\nstop = \"sometimes\"",
            "unknown variant `sometimes`, expected one of `if-needed`, `never`, `always`",
        ),
        (
            "[observer]\nsamples_per_second = 0",
            "invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "[observer]\nstop_per_second = \"2s\"",
            "expected a whole number with ms or s, up to a second, such as \"10ms\"",
        ),
        (
            "[observer]\nsamples = 9",
            "unknown key 'samples' (did you mean 'samples_per_second'?), allowed are user, samples_per_second, stop_per_second",
        ),
        (
            "[otel]\nprotocol = \"http/json\"",
            "unknown variant `http/json`, expected `grpc` or `http/protobuf`",
        ),
        (
            "[otel]\nendpoint = \"localhost:4317\"",
            "expected a URL such as \"http://127.0.0.1:4317\"",
        ),
        (
            "[otel]\nqueue_bytes = 5",
            "expected a number of bytes from 65536 (64 KiB) to 4294967296 (4 GiB)",
        ),
        (
            "[metrics]\nlisten = \"9464\"",
            "expected an IP address or localhost with a port, such as \"127.0.0.1:9464\", or \"unix:/absolute/path\"",
        ),
        ("[metrics]\nlisten = \"web7:9464\"", "an IP address or localhost"),
        (
            "[metrics]\nlisten = \"127.0.0.1:0\"",
            "an IP address or localhost",
        ),
        (
            "[metrics]\nlisten = \"unix:relative\"",
            "an IP address or localhost",
        ),
        (
            "[metrics]\nlistn = 1",
            "unknown key 'listn' (did you mean 'listen'?), allowed are listen, phpfpm_names",
        ),
        ("[otel]\nqueue_bytes = -5", "invalid value: integer `-5`"),
        ("[otel]\nflush = \"0s\"", "expected a duration above zero"),
        ("[trace]\nratio = 1.5", "expected a number from 0 to 1"),
        ("[trace]\nratio = nan", "expected a number from 0 to 1"),
        (
            "[trace]\nsampler = \"always_on\"\nratio = 0.5",
            "ratio has no effect with this sampler",
        ),
        (
            "[pool.www.trace]\nsampler = \"always_off\"\nratio = 0.5",
            "ratio has no effect with this sampler",
        ),
        (
            "[trace]\nroute_from_controller = \"yes\"",
            "[glasspool.toml:2:25] invalid type: string \"yes\", expected true, false, or a list of classes",
        ),
        (
            "[trace]\nroute_from_controller = [\"*Controller\", \"! \"]",
            "\"! \": a pattern of classes has 1 to 128 bytes and no blanks",
        ),
        (
            "[pool.www.trace]\nroute_from_controller = [\"\"]",
            "\"\": a pattern of classes has 1 to 128 bytes",
        ),
        (
            "[trace]\n[[trace.rule]]\npath = \"checkout\"\nratio = 1",
            "[glasspool.toml:3:8] \"checkout\": a path pattern starts with / or *",
        ),
        (
            "[[trace.rule]]\npath = \"/a\"",
            "[glasspool.toml:1:1] missing field `ratio`",
        ),
        (
            "[[trace.rule]]\nratio = 2",
            "[glasspool.toml:2:9] invalid value: floating point `2.0`, expected a number from 0 to 1",
        ),
        (
            "[[trace.rule]]\nratio = 1\nmethod = \"get\"",
            "[glasspool.toml:3:10] invalid value: string \"get\", expected a method in capital letters",
        ),
        (
            "[[trace.rule]]\nratio = 1\nrate = 1",
            "[glasspool.toml:3:1] unknown key 'rate' (did you mean 'ratio'?), allowed are path, method, pool, ratio",
        ),
        (
            "[[trace.rule]]\nratio = 1\npool = \"shop\"",
            "[glasspool.toml:3:8] this rule is for the pool 'shop', which ",
        ),
        ("[[trace.route]]\npath = \"/user/*\"", "missing field `template`"),
        (
            "[[trace.route]]\npath = \"/user/*\"\ntemplate = \"\"",
            "[glasspool.toml:3:12] invalid value: string \"\", expected a route of 1 to 128 bytes",
        ),
        (
            "[trace]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "[glasspool.toml:2:19] \"10.0.0.0/33\": a network is an IP address with or without /BITS",
        ),
        (
            "[trace]\ntrust_incoming = \"yes\"",
            "expected true, false, or a list of networks such as",
        ),
        (
            "[trace]\ntrust_incoming = [\"host\"]",
            "\"host\": a network is an IP address",
        ),
        (
            "[trace]\nproxy_headers = \"x-real-ip\"",
            "unknown variant `x-real-ip`, expected `x-forwarded` or `forwarded`",
        ),
        (
            "[php]\ndefine = [\"=x\"]",
            "expected one line \"name=value\" for each INI entry",
        ),
        ("[slow", "[glasspool.toml:1:"),
        ("[slow]\n[slow]", "[glasspool.toml:2:2] duplicate key"),
    ];
    for (text, expected) in table {
        let message = fixture(text).refusal();
        assert!(message.contains(expected), "{text}: {message}");
    }
    let far = fixture("[slow]\nqqq = 1").refusal();
    assert!(!far.contains("did you mean"), "{far}");
}

#[test]
fn found_beside_php_fpm_conf_or_where_it_is_named() {
    let mut fixture = fixture("slow.after = \"1s\"");
    assert_eq!(
        fixture.load().unwrap().overlay.slow.after,
        Some(Duration::from_secs(1))
    );
    fixture.overlay = Some(fixture.write("elsewhere/own.toml", "slow.after = \"2s\""));
    assert_eq!(
        fixture.load().unwrap().overlay.slow.after,
        Some(Duration::from_secs(2))
    );
    fixture.overlay = Some(fixture.path("missing.toml"));
    assert_eq!(
        fixture.refusal(),
        "failed to open configuration file 'missing.toml': No such file or directory (2)"
    );
    fixture.overlay = Some(fixture.write("latin1.toml", b"[php]\nini = \"caf\xe9\""));
    assert_eq!(
        fixture.refusal(),
        "[latin1.toml:2] line is not valid UTF-8 at byte 10"
    );
    assert!(
        Fixture::new(&pool_text(""))
            .load()
            .unwrap()
            .overlay
            .slow
            .after
            .is_none()
    );
}

#[test]
fn settings_can_be_made_without_a_file() {
    let workers = std::num::NonZeroU32::new(2).unwrap();
    let pool = Pool::new("serve", ListenAddress::Unix("/tmp/s".into()), workers);
    let settings = Settings::single(Pool {
        slow_after: Some(Duration::from_millis(250)),
        ..pool
    });
    assert_eq!(
        (settings.pools.len(), settings.pools[0].slow_depth),
        (1, DEFAULT_SLOW_DEPTH)
    );
    assert_eq!(settings.overlay.otel.queue_bytes, DEFAULT_QUEUE_BYTES);
}

#[test]
fn rules_routes_and_whose_word_counts() {
    let text = "
        [trace]
        trust_incoming = [\"10.0.0.0/8\", \"::1\"]
        trusted_proxies = [\"10.0.0.1\"]
        proxy_headers = \"forwarded\"
        redact_query = [\"token\"]
        [[trace.rule]]
        path = \"/checkout*\"
        method = \"POST\"
        pool = \"WWW\"
        ratio = 1
        [[trace.rule]]
        ratio = 0.5
        [[trace.route]]
        path = \"/user/*\"
        template = \"/user/{id}\"
        [pool.api.trace]
        ratio = 0.25";
    let settings = fixture(text).load().unwrap();
    let trace = &settings.overlay.trace;
    assert!(matches!(&trace.trust_incoming, Trust::From(networks) if networks.len() == 2));
    assert_eq!(trace.trusted_proxies.len(), 1);
    assert_eq!(trace.proxy_headers, ProxyHeaders::Forwarded);
    assert_eq!(trace.redact_query.as_deref(), Some(&["token".to_owned()][..]));
    let [first, second] = &trace.rules[..] else {
        panic!("{:?}", trace.rules)
    };
    assert!(first.rule.which.matches(b"POST", b"/checkout/pay"));
    assert_eq!(
        first.pool.as_ref().map(|pool| pool.get_ref().as_str()),
        Some("WWW")
    );
    assert!(second.pool.is_none() && second.rule.which.matches(b"GET", b"/"));
    assert_eq!(trace.routes[0].route, "/user/{id}");
    let ratios: Vec<_> = settings.pools.iter().map(|pool| pool.trace.ratio).collect();
    assert_eq!(ratios, [None, Some(0.25)]);
    for (word, trust) in [("true", Trust::Everybody), ("false", Trust::Nobody)] {
        let settings = fixture(&format!("trace.trust_incoming = {word}")).load().unwrap();
        assert_eq!(settings.overlay.trace.trust_incoming, trust);
    }
    let rules = "[[trace.rule]]\nratio = 1\n".repeat(65);
    assert!(
        fixture(&rules)
            .refusal()
            .contains("65 rules, at most 64 are allowed")
    );
}
