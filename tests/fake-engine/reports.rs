//! A worker that says in its slot what it does: it is busy with a request for as long as
//! somebody is connected, and idle else.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use glasspool_abi::record::{BeginScalars, Encoder, Text};
use glasspool_abi::slot::{Last, SlotWriter, Stage};
use glasspool_abi::trace::{SpanId, TraceId};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};

/// Accepts on standard input on a thread of its own, for as long as the process lives.
pub(crate) fn start() {
    let slot = slot();
    let listener = rustix::stdio::stdin().try_clone_to_owned();
    let listener = UnixListener::from(listener.expect("has a standard input"));
    listener.set_nonblocking(true).expect("sets");
    std::thread::spawn(move || {
        for number in 1.. {
            slot.set_stage(Stage::Accepting);
            let mut connection = loop {
                let mut readable = [PollFd::new(&listener, PollFlags::IN)];
                poll(&mut readable, None).expect("waits");
                // Or else another worker was faster.
                if let Ok((connection, _)) = listener.accept() {
                    break connection;
                }
            };
            connection.set_nonblocking(false).expect("sets");
            let start = now();
            slot.set_started(nanos(start));
            slot.publish_begin(begin(number, start).bytes(), None);
            slot.set_stage(Stage::Executing);
            connection.read_to_end(&mut Vec::new()).expect("reads");
            slot.set_last(Last {
                duration_ns: nanos(now() - start),
                ..Last::default()
            });
            slot.set_started(0);
        }
    });
}

/// The slot, which was inherited from the engine.
fn slot() -> SlotWriter {
    let path = std::env::var_os("FAKE_SLOT").expect("is told");
    let file = std::fs::File::options().read(true).write(true).open(path);
    let file = file.expect("opens");
    let bytes = file.metadata().expect("is a file").len();
    SlotWriter::map(&file, usize::try_from(bytes).expect("fits")).expect("maps")
}

fn begin(number: u64, start: Duration) -> Encoder {
    let mut record = Encoder::default();
    record.begin(&BeginScalars {
        number,
        start_unix_ns: 1,
        start_mono_ns: nanos(start),
        trace_id: TraceId([1; 16]),
        span_id: SpanId([1; 8]),
        parent: None,
        sampled: false,
        random: false,
    });
    record.text(Text::Method, b"GET");
    record.text(Text::Path, b"/index.php");
    record.text(Text::Query, b"a=1");
    record.text(Text::Script, b"/srv/in\tdex.php");
    record
}

/// The monotonic clock.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).expect("after the start of the machine")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("some days")
}
