//! What a request costs the observer, stage by stage: the real one reads slots that a test
//! has written and sends to a socket of this machine.
//!
//! `cargo test --release -p glasspool cost_of_a_request -- --ignored --nocapture`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use glasspool_abi::control::ObserverStart;
use glasspool_abi::record::{BeginScalars, Encoder, EndScalars, Text};
use glasspool_abi::times::{Known, Times};
use glasspool_abi::trace::{SpanId, TraceId};
use rustix::time::{ClockId, clock_gettime};

use super::monotonic_ns;
use super::testing::{Bench, FakeWorker, cursors, start};
use super::waits::Waits;

/// Requests of one turn: they fit into the smallest ring.
const TURN: u64 = 16;
/// Requests of one round.
const ROUND: u64 = 4096;
/// Rounds, each of all stages.
const ROUNDS: usize = 15;

/// As the program has it: making and dropping texts is a good part of what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an observer does.
struct Stage {
    name: &'static str,
    history: bool,
    metrics: bool,
    spans: bool,
}

const STAGES: [Stage; 4] = [
    Stage {
        name: "reading",
        history: false,
        metrics: false,
        spans: false,
    },
    Stage {
        name: "history",
        history: true,
        metrics: false,
        spans: false,
    },
    Stage {
        name: "metrics",
        history: true,
        metrics: true,
        spans: false,
    },
    Stage {
        name: "making spans",
        history: true,
        metrics: true,
        spans: true,
    },
];

#[tokio::test]
#[ignore = "prints a measurement"]
async fn cost_of_a_request() {
    let collector = collector();
    let mut runs: Vec<_> = STAGES.iter().map(|stage| Run::new(stage, collector)).collect();
    // CPU time of turns, and of what is sent between them.
    let mut costs = [const { [Vec::new(), Vec::new()] }; STAGES.len()];
    for round in 0..=ROUNDS {
        for (run, [turns, sending]) in runs.iter_mut().zip(&mut costs) {
            let (turn, sent) = run.round().await;
            // The first one makes the connection.
            if round > 0 {
                turns.push(turn);
                sending.push(sent);
            }
        }
    }
    let mut before = 0;
    for (stage, [turns, sending]) in STAGES.iter().zip(&mut costs) {
        let turns = median(turns);
        say(stage.name, turns.saturating_sub(before));
        before = turns;
        if stage.spans {
            let sending = median(sending);
            say("sending them", sending);
            say("all", turns + sending);
        }
    }
}

/// An observer, and a worker that it watches.
struct Run {
    bench: Bench,
    worker: FakeWorker,
    served: u64,
    spans: bool,
}

impl Run {
    fn new(stage: &Stage, collector: SocketAddr) -> Run {
        let exporter = |wanted: bool| if wanted { "otlp" } else { "none" }.to_owned();
        let variables = [
            ("OTEL_TRACES_EXPORTER", exporter(stage.spans)),
            ("OTEL_LOGS_EXPORTER", exporter(false)),
            ("OTEL_METRICS_EXPORTER", exporter(stage.metrics)),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
        ];
        let start = ObserverStart {
            otel_env: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            queue_bytes: 64 << 20,
            history_bytes: if stage.history { 4 << 20 } else { 0 },
            ..start()
        };
        let mut bench = Bench::of(&cursors(), start, Waits::default());
        let worker = FakeWorker::new();
        bench.introduce(1, &worker);
        Run {
            bench,
            worker,
            served: 0,
            spans: stage.spans,
        }
    }

    /// Nanoseconds of CPU time for one request: in the observer's turns, and after them.
    async fn round(&mut self) -> (u64, u64) {
        let (mut in_turns, mut between) = (0, 0);
        for _ in 0..ROUND / TURN {
            for _ in 0..TURN {
                self.served += 1;
                let record = record(self.served);
                // The turn below comes without the doorbell.
                let _rung = self.worker.writer.publish_end(self.served, &record);
            }
            let began = cpu_ns();
            assert_eq!(self.bench.tick(), TURN);
            let ended = cpu_ns();
            tokio::task::yield_now().await;
            in_turns += ended - began;
            between += cpu_ns() - ended;
        }
        let began = cpu_ns();
        while self.spans && {
            let in_flight = self.bench.observer.report.in_flight();
            in_flight.settled < in_flight.taken
        } {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (in_turns / ROUND, (between + cpu_ns() - began) / ROUND)
    }
}

/// That of a request as it comes through a web server.
fn record(number: u64) -> Vec<u8> {
    let now = monotonic_ns();
    let mut begin = Encoder::default();
    begin.begin(&BeginScalars {
        number,
        start_unix_ns: 1_700_000_000_000_000_000 + number,
        start_mono_ns: now - 900_000,
        trace_id: TraceId(u128::from(number).to_be_bytes()),
        span_id: SpanId(number.to_be_bytes()),
        parent: None,
        sampled: true,
        random: true,
    });
    for (text, value) in [
        (Text::Method, "GET"),
        (Text::Path, "/shop/articles/4711"),
        (Text::Query, "page=2&sort=price"),
        (Text::Script, "/srv/www/shop/public/index.php"),
        (Text::Scheme, "https"),
        (Text::Host, "shop.example.org"),
        (Text::Port, "443"),
        (Text::Client, "192.0.2.17"),
        (Text::PeerPort, "51234"),
        (
            Text::UserAgent,
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        ),
        (Text::Protocol, "HTTP/1.1"),
    ] {
        begin.text(text, value.as_bytes());
    }
    let mut end = Encoder::default();
    end.end(
        &EndScalars {
            responded_mono_ns: now - 20_000,
            end_mono_ns: now,
            status: 200,
            bytes_out: 11_000,
            cpu_user_ns: 300_000,
            cpu_system_ns: 100_000,
            memory_peak: 2 << 20,
            times: Known::All(Times {
                on_cpu_ns: 400_000,
                runqueue_ns: 1_000,
                blocked_ns: [499_000, 0, 0, 0, 0, 0],
                waits: 3,
                ..Times::default()
            }),
            ..EndScalars::default()
        },
        begin.bytes(),
    );
    end.bytes().to_vec()
}

/// CPU time of this thread, nanoseconds: what other threads and programs do is not in it.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let ns = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    u64::try_from(ns).expect("a thread's time begins with it")
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn say(what: &str, ns: u64) {
    writeln!(std::io::stdout(), "{what:<14}{ns:>6} ns of CPU a request").expect("writes");
}

/// Takes whatever is sent and answers that all is well, on a thread of its own.
fn collector() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || take_all(&connection));
        }
    });
    address
}

fn take_all(mut connection: &TcpStream) {
    let mut requests = BufReader::new(connection);
    let (mut line, mut length) = (String::new(), 0);
    while requests.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            let taken = std::io::copy(&mut requests.by_ref().take(length), &mut std::io::sink());
            assert_eq!(taken.expect("the body comes"), length);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            connection.write_all(answer).expect("it is read");
        }
        line.clear();
    }
}
