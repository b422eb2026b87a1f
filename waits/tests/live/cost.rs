//! What a switch costs, as the kernel itself measures it.

use std::fs;

use aya::programs::loaded_programs;
use glasspool_waits::{Settings, SlotIndex, WorkerId};

use crate::php::{Php, load, skipped};

/// Of one run of a program where no PHP code waits, its measuring included, nanoseconds.
const MOST: u64 = 300;

/// Turns the kernel's statistics on for as long as this lives. They are the whole host's.
struct Statistics(String);

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Statistics {
    fn on() -> Option<Statistics> {
        let before = fs::read_to_string(SWITCH).ok()?;
        fs::write(SWITCH, "1").ok()?;
        Some(Statistics(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        fs::write(SWITCH, &self.0).unwrap_or_default();
    }
}

/// Runs and nanoseconds of the youngest program of a name.
fn spent(name: &str) -> (u64, u64) {
    let programs = loaded_programs().filter_map(Result::ok);
    let mut named: Vec<_> = programs
        .filter(|program| program.name_as_str() == Some(name))
        .collect();
    named.sort_by_key(aya::programs::ProgramInfo::id);
    let program = named.last().unwrap();
    (
        program.run_count(),
        u64::try_from(program.run_time().as_nanos()).unwrap(),
    )
}

/// Runs by itself only (`--ignored`): other tests' programs and switches are in the numbers.
#[test]
#[ignore = "a measurement, of the whole host"]
fn a_switch_costs_little() {
    let settings = Settings {
        frames: 32,
        ..Settings::default()
    };
    let Some(mut waits) = load(&settings) else {
        return;
    };
    let Some(_statistics) = Statistics::on() else {
        skipped("only root may have the kernel measure programs");
        return;
    };
    // A wait each time, below a call of that depth.
    let deep = |depth: u32| {
        format!(
            "function down($n) {{ if ($n > 0) down($n - 1); else for ($i = 0; $i < 20000; $i++) usleep(1); }} /* {depth} */"
        )
    };
    let often = "for ($i = 0; $i < 20000; $i++) usleep(1);".to_owned();
    for (what, setup, turn, watched) in [
        ("strangers only", String::new(), often.clone(), None),
        ("times only", String::new(), often.clone(), Some(false)),
        ("2 frames", String::new(), often, Some(true)),
        ("10 frames", deep(7), "down(7);".to_owned(), Some(true)),
        ("31 frames", deep(28), "down(28);".to_owned(), Some(true)),
    ] {
        let mut php = Php::start(&setup, &turn);
        if let Some(stacks) = watched {
            let build = stacks.then(|| php.build());
            let (worker, slot) = (WorkerId(1), SlotIndex(1));
            waits.register(php.pidfd(), worker, slot, build).unwrap();
        }
        let before = [spent("on_switch"), spent("on_wakeup")];
        php.turn();
        let after = [spent("on_switch"), spent("on_wakeup")];
        for (index, name) in ["on_switch", "on_wakeup"].into_iter().enumerate() {
            let runs = after[index].0 - before[index].0;
            let each = (after[index].1 - before[index].1) / runs.max(1);
            println!("{what}: {name} {each} ns, {runs} runs");
            if watched != Some(true) {
                assert!(each < MOST, "{what}: {name} {each} ns");
            }
        }
        waits.unregister(php.pidfd(), WorkerId(1)).unwrap();
    }
}
