//! The programs in the kernel that account for workers' time: when they are loaded, what
//! becomes of a start without them, and what is left of them.
//!
//! - `obstacles`: what keeps them from being loaded; `fullness`: what has no room;
//! - `stand`: a pool, and what it holds in the kernel.

mod fullness;
mod obstacles;
mod stand;

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use self::stand::{Held, ON, SERVING, Site, TRACED, checked, without_capabilities};
use crate::collector::{Collector, each};
use crate::harness::{PATIENCE, Supervised, exists, kill, launch, skipped, start, wait_until};

/// Why there are no programs without those, and what would help; or in a build that has none.
const REASON: &str = if cfg!(feature = "ebpf") {
    "CAP_BPF and CAP_PERFMON are missing"
} else {
    "this program was built without the kernel programs"
};
const REMEDY: &str = if cfg!(feature = "ebpf") {
    "AmbientCapabilities="
} else {
    "build it with the feature ebpf"
};

// === With PHP, and the kernel's own answer ===

#[test]
fn a_check_says_whether_they_can_be_had_and_what_would_help() {
    let Some(site) = Site::new("ebpf = \"off\"\n") else {
        return;
    };
    assert!(checked(&site, &[]).ends_with("ebpf: off, as the configuration says"));
    site.configure("ebpf = \"required\"\n");
    let refused = checked(&site, &without_capabilities());
    for text in ["ebpf: required, ", "a start is refused", REASON, REMEDY] {
        assert!(refused.contains(text), "{refused}");
    }
    site.configure("");
    let refused = checked(&site, &without_capabilities());
    assert!(
        refused.contains("ebpf: auto, ") && refused.contains(REASON),
        "{refused}"
    );
    let line = checked(&site, &[]);
    // Without them built in, that was all there is to say.
    if cfg!(feature = "ebpf") && !line.contains("can be loaded (full)") {
        skipped(&format!("kernel programs: {line}"));
    }
}

/// The number of an attribute.
fn number(span: &Value, key: &str) -> Option<f64> {
    let attribute = each(span, "attributes").find(|attribute| attribute["key"] == key)?;
    attribute["value"]["doubleValue"].as_f64()
}

/// Spans of requests, and of their waits.
fn requests(collector: &Collector) -> Vec<Value> {
    let spans = collector.spans();
    spans
        .into_iter()
        .filter(|span| span["kind"] == "SPAN_KIND_SERVER")
        .collect()
}

#[test]
fn two_supervisors_have_programs_of_their_own_and_leave_none_behind() {
    let [Some(one), Some(other)] = [Site::new(""), Site::new("")] else {
        return;
    };
    let Some(mut one) = one.start_with_programs(TRACED.1) else {
        return;
    };
    let mut other = other.start_with_programs(TRACED.1).expect("as the one before");
    let (ones, others) = (one.holds(), other.holds());
    assert!(ones.programs.is_disjoint(&others.programs) && ones.maps.is_disjoint(&others.maps));
    assert!(!ones.is_gone() && !others.is_gone());
    assert_eq!(
        (one.answers(), other.answers()),
        ("slept".to_owned(), "slept".to_owned())
    );
    assert!(one.children(Some("loader")).is_empty(), "it has done its work");
    one.signal(Signal::QUIT);
    assert_eq!(one.wait_for_end().code(), Some(0));
    wait_until("the kernel is rid of the first one's", || ones.is_gone());
    assert_eq!(other.answers(), "slept");
    // One that is killed leaves nothing either.
    let children: Vec<i32> = [Some("observer"), None]
        .iter()
        .flat_map(|role| other.children(*role))
        .collect();
    other.signal(Signal::KILL);
    other.wait_for_end();
    wait_until("its processes are gone", || {
        !children.iter().any(|pid| exists(*pid))
    });
    wait_until("the kernel is rid of the other's", || others.is_gone());
}

#[test]
fn only_the_supervisor_holds_the_programs_and_no_worker_holds_a_map() {
    let Some(supervised) = Site::new("").and_then(|site| site.start_with_programs(TRACED.1)) else {
        return;
    };
    let own = supervised.holds();
    assert!(own.programs.len() >= 2 && own.maps.len() == 5, "{own:?}");
    let observer = Held::by(supervised.children(Some("observer"))[0]);
    assert!(observer.programs.is_empty(), "{observer:?}");
    assert!(observer.maps.is_subset(&own.maps), "{observer:?}");
    let pid = fs::read_to_string(supervised.path("pid")).expect("reads");
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("reads");
    let workers: Vec<i32> = children
        .split_ascii_whitespace()
        .map(|pid| pid.parse().expect("a pid"))
        .filter(|pid| title(*pid).starts_with("php-fpm: pool www"))
        .collect();
    assert_eq!(workers.len(), 2);
    for worker in workers {
        assert!(Held::by(worker).is_nothing(), "{:?}", Held::by(worker));
    }
}

fn title(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

#[test]
fn accounting_outlives_observers_and_reloads() {
    let Some(site) = Site::new("") else { return };
    let collector = Collector::start(site.folder.path());
    let Some(mut supervised) = site.start_with_programs(&collector.endpoint()) else {
        return;
    };
    let held = supervised.holds();
    let is_accounted_for = |supervised: &Supervised, count: usize| {
        assert_eq!(supervised.answers(), "slept");
        wait_until(&format!("span {count}"), || requests(&collector).len() == count);
        let span = requests(&collector).pop().expect("is there");
        let blocked = number(&span, "php.blocked.sleep");
        assert!(
            blocked.is_some_and(|blocked| (0.02..PATIENCE.as_secs_f64()).contains(&blocked)),
            "{span}"
        );
    };
    is_accounted_for(&supervised, 1);
    let observer = supervised.children(Some("observer"))[0];
    kill(observer, Signal::KILL);
    supervised.wait_for("the observer (pid ");
    wait_until("there is another observer", || {
        supervised
            .children(Some("observer"))
            .iter()
            .any(|pid| *pid != observer)
    });
    is_accounted_for(&supervised, 2);
    supervised.takes_over("");
    is_accounted_for(&supervised, 3);
    assert_eq!(supervised.holds(), held, "nothing was loaded anew");
    let told = supervised.log.iter().filter(|line| line.contains("ebpf: "));
    assert_eq!(told.count(), 1, "{:#?}", supervised.log);
}

#[test]
fn a_reload_turns_them_off_and_on_and_loads_them_anew_where_they_are_to_tell_something_else() {
    let Some(mut supervised) = Site::new("").and_then(|site| site.start_with_programs(TRACED.1)) else {
        return;
    };
    let held = supervised.holds();
    supervised.takes_over("ebpf = \"off\"");
    supervised.position("ebpf: off (the configuration does not ask for it)");
    wait_until("the last worker that had a page is gone", || held.is_gone());
    assert!(supervised.holds().is_nothing());
    assert_eq!(supervised.answers(), "slept");
    supervised.takes_over("ebpf = \"required\"");
    let on = supervised.holds();
    assert!(!on.is_nothing() && on.programs.is_disjoint(&held.programs));
    supervised.takes_over("[ebpf]\nwait_threshold = \"2ms\"");
    let anew = supervised.holds();
    assert!(anew != on && !anew.is_nothing());
    wait_until("those before are gone", || {
        on.is_gone() && supervised.holds().maps.len() == 5
    });
    assert_eq!(supervised.answers(), "slept");
}

#[test]
fn without_the_capabilities_everything_else_works_and_the_reason_is_told() {
    let Some(site) = Site::new("") else { return };
    let mut supervised = site.start(&without_capabilities(), TRACED.1);
    let line = supervised.wait_for("ebpf: off (");
    assert!(line.contains("NOTICE: "), "{line}");
    supervised.wait_for(SERVING);
    for part in [REASON, REMEDY, "; spans tell how long requests waited for a CPU"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    assert_eq!(supervised.answers(), "slept");
    assert!(supervised.holds().is_nothing());
    // A configuration that insists is refused, and the one before goes on.
    let line = supervised.reloaded("ebpf = \"required\"");
    assert!(
        line.contains("reload failed: the kernel programs do not run, and ebpf.mode is \"required\"")
            && line.contains(REASON),
        "{line}"
    );
    assert_eq!(supervised.answers(), "slept");
    supervised.takes_over("");
    let told = supervised.log.iter().filter(|line| line.contains("ebpf: off"));
    assert_eq!(told.count(), 1, "it is told once");
}

#[test]
fn a_start_that_insists_on_them_is_refused_with_the_reason() {
    let Some(site) = Site::new("[ebpf]\nmode = \"required\"") else {
        return;
    };
    let socket = site.folder.path().join("sock");
    let mut supervised = site.start(&without_capabilities(), TRACED.1);
    let line = supervised.wait_for("ebpf.mode is \"required\"");
    assert!(line.contains("ERROR: ") && line.contains(REASON), "{line}");
    assert_eq!(supervised.wait_for_end().code(), Some(78));
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err());
    assert!(!supervised.log.iter().any(|line| line.contains(SERVING)));
}

#[test]
fn nothing_is_loaded_where_no_spans_are_made() {
    let Some(site) = Site::new("") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_glasspool"));
    command
        .args(["-F", "-O", "-R", "-y"])
        .arg(site.folder.path().join("fpm.conf"));
    let mut supervised = launch(site.folder, command);
    supervised.wait_for(SERVING);
    assert!(supervised.holds().is_nothing());
    assert!(
        !supervised.log.iter().any(|line| line.contains("ebpf")),
        "{:#?}",
        supervised.log
    );
}

// === With a loader that is not real ===

#[test]
fn a_loader_that_takes_too_long_or_dies_is_not_waited_for() {
    for (behaviour, reason) in [
        ("hangs", "ebpf: off (loading them has taken more than 2s)"),
        (
            "dies",
            "ebpf: off (the process that loads them exited on signal 6 (SIGABRT",
        ),
        ("", "ebpf: off (this loader is not real)"),
    ] {
        let mut supervised = start(1, &[TRACED, ("FAKE_LOADER", behaviour)]);
        supervised.wait_for(SERVING);
        let told = supervised.position(reason);
        assert!(told < supervised.position("child"), "workers come after it");
        assert!(supervised.children(Some("loader")).is_empty(), "it is reaped");
        supervised.signal(Signal::TERM);
        assert_eq!(supervised.wait_for_end().code(), Some(0));
    }
}

#[test]
fn workers_and_observers_are_given_what_the_loader_hands_over() {
    let mut supervised = start(2, &[TRACED, ("FAKE_LOADER", "pretends")]);
    // Cursors and doorbell; ring, workers, pages, counts.
    supervised.wait_for_all(&[ON, "starts with 6 descriptors", SERVING]);
    // The kernel knows nothing of such maps; that is told once, not for each worker.
    let told = supervised
        .log
        .iter()
        .filter(|line| line.contains("it serves all the same"));
    assert_eq!(told.count(), 1, "{:#?}", supervised.log);
}

#[test]
fn a_stop_does_not_wait_for_the_loader() {
    let mut supervised = start(1, &[TRACED, ("FAKE_LOADER", "hangs")]);
    wait_until("it is being waited for", || {
        !supervised.children(Some("loader")).is_empty()
    });
    supervised.signal(Signal::TERM);
    assert_eq!(supervised.wait_for_end().code(), Some(0));
    // Else its time would have run out first.
    let waited = |line: &String| line.contains("loading them has taken more than");
    assert!(!supervised.log.iter().any(waited), "{:#?}", supervised.log);
}
