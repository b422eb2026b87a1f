//! What a request's span and its child spans say, against what its script measured.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::loads::Load;
use crate::collector::{each, text};

/// What a cause, a wait and the run queue may differ by from what was measured inside.
const PRECISION: Duration = Duration::from_micros(500);
/// What the parts may differ by from the whole.
const EXACT: Duration = Duration::from_micros(100);
/// Waits from here on are child spans; the default of `ebpf.span_threshold`.
const CHILD: Duration = Duration::from_millis(10);

const CAUSES: [&str; 6] = ["network", "disk", "lock", "sleep", "pipe", "other"];

/// What a script says that passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) wall: Duration,
    /// On a CPU, without what interrupts and the hypervisor took.
    pub(super) ran: Duration,
    /// Waiting for a CPU.
    pub(super) delayed: Duration,
}

impl Passed {
    /// Since the script's start, and in its call.
    pub(super) fn read(answer: &str) -> Option<[Passed; 2]> {
        let read: [[u64; 3]; 2] = serde_json::from_str(answer).ok()?;
        Some(read.map(|times| {
            let [wall, ran, delayed] = times.map(Duration::from_nanos);
            Passed { wall, ran, delayed }
        }))
    }

    /// What is left of it.
    fn blocked(&self) -> Duration {
        self.wall.saturating_sub(self.ran).saturating_sub(self.delayed)
    }
}

/// A request's span and its children.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) span: Value,
    pub(super) children: Vec<Value>,
}

/// An attribute that is a time in seconds.
pub(super) fn seconds(of: &Value, key: &str) -> Option<Duration> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    Duration::try_from_secs_f64(attribute["value"]["doubleValue"].as_f64()?).ok()
}

pub(super) fn integer(of: &Value, key: &str) -> Option<u64> {
    let attribute = each(of, "attributes").find(|attribute| attribute["key"] == key)?;
    // Protobuf's JSON has numbers of 64 bits as text.
    attribute["value"]["intValue"].as_str()?.parse().ok()
}

fn moment(of: &Value, key: &str) -> Duration {
    let nanos = of[key].as_str().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("spans have times"))
}

fn length(of: &Value) -> Duration {
    moment(of, "endTimeUnixNano").saturating_sub(moment(of, "startTimeUnixNano"))
}

impl Told {
    /// Names of the attributes that begin so, on the request's span.
    pub(super) fn attributes(&self, start: &str) -> Vec<&str> {
        let keys = each(&self.span, "attributes").filter_map(|attribute| attribute["key"].as_str());
        keys.filter(|key| key.starts_with(start)).collect()
    }

    /// On a CPU, on the run queue, blocked.
    pub(super) fn parts(&self) -> Option<[Duration; 3]> {
        let [on_cpu, runqueue, blocked] =
            ["on_cpu", "runqueue", "blocked"].map(|part| seconds(&self.span, &format!("php.time.{part}")));
        Some([on_cpu?, runqueue?, blocked?])
    }

    /// The request's time, until its worker was free again.
    pub(super) fn whole(&self) -> Duration {
        length(&self.span) + seconds(&self.span, "php.request.post_response_duration").unwrap_or_default()
    }

    fn blocked_by(&self, cause: &str) -> Duration {
        seconds(&self.span, &format!("php.blocked.{cause}")).unwrap_or_default()
    }

    /// The longest wait of a builtin.
    pub(super) fn child(&self, builtin: &str) -> Option<&Value> {
        let of_builtin = self.children.iter().filter(|child| child["name"] == builtin);
        of_builtin.max_by_key(|child| length(child))
    }
}

/// What is not as it should be.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.0.push(what());
        }
    }

    /// A time that must lie between two others, as precisely as is promised.
    fn between(&mut self, what: &str, told: Duration, least: Duration, most: Duration) {
        self.unless(told + PRECISION >= least && told <= most + PRECISION, || {
            format!("{what} is {told:?}, measured {least:?} to {most:?}")
        });
    }

    fn equal(&mut self, what: &str, told: Option<&str>, wanted: &str) {
        self.unless(told == Some(wanted), || {
            format!("{what} is {told:?}, not {wanted:?}")
        });
    }
}

/// Compares; an error has all that is wrong.
pub(super) fn judge(
    load: &Load,
    script: &Path,
    [whole, call]: [Passed; 2],
    told: &Told,
) -> Result<(), String> {
    let mut faults = Faults::default();
    judge_times(load, [whole, call], told, &mut faults);
    match load.cause {
        Some(cause) => judge_waits(load, cause, script, call, told, &mut faults),
        None => faults.unless(told.children.is_empty(), || "it waited".to_owned()),
    }
    if faults.0.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}: {}\nmeasured {whole:?}, in the call {call:?}\n{told:#?}",
        load.name,
        faults.0.join("\n  ")
    ))
}

fn judge_times(load: &Load, [whole, call]: [Passed; 2], told: &Told, faults: &mut Faults) {
    let Some(parts) = told.parts() else {
        return faults.0.push("php.time.* is missing".to_owned());
    };
    let [on_cpu, runqueue, blocked] = parts;
    let sum: Duration = parts.iter().sum();
    faults.unless(sum.abs_diff(told.whole()) < EXACT, || {
        format!("the parts are {sum:?}, the request {:?}", told.whole())
    });
    let causes: Duration = CAUSES.map(|cause| told.blocked_by(cause)).iter().sum();
    faults.unless(causes.abs_diff(blocked) < Duration::from_micros(1), || {
        format!("the causes are {causes:?}, blocked {blocked:?}")
    });
    // What interrupts and the hypervisor take is missing from what the script measures of
    // its running, and thus seems blocked. It is little unless much is computed.
    let stolen = whole.ran / 10;
    faults.between(
        "php.time.blocked",
        blocked,
        whole.blocked().saturating_sub(stolen),
        whole.blocked(),
    );
    // Out of long work inside of the kernel a task is switched late, and the scheduler does
    // not read its clock again (`rq_clock_skip_update` in kernel/sched/core.c): the two do
    // not agree on how much of it was a wait for a CPU.
    let outside = told.whole().saturating_sub(whole.wall);
    if load.name != "disk" {
        faults.between(
            "php.time.runqueue",
            runqueue,
            whole.delayed,
            whole.delayed + outside,
        );
    }
    match load.cause {
        // The call may have others, of starting a child and waiting for its end.
        Some(cause) if load.once => {
            faults.between(cause, told.blocked_by(cause), call.blocked(), whole.blocked())
        }
        Some(cause) => faults.between(cause, told.blocked_by(cause), load.least, whole.blocked()),
        None => faults.between("php.time.on_cpu", on_cpu, whole.ran, whole.wall + outside),
    }
    let main = load.cause.map_or(on_cpu, |cause| told.blocked_by(cause));
    faults.unless(main + PRECISION >= load.least, || {
        format!("{main:?} is less than the load, {:?}", load.least)
    });
    faults.unless(told.attributes("php.waits.lost").is_empty(), || {
        "waits are lost".to_owned()
    });
}

fn judge_waits(load: &Load, cause: &str, script: &Path, call: Passed, told: &Told, faults: &mut Faults) {
    let waits = integer(&told.span, "php.waits.count");
    faults.unless(waits.is_some_and(|waits| waits > 0), || {
        format!("php.waits.count is {waits:?}")
    });
    let file = script.display().to_string();
    let most = told.blocked_by(cause);
    let here = if load.once { call.blocked() } else { most };
    let child = told.child(load.builtin);
    if load.has_child() {
        let place = format!("{} {file}:{} {cause} ", load.builtin, load.line());
        let with = load.peer.as_ref().map(|peer| match peer.port {
            Some(port) => format!("{}:{port} ", peer.address),
            None => format!("{} ", peer.address),
        });
        let with = with.or(load.file.as_ref().map(|name| format!("{name} ")));
        let top = each(&told.span, "attributes").find(|attribute| attribute["key"] == "php.waits.top");
        let first = top.and_then(|top| top["value"]["arrayValue"]["values"][0]["stringValue"].as_str());
        faults.unless(
            first.is_some_and(|first| is_top(first, &place, with.as_deref(), here)),
            || format!("php.waits.top begins with {first:?}, not {place:?}, {with:?} and {here:?}"),
        );
        faults.unless(child.is_some() || call.blocked() < CHILD, || {
            format!("no child span {:?}", load.builtin)
        });
    }
    let Some(child) = child else { return };
    if load.once {
        faults.between("the child span", length(child), call.blocked(), call.blocked());
    } else {
        faults.between("the child span", length(child), CHILD, most);
    }
    judge_child(load, cause, &file, child, told, faults);
}

/// `place`, `with`, `0.412 s in 3`.
fn is_top(told: &str, place: &str, with: Option<&str>, took: Duration) -> bool {
    let rest = told
        .strip_prefix(place)
        .and_then(|rest| rest.rsplit_once(" s in "));
    rest.is_some_and(|(rest, waits)| {
        let time = rest.rsplit(' ').next().and_then(|time| time.parse().ok());
        let time = time.and_then(|time| Duration::try_from_secs_f64(time).ok());
        // It is told in milliseconds.
        time.is_some_and(|time| time.abs_diff(took) < PRECISION * 3)
            && waits.parse::<u64>().is_ok()
            && with.is_none_or(|with| rest.contains(with))
    })
}

fn judge_child(load: &Load, cause: &str, file: &str, child: &Value, told: &Told, faults: &mut Faults) {
    let kind = match load.peer {
        Some(_) => "SPAN_KIND_CLIENT",
        None => "SPAN_KIND_INTERNAL",
    };
    faults.equal("kind", child["kind"].as_str(), kind);
    faults.unless(child["traceId"] == told.span["traceId"], || {
        "another trace".to_owned()
    });
    let sampled = |span: &Value| span["flags"].as_u64().unwrap_or_default() & 1;
    faults.unless(sampled(child) == sampled(&told.span), || {
        "flags are not the parent's".to_owned()
    });
    let inside = moment(child, "startTimeUnixNano") >= moment(&told.span, "startTimeUnixNano")
        && moment(child, "endTimeUnixNano") <= moment(&told.span, "endTimeUnixNano");
    faults.unless(inside, || "it is not within its parent".to_owned());

    faults.equal("php.wait_class", text(child, "php.wait_class"), cause);
    faults.equal(
        "code.function.name",
        text(child, "code.function.name"),
        load.builtin,
    );
    faults.equal("code.file.path", text(child, "code.file.path"), file);
    let line = integer(child, "code.line.number");
    faults.unless(line == Some(load.line()), || {
        format!("line {line:?}, not {}", load.line())
    });
    let stack = text(child, "code.stacktrace").unwrap_or_default();
    let first = format!("#0 {file}({}): ", load.line());
    faults.unless(stack.starts_with(&first) && stack.ends_with("{main}"), || {
        format!("the stack is {stack:?}")
    });
    let syscall = text(child, "php.wait_syscall");
    faults.unless(syscall.is_some_and(|name| !name.is_empty()), || {
        "no system call".to_owned()
    });
    faults.unless(seconds(child, "php.time.runqueue").is_some(), || {
        "php.time.runqueue is missing".to_owned()
    });
    if let Some(peer) = &load.peer {
        faults.equal(
            "network.peer.address",
            text(child, "network.peer.address"),
            &peer.address,
        );
        let port = integer(child, "network.peer.port");
        faults.unless(port == peer.port.map(u64::from), || format!("port {port:?}"));
        faults.equal(
            "network.transport",
            text(child, "network.transport"),
            peer.transport,
        );
    }
    if let Some(name) = &load.file {
        faults.equal("file.name", text(child, "file.name"), name);
    }
}
