//! Workers that compute past their deadline.

use std::time::{Duration, Instant};

use glasspool_abi::control::ProgramPart;
use glasspool_waits::{OnCpu, Record, Settings, SlotIndex, WorkerId, run_clocks};
use rustix::thread::CapabilitySet;

use crate::php::Php;
use crate::places::with_capabilities;
use crate::watch::Watch;

/// Half a second of the process's own CPU time, in a line of its own.
const COMPUTE: &str = "\
function cpu() { $u = getrusage(); return $u['ru_utime.tv_sec'] * 1e6 + $u['ru_utime.tv_usec']; }
function busy() {
    $until = cpu() + 500000;
    while (cpu() < $until)
        for ($i = 0; $i < 1000; $i++);
}";

#[test]
fn while_its_clock_runs_a_worker_on_a_cpu_is_seen_with_its_stack() {
    let Some(mut watch) = Watch::load(&Settings::default()) else {
        return;
    };
    let mut php = Php::start(COMPUTE, "busy();");
    let (worker, slot) = (WorkerId(5), SlotIndex(5));
    let registered = watch
        .roster
        .register(php.pidfd(), worker, slot, Some(php.build()));
    registered.unwrap();
    let mut run = |watch: &mut Watch, request: u64, clock: bool| {
        watch.page(5).set_request(request);
        assert!(
            !watch.clocks.is_empty(),
            "this kernel gives no {:?}",
            ProgramPart::Clock
        );
        // No right is needed to have a clock run.
        let heard = with_capabilities(CapabilitySet::empty(), || run_clocks(&watch.clocks, clock));
        heard.unwrap();
        let began = Instant::now();
        php.turn();
        let took = began.elapsed();
        run_clocks(&watch.clocks, false).unwrap();
        let mut seen = Vec::new();
        watch.records.drain(usize::MAX, |record| {
            if let Record::OnCpu(look) = record {
                seen.push(look);
            }
        });
        (seen, took)
    };
    let (seen, _) = run(&mut watch, 7, false);
    assert_eq!(seen, [], "the clocks stand still");
    let (seen, _) = run(&mut watch, 0, true);
    assert_eq!(seen, [], "no request is under way");
    let (seen, took) = run(&mut watch, 7, true);
    // At least half a second on a CPU, at 99 Hz; a busy machine may drop a tick.
    assert!(
        seen.len() > 25 && seen.len() < 3 + usize::try_from(took.as_millis()).unwrap() / 10,
        "{} in {took:?}",
        seen.len()
    );
    assert_eq!(watch.records.malformed(), 0);
    let mut before = 0;
    for look in &seen {
        assert_eq!((look.worker, look.slot, look.request), (worker, slot, 7));
        assert!(look.at_ns > before && !look.cut && !look.fault, "{look:#?}");
        before = look.at_ns;
        assert_eq!(look.frames.last().unwrap().function, "{main}");
    }
    let in_busy = |look: &&OnCpu| look.frames.iter().any(|frame| frame.function == "busy");
    assert!(
        seen.iter().filter(in_busy).count() * 10 > seen.len() * 9,
        "{seen:#?}"
    );
    let loops = seen.iter().filter(|look| look.frames[0].line == Some(6)).count();
    assert!(loops > 0, "{seen:#?}");
    let (seen, _) = run(&mut watch, 7, false);
    assert!(
        seen.is_empty() && took > Duration::from_millis(400),
        "they stand still again"
    );
}
