//! System calls, counted for who asks for it.

use std::hint::black_box;
use std::time::Instant;

use glasspool_abi::times::Times;
use glasspool_waits::{Settings, SlotIndex, WorkerId};

use crate::php::Php;
use crate::watch::Watch;

/// A thousand calls, then two thousand, then bytes over a socket, and others to what is none.
const TURN: &str = "\
$turn++;
for ($i = 0; $turn < 3 && $i < 1000 * $turn; $i++) posix_getppid();
if ($turn >= 3) {
    [$one, $other] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    fwrite($one, str_repeat('x', 5000));
    fwrite($one, str_repeat('x', 70));
    fread($other, 8192);
    fwrite($other, 'y');
    file_put_contents('/dev/null', str_repeat('z', 300));
    fclose($one);
}";

/// The totals after each of so many turns; the last is of no request.
fn turns(settings: &Settings) -> Option<Vec<Times>> {
    let mut watch = Watch::load(settings)?;
    let mut php = Php::start("$turn = 0;", TURN);
    let registered = watch
        .roster
        .register(php.pidfd(), WorkerId(1), SlotIndex(1), Some(php.build()));
    registered.unwrap();
    let mut totals = Vec::new();
    // The first waits for its turn in a call that began before.
    for request in [7, 7, 7, 7, 0, 0] {
        watch.page(1).set_request(request);
        php.turn();
        totals.push(watch.eye.times(SlotIndex(1), 0).unwrap());
    }
    Some(totals)
}

#[test]
fn calls_and_bytes_in_requests_are_counted_exactly() {
    let settings = Settings {
        system_calls: true,
        ..Settings::default()
    };
    let Some(totals) = turns(&settings) else { return };
    let turns: Vec<Times> = totals.windows(2).map(|two| two[1].since(&two[0])).collect();
    let [second, third, fourth, ..] = &turns[..] else {
        panic!("{turns:?}")
    };
    // Waits for its turn, and says that it is done.
    let frame = second.calls - 2000;
    // The first time it began to wait in no request.
    assert_eq!(totals[0].calls + 1, 1000 + frame);
    assert!((1..10).contains(&frame), "{frame}");
    assert_eq!((second.sent, second.received), (0, 0), "a pipe is no socket");
    for turn in [third, fourth] {
        assert_eq!((turn.sent, turn.received), (5071, 5070));
    }
    for turn in [second, third, fourth] {
        let passed = turn.total_ns();
        assert!(turn.calls_ns > 0 && turn.calls_ns < passed, "{turn:?}");
    }
    // The call in which it waited for its turn began in the request before.
    assert!(turns[3].calls <= 1, "{:?}", turns[3]);
    assert_eq!((turns[4].calls, turns[4].sent, turns[4].calls_ns), (0, 0, 0));
}

#[test]
fn unless_asked_for_nothing_is_counted() {
    let Some(totals) = turns(&Settings::default()) else {
        return;
    };
    for total in totals {
        assert_eq!(
            (total.calls, total.calls_ns, total.sent, total.received),
            (0, 0, 0, 0)
        );
        assert!(total.waits > 0);
    }
}

/// Nanoseconds of a call of a process that nobody watches.
fn call_ns() -> f64 {
    const CALLS: u32 = 1_000_000;
    let began = Instant::now();
    for _ in 0..CALLS {
        black_box(rustix::process::getppid());
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

#[test]
#[ignore = "a measurement, of the whole host"]
fn a_call_of_anybody_costs_little_more() {
    let settings = [false, true].map(|system_calls| Settings {
        system_calls,
        ..Settings::default()
    });
    let mut rounds: Vec<[f64; 2]> = Vec::new();
    for _ in 0..21 {
        let mut round = [0.0; 2];
        for (settings, ns) in settings.iter().zip(&mut round) {
            let Some(_watch) = Watch::load(settings) else {
                return;
            };
            *ns = call_ns();
        }
        rounds.push(round);
    }
    rounds.sort_by(|one, other| (one[1] - one[0]).total_cmp(&(other[1] - other[0])));
    let [without, with] = rounds[rounds.len() / 2];
    eprintln!("a system call: {without:.1} ns without counting, {with:.1} ns with, of {rounds:.0?}");
}
