//! What a switch costs, as the kernel itself measures it.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use aya::programs::{ProgramInfo, loaded_programs};
use glasspool_waits::{Settings, SlotIndex, WorkerId};

use crate::database::Database;
use crate::php::{Php, skipped};
use crate::watch::Watch;

/// Of one run of a program where no PHP code waits, its measuring included, nanoseconds.
const MOST: u64 = 600;

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

/// The programs that have just been loaded, on a switch and on a wakeup. Others' have the
/// same names.
fn youngest() -> [u32; 2] {
    ["on_switch", "on_wakeup"].map(|name| {
        let programs = loaded_programs().filter_map(Result::ok);
        let named = programs.filter(|program| program.name_as_str() == Some(name));
        named.map(|program| program.id()).max().unwrap()
    })
}

fn program(id: u32) -> ProgramInfo {
    let mut programs = loaded_programs().filter_map(Result::ok);
    programs.find(|program| program.id() == id).unwrap()
}

/// Runs and nanoseconds of each.
fn spent(programs: [u32; 2]) -> [(u64, u64); 2] {
    programs.map(|id| {
        let program = program(id);
        let nanoseconds = u64::try_from(program.run_time().as_nanos()).unwrap();
        (program.run_count(), nanoseconds)
    })
}

/// A script, how it is watched, and what it does often.
struct Case {
    name: &'static str,
    setup: String,
    turn: &'static str,
    watched: Watched,
}

#[derive(PartialEq, Clone, Copy)]
enum Watched {
    Not,
    Times,
    Stacks,
    /// In a request that lasts for the whole turn, and with opcache.
    Request,
}

const SLEEPS: &str = "for ($i = 0; $i < 20000; $i++) usleep(1);";
const SELECTS: &str =
    "for ($i = 0; $i < 20000; $i++) { $r = [$s]; $w = $e = null; stream_select($r, $w, $e, 0, 1); }";

/// Something often, below a call of that depth.
fn below(depth: u32, often: &str) -> String {
    format!("function down($n, $s) {{ if ($n > 0) down($n - 1, $s); else {often} }} /* {depth} */ $s = null;")
}

/// Runs by itself only (`--ignored`): other tests' programs and switches are in the numbers.
#[test]
#[ignore = "a measurement, of the whole host"]
fn a_switch_costs_little() {
    let settings = Settings {
        frames: 32,
        ..Settings::default()
    };
    let Some(mut watch) = Watch::load(&settings) else {
        return;
    };
    let Some(_statistics) = Statistics::on() else {
        skipped("only root may have the kernel measure programs");
        return;
    };
    let programs = youngest();
    for id in programs {
        // The kernel gives up after a million.
        let verified = program(id).verified_instruction_count();
        println!("{verified:?} instructions verified");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!(
        "$s = stream_socket_client('tcp://{}');",
        listener.local_addr().unwrap()
    );
    let case = |name, setup: &str, turn, watched| Case {
        name,
        setup: setup.to_owned(),
        turn,
        watched,
    };
    let selects = below(7, SELECTS) + &connect;
    let database = Database::start();
    let queries = database.as_ref().map(|database| {
        let query = "$n = 3000; while ($n--) $s->query('SELECT 1');";
        below(7, query) + &format!("$s = new mysqli('127.0.0.1', 'root', '', '', {});", database.port)
    });
    for case in [
        case("strangers only", "", SLEEPS, Watched::Not),
        case("times only", "", SLEEPS, Watched::Times),
        case("times only, socket", &connect, SELECTS, Watched::Times),
        case("2 frames", "", SLEEPS, Watched::Stacks),
        case("10 frames", &below(7, SLEEPS), "down(7, $s);", Watched::Stacks),
        case("31 frames", &below(28, SLEEPS), "down(28, $s);", Watched::Stacks),
        case(
            "10 frames, request",
            &below(7, SLEEPS),
            "down(7, $s);",
            Watched::Request,
        ),
        case(
            "31 frames, request",
            &below(28, SLEEPS),
            "down(28, $s);",
            Watched::Request,
        ),
        case(
            "10 frames, request, socket",
            &selects,
            "down(7, $s);",
            Watched::Request,
        ),
        case(
            "10 frames, request, queries",
            &queries.unwrap_or_default(),
            "down(7, $s);",
            Watched::Request,
        ),
    ] {
        let mut command = Command::new("php");
        let opcache = u8::from(case.watched == Watched::Request);
        command.args(["-d", "opcache.jit=0", "-d", "opcache.file_update_protection=0"]);
        command.args(["-d", &format!("opcache.enable_cli={opcache}")]);
        let mut php = Php::start_in(command, &case.setup, case.turn);
        let page = watch.page(1);
        if case.watched != Watched::Not {
            let build = (case.watched != Watched::Times).then(|| php.build());
            let (worker, slot) = (WorkerId(1), SlotIndex(1));
            watch.roster.register(php.pidfd(), worker, slot, build).unwrap();
        }
        page.set_request(u64::from(opcache));
        let before = spent(programs);
        php.turn();
        let after = spent(programs);
        for (index, program) in ["on_switch", "on_wakeup"].into_iter().enumerate() {
            let runs = after[index].0 - before[index].0;
            let each = (after[index].1 - before[index].1) / runs.max(1);
            println!("{}: {program} {each} ns, {runs} runs", case.name);
            if matches!(case.watched, Watched::Not | Watched::Times) {
                assert!(each < MOST, "{}: {program} {each} ns", case.name);
            }
        }
        watch.roster.unregister(php.pidfd(), WorkerId(1)).unwrap();
    }
}
