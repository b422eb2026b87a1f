//! Fixtures: records, a stack, and a worker that exists only as a slot.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasspool_abi::control::{
    Ended, FromObserver, LookBudget, ObserverStart, PoolView, SlowStop, ToObserver, WaitPrograms, WorkerView,
};
use glasspool_abi::record::{Begin, BeginScalars, Encoder, End, EndScalars, Text};
use glasspool_abi::slot::{CursorTable, SLOT_HEAD_BYTES, SlotWriter, Stage};
use glasspool_abi::times::Times;
use glasspool_abi::trace::{SpanId, TraceId};
use glasspool_abi::zend::{Layout, PhpBuild};
use glasspool_abi::{EngineId, Pid, PoolId, WorkerId, create_slot_memory};
use glasspool_otel::export::Terminal;
use glasspool_otel::slow::SlowEvent;
use glasspool_probes::{Frame, Kind, TargetAddr};
use tokio::sync::mpsc;

use super::monotonic_ns;
use super::protocol::Input;
use super::sampler::{Answer, Sampler};
use super::state::Observer;
use super::waits::Waits;
use crate::config::LogLevel;
use crate::logs::ErrorLog;

/// The one pool that there is.
pub(super) const POOL: PoolId = PoolId(0);
/// The slow limit. Long, because a test's request is born at this age and must not reach ten
/// seconds more (what is told says `2x s`) on a machine that is as busy as can be.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// When requests began, for all that their worker's clock says.
const START_UNIX_NS: u64 = 1_700_000_000_000_000_000;
/// Smallest ring there is.
const RING: usize = 16 * 1024;

pub(super) fn begin_bytes(scalars: &BeginScalars) -> Encoder {
    let mut encoder = Encoder::default();
    encoder.begin(scalars);
    encoder.text(Text::Method, b"GET");
    encoder.text(Text::Path, format!("/page{}", scalars.number).as_bytes());
    encoder.text(Text::Query, b"q=\x1b");
    encoder.text(Text::Script, b"/srv/index.php");
    encoder
}

pub(super) fn scalars(number: u64, start_mono_ns: u64, sampled: bool) -> BeginScalars {
    BeginScalars {
        number,
        start_unix_ns: START_UNIX_NS,
        start_mono_ns,
        trace_id: TraceId([1; 16]),
        span_id: SpanId(number.to_be_bytes()),
        parent: None,
        sampled,
        random: true,
    }
}

pub(super) fn begin(number: u64) -> Begin {
    Begin::decode(begin_bytes(&scalars(number, 5, true)).bytes()).expect("decodes")
}

pub(super) fn end(number: u64) -> End {
    let mut encoder = Encoder::default();
    encoder.end(
        &EndScalars::default(),
        begin_bytes(&scalars(number, 5, true)).bytes(),
    );
    End::decode(encoder.bytes()).expect("decodes")
}

pub(super) fn event() -> SlowEvent {
    super::sighting::failed(&begin(1), Duration::from_secs(1), "a test")
}

/// `mysqli_query` called by `Db\Repo::find` called by an included file.
pub(super) fn stack() -> Vec<Frame> {
    let frame = |addr, kind, class: Option<&str>, function: &str, place: Option<(&str, u32)>| Frame {
        addr: TargetAddr(addr),
        kind,
        function: function.to_owned(),
        class: class.map(str::to_owned),
        on_object: class.is_some(),
        file: place.map(|(file, _)| file.to_owned()),
        line: place.map(|(_, line)| line),
        line_exact: true,
        internal: kind == Kind::Internal,
        handler: None,
        arguments: None,
    };
    vec![
        frame(0x7f00_0000_1000, Kind::Internal, None, "mysqli_query", None),
        frame(
            0x7f00_0000_0800,
            Kind::Function,
            Some("Db\\Repo"),
            "find",
            Some(("/srv/db.php", 42)),
        ),
        frame(
            0x7f00_0000_0400,
            Kind::Include,
            None,
            "{include}",
            Some(("/srv/page.php", 9)),
        ),
        frame(
            0x7f00_0000_0100,
            Kind::Main,
            None,
            "{main}",
            Some(("/srv/index.php", 3)),
        ),
    ]
}

/// A worker without a process: its slot, written as a worker does.
pub(super) struct FakeWorker {
    pub(super) slot: OwnedFd,
    pub(super) writer: SlotWriter,
    pub(super) bytes: usize,
    /// Where the kernel programs account for it.
    pub(super) page: Option<u32>,
    /// What its clock says when a request begins, nanoseconds since the Unix epoch.
    pub(super) unix_ns: u64,
    number: u64,
    begun: Encoder,
}

impl FakeWorker {
    pub(super) fn new() -> FakeWorker {
        let bytes = SLOT_HEAD_BYTES + RING;
        let slot = create_slot_memory(bytes).expect("a memory file");
        let writer = SlotWriter::map(&slot, bytes).expect("maps");
        FakeWorker {
            slot,
            writer,
            bytes,
            page: None,
            unix_ns: START_UNIX_NS,
            number: 0,
            begun: Encoder::default(),
        }
    }

    /// Begins a request that has been under way for `age` already.
    pub(super) fn begin(&mut self, sampled: bool, age: Duration) {
        self.begin_at(sampled, age, None);
    }

    /// The same, when its worker had spent these times.
    pub(super) fn begin_at(&mut self, sampled: bool, age: Duration, times: Option<&Times>) {
        self.number += 1;
        let age = u64::try_from(age.as_nanos()).expect("a test's age is short");
        self.begun = begin_bytes(&BeginScalars {
            start_unix_ns: self.unix_ns,
            ..scalars(self.number, monotonic_ns().saturating_sub(age), sampled)
        });
        self.writer.publish_begin(self.begun.bytes(), times);
        self.writer.set_stage(Stage::Executing);
    }

    pub(super) fn end(&mut self, scalars: &EndScalars, message: &[u8]) {
        let mut end = Encoder::default();
        let now = monotonic_ns();
        let times = EndScalars {
            responded_mono_ns: now,
            end_mono_ns: now,
            ..*scalars
        };
        end.end(&times, self.begun.bytes());
        end.text(Text::ErrorMessage, message);
        // Nobody listens to the doorbell here.
        let _rung = self.writer.publish_end(self.number, end.bytes());
        self.writer.set_stage(Stage::Accepting);
    }

    /// Says that it is dying of this signal, as its crash handler does.
    pub(super) fn crash(&self, signal: u64) {
        let [word, ..] = self.writer.crash_words();
        word.store(signal, Ordering::Release);
    }

    pub(super) fn serve(&mut self, sampled: bool, status: u32) {
        self.begin(sampled, Duration::ZERO);
        self.end(
            &EndScalars {
                status,
                ..EndScalars::default()
            },
            b"",
        );
    }
}

/// An observer of one pool, its surroundings, and what it has told.
pub(super) struct Bench {
    pub(super) observer: Observer,
    pub(super) answers: mpsc::Receiver<Answer>,
    console: Arc<Mutex<Vec<u8>>>,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(super) fn new(cursors: &OwnedFd) -> Bench {
        Bench::with(cursors, start().budget)
    }

    /// One that is told of waits.
    pub(super) fn with_waits(waits: Waits) -> Bench {
        Bench::of(&cursors(), start(), waits)
    }

    /// One whose looks may cost so much.
    pub(super) fn with(cursors: &OwnedFd, budget: LookBudget) -> Bench {
        Bench::of(cursors, ObserverStart { budget, ..start() }, Waits::default())
    }

    /// One that is started so.
    pub(super) fn of(cursors: &OwnedFd, start: ObserverStart, waits: Waits) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let log = ErrorLog::file(&folder.path().join("error.log"), LogLevel::Notice).expect("opens");
        let console = Arc::new(Mutex::new(Vec::new()));
        let cursors = CursorTable::map(cursors, 8).expect("maps");
        let (sampler, answers) = Sampler::start(log.clone(), waits.sight()).expect("starts");
        let terminal = {
            let console = Arc::clone(&console);
            move || Terminal {
                out: Box::new(Capture(Arc::clone(&console))),
                colours: false,
            }
        };
        let mut observer = Observer::new(&start, cursors, sampler, waits, Box::new(terminal), log);
        let slow_log = File::create(folder.path().join("slow.log")).expect("creates");
        let view = PoolView {
            pool: PoolId(0),
            name: "www".to_owned(),
            slow_after: Some(LIMIT),
            slow_depth: 20,
            slow_samples: 4,
            slow_json: false,
            slow_stop: SlowStop::Never,
            still_running: true,
            controllers: Vec::new(),
        };
        observer.on(Input::Pool {
            view,
            slow_log: Some(slow_log.into()),
        });
        let php = Box::new(php());
        observer.on(Input::Plain(ToObserver::Engine {
            engine: EngineId(1),
            php,
        }));
        Bench {
            observer,
            answers,
            console,
            folder,
        }
    }

    /// Introduces a worker whose process and memory are those of this test.
    pub(super) fn introduce(&mut self, id: u64, worker: &FakeWorker) {
        let own = std::process::id();
        let pid = rustix::process::Pid::from_raw(own.cast_signed()).expect("not zero");
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("exists");
        let memory = File::open("/proc/self/mem").expect("one's own");
        self.observer.on(Input::Worker {
            view: view(id, worker),
            slot: worker
                .slot
                .as_fd()
                .try_clone_to_owned()
                .expect("a descriptor is free"),
            process,
            memory: Some(memory.into()),
            calls: None,
        });
    }

    /// Hands over a message of the supervisor that has no descriptor.
    pub(super) fn say(&mut self, message: ToObserver) {
        self.observer.on(Input::Plain(message));
    }

    /// What it tells the supervisor now.
    pub(super) fn told(&mut self) -> Vec<FromObserver> {
        let mut told = Vec::new();
        self.observer.tell_supervisor(|message| {
            told.push(message.clone());
            true
        });
        told
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.observer.tick(monotonic_ns()).records
    }

    pub(super) fn gone(&mut self, id: u64, ended: Ended) {
        let gone = ToObserver::WorkerGone {
            worker: WorkerId(id),
            ended,
            mono_ns: monotonic_ns(),
        };
        self.observer.on(Input::Plain(gone));
    }

    /// Waits for the sampler and hands its answer over.
    pub(super) async fn answer(&mut self) {
        let answer = self.answers.recv().await.expect("the sampler answers");
        self.observer.on_answer(answer);
    }

    /// Waits until the console has this. What goes there by different lanes comes in no order.
    pub(super) async fn console_has(&self, what: &str) {
        let told = async {
            while !String::from_utf8_lossy(&self.console.lock().expect("nobody panics")).contains(what) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, told).await;
        in_time.unwrap_or_else(|_| panic!("the console never had {what}"));
    }

    /// Ends the observer; what it told the console, the error log and the slow log.
    pub(super) async fn finish(self) -> (String, String, String) {
        self.observer.finish(self.answers, Duration::from_secs(5)).await;
        let console = self.console.lock().expect("nobody panics").clone();
        let read = |name| std::fs::read_to_string(self.folder.path().join(name)).expect("text");
        (
            String::from_utf8(console).expect("text"),
            read("error.log"),
            read("slow.log"),
        )
    }
}

pub(super) fn cursors() -> OwnedFd {
    create_slot_memory(CursorTable::bytes(8)).expect("a memory file")
}

pub(super) fn start() -> ObserverStart {
    let variables = [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let variables: Vec<_> = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    ObserverStart {
        cursors: 8,
        identity: None,
        otel_env: variables,
        // What the environment says wins.
        otel_file: vec![("OTEL_TRACES_EXPORTER".to_owned(), "none".to_owned())],
        telemetry_file: None,
        redact_query: None,
        routes: vec![],
        queue_bytes: 8 << 20,
        budget: LookBudget {
            samples_per_second: 1000,
            stop_per_second: Duration::from_millis(10),
        },
        colour: false,
        history_bytes: 1 << 20,
        figures: false,
        scraped: None,
        waits: WaitPrograms::NotWanted,
        wait_span_after: Duration::from_millis(10),
    }
}

pub(super) fn view(id: u64, worker: &FakeWorker) -> WorkerView {
    WorkerView {
        worker: WorkerId(id),
        pid: Pid(std::process::id().cast_signed()),
        pool: PoolId(0),
        engine: EngineId(1),
        born_mono_ns: 0,
        slot_bytes: worker.bytes as u64,
        cursor: id,
        times_page: worker.page,
    }
}

/// A build whose executor globals are nowhere.
pub(super) fn php() -> PhpBuild {
    let entries: Vec<_> = Layout::NAMES.iter().copied().zip((8..).step_by(8)).collect();
    PhpBuild {
        version: "8.2.36".to_owned(),
        api: 20_220_829,
        zts: false,
        executor_globals: 8,
        layout: Layout::from_entries(entries).expect("complete"),
    }
}

struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
