use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn some(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("not zero")
}

/// Start with 2, keep 2 to 4 idle, at most 20, at most 16 more a second.
pub(super) fn dynamic() -> Rules {
    Rules {
        manager: ProcessManager::Dynamic {
            start_servers: some(2),
            min_spare: some(2),
            max_spare: some(4),
            max_spawn_rate: some(16),
        },
        max_children: 20,
        quiet: false,
    }
}

/// At most 20, each idle for at most 10 seconds.
fn on_demand() -> Rules {
    Rules {
        manager: ProcessManager::OnDemand {
            idle_timeout: Duration::from_secs(10),
        },
        ..dynamic()
    }
}

/// A crew from letters: `c`oming, `i`dle, `b`usy; `r`etired and idle, `R`etired and busy.
/// The first is the youngest, and its number is 1.
fn crew(letters: &str, now: Instant) -> Vec<Member> {
    let member = |(id, letter): (u64, char)| Member {
        id: WorkerId(id),
        activity: match letter {
            'c' => Activity::Coming,
            'i' | 'r' => Activity::Idle { since: now },
            'b' | 'R' => Activity::Busy,
            other => panic!("{other} is nothing"),
        },
        born: now - SECOND * u32::try_from(id).expect("small"),
        retired: matches!(letter, 'r' | 'R'),
    };
    (1..).zip(letters.chars()).map(member).collect()
}

/// A scheduler that has all the workers it wants.
fn settled(rules: &Rules, crew: &[Member]) -> Scheduler {
    Scheduler {
        wanted: Counts::of(crew).staying(),
        ..Scheduler::new(rules)
    }
}

fn turn(rules: &Rules, letters: &str, event: Event) -> (Scheduler, Vec<Action>) {
    let now = Instant::now() + Duration::from_secs(1000);
    let crew = crew(letters, now);
    settled(rules, &crew).on(event, rules, &crew, now)
}

#[test]
fn a_pool_is_saturated_when_all_that_may_be_are_busy_and_connections_wait() {
    let rules = Rules {
        manager: ProcessManager::Static,
        max_children: 3,
        quiet: false,
    };
    let now = Instant::now();
    for (letters, waiting, expected) in [
        ("bbb", 1, true),
        ("bbb", 0, false),
        ("bbi", 5, false),
        ("bbc", 5, false),
        ("bbR", 5, false),
        ("bb", 5, false),
    ] {
        assert_eq!(
            rules.is_saturated(&crew(letters, now), waiting),
            expected,
            "{letters} {waiting}"
        );
    }
    let quiet = Rules { quiet: true, ..rules };
    assert!(!quiet.is_saturated(&crew("bbb", now), 1));
}

/// All but what is said at debug level.
fn deeds(actions: &[Action]) -> Vec<Action> {
    let is_deed = |action: &&Action| !matches!(action, Action::Say(LogLevel::Debug, _));
    actions.iter().filter(is_deed).cloned().collect()
}

fn said(actions: &[Action]) -> Vec<(LogLevel, &str)> {
    let line = |action| match action {
        &Action::Say(level, ref text) => Some((level, text.as_str())),
        Action::Retire(_) | Action::Kill(_) | Action::CountReached => None,
    };
    actions.iter().filter_map(line).collect()
}

#[test]
fn a_dynamic_pool_keeps_its_idle_workers_between_the_limits() {
    use Action::{Kill, Retire};
    // Crew, workers wanted, what is done. The spawn rate is 1.
    let table: [(&str, u32, &[Action]); 11] = [
        ("", 1, &[]),
        ("ii", 2, &[]),
        ("iiiibbb", 7, &[]),
        ("ib", 3, &[]),
        // What is on its way is not asked for again.
        ("icb", 3, &[]),
        ("iiiii", 4, &[Retire(WorkerId(5))]),
        // Only idle ones, and only one a second.
        ("biiiiiiib", 8, &[Retire(WorkerId(8))]),
        // One that has not listened is killed, and is no reason to end another one.
        ("iiiir", 4, &[Kill(WorkerId(5))]),
        ("iiiiir", 4, &[Kill(WorkerId(6)), Retire(WorkerId(5))]),
        // One that was told while it took a connection finishes that.
        ("iiiR", 3, &[]),
        // It still counts towards the maximum.
        ("bbbbbbbbbbbbbbbbbbiR", 19, &[]),
    ];
    for (letters, wanted, expected) in table {
        let (scheduler, actions) = turn(&dynamic(), letters, Event::Tick);
        assert_eq!(scheduler.wanted(), wanted, "{letters}");
        assert_eq!(deeds(&actions), expected, "{letters}");
    }
}

#[test]
fn the_spawn_rate_doubles_while_idle_workers_lack() {
    let rules = Rules {
        manager: ProcessManager::Dynamic {
            start_servers: some(50),
            min_spare: some(50),
            max_spare: some(60),
            max_spawn_rate: some(20),
        },
        max_children: 200,
        quiet: false,
    };
    let now = Instant::now() + Duration::from_secs(1000);
    let (mut scheduler, mut count, mut steps, mut warnings) = (Scheduler::new(&rules), 10, Vec::new(), 0);
    scheduler.wanted = count;
    for _ in 0..7 {
        let all_busy = crew(&"b".repeat(usize::try_from(count).expect("small")), now);
        let (next, actions) = scheduler.on(Event::Tick, &rules, &all_busy, now);
        steps.push(next.wanted() - count);
        warnings += said(&actions)
            .iter()
            .filter(|(level, _)| *level == LogLevel::Warning)
            .count();
        (scheduler, count) = (next, next.wanted());
    }
    // 20 is no power of two, and php-fpm would go on with 32.
    assert_eq!(steps, [1, 2, 4, 8, 16, 20, 20]);
    assert_eq!(warnings, 4, "from 8 on");
    let idle = crew(&"i".repeat(50), now);
    let (scheduler, _) = scheduler.on(Event::Tick, &rules, &idle, now);
    assert_eq!(scheduler.spawn_rate, 1);
}

#[test]
fn workers_that_cannot_be_had_do_not_raise_the_rate() {
    let now = Instant::now() + Duration::from_secs(1000);
    let crew = crew("b", now);
    let mut scheduler = settled(&dynamic(), &crew);
    for _ in 0..10 {
        (scheduler, _) = scheduler.on(Event::Tick, &dynamic(), &crew, now);
    }
    assert_eq!((scheduler.spawn_rate, scheduler.wanted()), (2, 3));
}

#[test]
fn being_full_is_told_once_until_workers_can_be_added_again() {
    let rules = Rules {
        max_children: 3,
        ..dynamic()
    };
    let now = Instant::now() + Duration::from_secs(1000);
    let mut scheduler = Scheduler::new(&rules);
    let mut reached = Vec::new();
    for letters in ["bbb", "bbb", "bib", "bi", "bbb", "bbb"] {
        let crew = crew(letters, now);
        scheduler.wanted = Counts::of(&crew).staying();
        let (next, actions) = scheduler.on(Event::Tick, &rules, &crew, now);
        reached.push(actions.contains(&Action::CountReached));
        if reached.len() == 1 {
            let words = "server reached pm.max_children setting (3), consider raising it";
            assert!(said(&actions).contains(&(LogLevel::Warning, words)));
        }
        scheduler = next;
    }
    assert_eq!(reached, [true, false, false, false, true, false]);
    let quiet = Rules { quiet: true, ..rules };
    let (_, actions) = turn(&quiet, "bbb", Event::Tick);
    assert_eq!(deeds(&actions), []);
}

#[test]
fn the_words_are_php_fpms() {
    let (_, actions) = turn(&dynamic(), "bbi", Event::Tick);
    let expected = [
        (
            LogLevel::Debug,
            "currently 2 active children, 1 spare children, 3 running children. Spawning rate 1",
        ),
        (LogLevel::Debug, "1 child(ren) have been created dynamically"),
    ];
    assert_eq!(said(&actions), expected);
    let (_, actions) = turn(&on_demand(), "bi", Event::Tick);
    let expected = [(LogLevel::Debug, "currently 1 active children, 1 spare children")];
    assert_eq!(said(&actions), expected);
    let (_, actions) = turn(&on_demand(), "", Event::Demand { waiting: 1 });
    let expected = [(
        LogLevel::Debug,
        "got accept without idle child available .... I forked",
    )];
    assert_eq!(said(&actions), expected);
}

#[test]
fn demand_is_met_as_far_as_it_is_allowed() {
    // Crew, connections that wait, workers wanted, whether the pool is full.
    let table = [
        ("", 1, 1, false),
        ("", 7, 7, false),
        ("i", 1, 1, false),
        ("ic", 2, 2, false),
        ("ibb", 3, 5, false),
        ("bbbbbbbbbbbbbbbbbbb", 1, 20, false),
        ("bbbbbbbbbbbbbbbbbbb", 2, 20, true),
        ("bbbbbbbbbbbbbbbbbbbb", 1, 20, true),
        // php-fpm calls this one full, too.
        ("bbbbbbbbbbbbbbbbbbbi", 1, 20, false),
        ("bbbbbbbbbbbbbbbbbbbr", 1, 19, false),
        ("b", 0, 1, false),
        ("", u32::MAX, 20, true),
    ];
    for (letters, waiting, wanted, full) in table {
        let (scheduler, actions) = turn(&on_demand(), letters, Event::Demand { waiting });
        assert_eq!(scheduler.wanted(), wanted, "{letters} {waiting}");
        assert_eq!(
            actions.contains(&Action::CountReached),
            full,
            "{letters} {waiting}"
        );
    }
    let (_, actions) = turn(&on_demand(), &"b".repeat(20), Event::Demand { waiting: 1 });
    let words = "server reached max_children setting (20), consider raising it";
    assert_eq!(said(&actions), [(LogLevel::Warning, words)]);
}

#[test]
fn an_idle_worker_is_ended_when_its_time_is_over() {
    let now = Instant::now() + Duration::from_secs(1000);
    let mut crew = crew("iiibr", now);
    for (member, idle) in crew.iter_mut().zip([9, 10, 11]) {
        member.activity = Activity::Idle {
            since: now - SECOND * idle,
        };
    }
    let (scheduler, actions) = settled(&on_demand(), &crew).on(Event::Tick, &on_demand(), &crew, now);
    let expected = [
        Action::Kill(WorkerId(5)),
        Action::Retire(WorkerId(2)),
        Action::Retire(WorkerId(3)),
    ];
    assert_eq!(deeds(&actions), expected);
    assert_eq!(scheduler.wanted(), 2);
}

#[test]
fn a_static_pool_stays_as_it_is() {
    let rules = Rules {
        manager: ProcessManager::Static,
        ..dynamic()
    };
    let scheduler = Scheduler::new(&rules);
    for letters in ["", "iiiiiiiiiiiiiiiiiiii", "bbbbbbbbbbbbbbbbbbbb"] {
        let now = Instant::now() + Duration::from_secs(1000);
        for event in [Event::Tick, Event::Demand { waiting: 9 }] {
            let (next, actions) = scheduler.on(event, &rules, &crew(letters, now), now);
            assert_eq!((next.wanted(), actions), (20, vec![]));
        }
    }
}

#[test]
fn only_a_worker_that_was_not_needed_and_obeyed_is_not_replaced() {
    let killed = |signal: Signal| Ended::Killed {
        signal: signal.as_raw(),
        core: false,
    };
    let (rules, ok) = (on_demand(), Ended::Exited(0));
    let table = [
        (false, ok, Burial::Replaced, 3),
        (false, killed(Signal::QUIT), Burial::Replaced, 3),
        (false, killed(Signal::SEGV), Burial::Replaced, 3),
        (true, ok, Burial::Retired, 3),
        (true, Ended::Exited(255), Burial::Retired, 3),
        (true, killed(Signal::QUIT), Burial::Retired, 3),
        (true, killed(Signal::KILL), Burial::Replaced, 4),
        (true, killed(Signal::SEGV), Burial::Replaced, 4),
    ];
    for (retired, ended, burial, wanted) in table {
        let scheduler = Scheduler {
            wanted: 3,
            ..Scheduler::new(&rules)
        };
        let (scheduler, found) = scheduler.on_end(&rules, retired, ended);
        assert_eq!(
            (found, scheduler.wanted()),
            (burial, wanted),
            "{retired} {ended:?}"
        );
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let limits = (1u32..30, 1u32..30, 1u32..40, 1u32..40, 1u32..40);
    (limits, 0u8..3, any::<bool>()).prop_map(|((max_children, a, b, start, rate), kind, quiet)| {
        let (least, most) = (a.min(b).min(max_children), a.max(b).min(max_children));
        let manager = match kind {
            0 => ProcessManager::Static,
            1 => ProcessManager::Dynamic {
                start_servers: some(start.clamp(least, most)),
                min_spare: some(least),
                max_spare: some(most),
                max_spawn_rate: some(rate),
            },
            _ => ProcessManager::OnDemand {
                idle_timeout: SECOND * start,
            },
        };
        Rules {
            manager,
            max_children,
            quiet,
        }
    })
}

proptest! {
    /// Whatever happens to its workers and whenever, a pool stays within its limits.
    #[test]
    fn no_pool_leaves_its_limits(
        rules in any_rules(),
        happenings in proptest::collection::vec((0u8..8, any::<prop::sample::Index>(), 0u32..50), 0..300)
    ) {
        let mut now = Instant::now();
        let mut scheduler = Scheduler::new(&rules);
        let (mut crew, mut next): (Vec<Member>, u64) = (Vec::new(), 1);
        for (kind, which, number) in happenings {
            // What `crew` does whenever it can: asks for what is missing.
            let counts = Counts::of(&crew);
            let missing = scheduler.wanted().saturating_sub(counts.staying());
            for _ in 0..missing.min(rules.max_children - counts.running()) {
                crew.push(Member { id: WorkerId(next), activity: Activity::Coming, born: now, retired: false });
                next += 1;
            }
            let before = Counts::of(&crew);
            prop_assert!(before.running() <= rules.max_children);
            let event = match kind {
                0 | 1 => Some(Event::Tick),
                2 => Some(Event::Demand { waiting: number }),
                _ => None,
            };
            let Some(event) = event else {
                let Some(index) = (!crew.is_empty()).then(|| which.index(crew.len())) else { continue };
                match kind {
                    3 => crew[index].activity = Activity::Busy,
                    4 | 5 => crew[index].activity = Activity::Idle { since: now },
                    _ => {
                        let gone = crew.swap_remove(index);
                        let ended = if kind == 6 { Ended::Exited(0) } else { Ended::Killed { signal: 9, core: false } };
                        scheduler = scheduler.on_end(&rules, gone.retired, ended).0;
                    }
                }
                continue;
            };
            now += SECOND;
            let (then, actions) = scheduler.on(event, &rules, &crew, now);
            let retired = actions.iter().filter(|action| matches!(action, Action::Retire(_))).count();
            for action in &actions {
                match action {
                    Action::Retire(id) => {
                        let member = crew.iter_mut().find(|member| member.id == *id).expect("one of the crew");
                        let idle = matches!(member.activity, Activity::Idle { .. });
                        prop_assert!(idle && !member.retired);
                        member.retired = true;
                    }
                    Action::Kill(id) => {
                        let member = crew.iter().find(|member| member.id == *id).expect("one of the crew");
                        prop_assert!(member.retired);
                    }
                    Action::CountReached => {
                        let added = then.wanted().saturating_sub(before.staying());
                        prop_assert!(!rules.quiet && before.running() + added == rules.max_children);
                    }
                    Action::Say(..) => {}
                }
            }
            let after = Counts::of(&crew);
            let added = then.wanted().saturating_sub(after.staying());
            prop_assert!(after.running() + added <= rules.max_children);
            match (rules.manager, event) {
                (ProcessManager::Static, _) => prop_assert_eq!(then.wanted(), rules.max_children),
                (ProcessManager::Dynamic { min_spare, max_spawn_rate, .. }, Event::Tick) => {
                    prop_assert!(added <= max_spawn_rate.get().max(1));
                    prop_assert!(retired <= 1 && (retired == 0 || added == 0));
                    let starving = before.idle + before.coming < min_spare.get();
                    let room = before.running() < rules.max_children;
                    prop_assert_eq!(added > 0, starving && room);
                }
                (ProcessManager::OnDemand { .. }, Event::Demand { waiting }) => {
                    let asked = waiting.saturating_sub(before.idle + before.coming);
                    let expected = asked.min(rules.max_children - before.running());
                    if asked > 0 {
                        prop_assert_eq!(added, expected);
                    }
                }
                (ProcessManager::OnDemand { .. }, Event::Tick) => prop_assert_eq!(added, 0),
                (ProcessManager::Dynamic { .. }, Event::Demand { .. }) => prop_assert_eq!(then, scheduler),
            }
            scheduler = then;
        }
    }

    /// With a constant number of busy workers a dynamic pool comes to rest and stays.
    #[test]
    fn a_constant_load_settles(rules in any_rules(), start in 0u32..40, load in 0u32..40) {
        let ProcessManager::Dynamic { min_spare, max_spare, .. } = rules.manager else { return Ok(()) };
        let now = Instant::now();
        let mut scheduler = Scheduler { wanted: start.min(rules.max_children), ..Scheduler::new(&rules) };
        let member = |id: u32, busy: bool| Member {
            id: WorkerId(u64::from(id)),
            activity: if busy { Activity::Busy } else { Activity::Idle { since: now } },
            born: now,
            retired: false,
        };
        let mut rest = 0;
        for _ in 0..80 {
            let count = scheduler.wanted();
            let crew: Vec<Member> = (0..count).map(|id| member(id, id < load)).collect();
            (scheduler, _) = scheduler.on(Event::Tick, &rules, &crew, now);
            rest = if scheduler.wanted() == count { rest + 1 } else { 0 };
        }
        prop_assert!(rest > 20, "still moving");
        let idle = scheduler.wanted() - load.min(scheduler.wanted());
        prop_assert!(idle <= max_spare.get());
        prop_assert!(idle >= min_spare.get() || scheduler.wanted() == rules.max_children);
    }
}
