//! A thousand workers that exist only as numbers: requests arrive and are served, the
//! clock is a variable, and the schedulers are the real ones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use glasspool_abi::WorkerId;
use glasspool_abi::control::Ended;

use super::{Action, Activity, Event, Member, Rules, Scheduler};
use crate::config::ProcessManager;

/// From asking for a worker until it accepts.
const BIRTH: Duration = Duration::from_millis(5);
/// Between two looks at a listening socket on which connections wait.
const LOOK: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Tick,
    Look,
    Arrival,
    Born(u64),
    Served(u64),
}

/// Where requests come from.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// At random, so many a second.
    Open(f64),
    /// From so many clients, each of which asks again when it has been answered.
    Closed(u32),
    /// So many at once after a second, then none.
    Burst(u32),
}

struct Simulation {
    rules: Rules,
    load: Load,
    mean_service: f64,
    scheduler: Scheduler,
    epoch: Instant,
    now: Duration,
    agenda: BinaryHeap<Reverse<(Duration, Happening)>>,
    workers: BTreeMap<u64, Member>,
    idle: BTreeSet<u64>,
    next: u64,
    queue: u32,
    random: u64,
    /// Workers started, and told to end.
    changes: u32,
    most: usize,
    reached: u32,
}

impl Simulation {
    fn new(rules: Rules, load: Load, mean_service: f64) -> Simulation {
        let mut simulation = Simulation {
            scheduler: Scheduler::new(&rules),
            rules,
            load,
            mean_service,
            epoch: Instant::now(),
            now: Duration::ZERO,
            agenda: BinaryHeap::new(),
            workers: BTreeMap::new(),
            idle: BTreeSet::new(),
            next: 1,
            queue: 0,
            random: 0x1234_5678_9abc_def1,
            changes: 0,
            most: 0,
            reached: 0,
        };
        simulation.in_time(SECOND, Happening::Tick);
        if let ProcessManager::OnDemand { .. } = rules.manager {
            simulation.in_time(LOOK, Happening::Look);
        }
        match load {
            Load::Open(_) => simulation.in_time(Duration::ZERO, Happening::Arrival),
            Load::Closed(count) => simulation.queue = count,
            Load::Burst(_) => simulation.in_time(SECOND, Happening::Arrival),
        }
        simulation.ask_for_workers();
        simulation
    }

    fn in_time(&mut self, time: Duration, happening: Happening) {
        self.agenda.push(Reverse((self.now + time, happening)));
    }

    /// Exponentially distributed with this mean, seconds; xorshift64.
    fn random(&mut self, mean: f64) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let upper = u32::try_from(self.random >> 32).expect("32 bits");
        let uniform = (f64::from(upper) + 1.0) / (f64::from(u32::MAX) + 1.0);
        Duration::from_secs_f64(-uniform.ln() * mean)
    }

    fn ask_for_workers(&mut self) {
        let staying = self.workers.values().filter(|member| !member.retired).count();
        let missing = usize::try_from(self.scheduler.wanted()).expect("fits");
        for _ in staying..missing {
            let id = self.next;
            self.next += 1;
            self.changes += 1;
            let born = self.epoch + self.now;
            let member = Member {
                id: WorkerId(id),
                activity: Activity::Coming,
                born,
                retired: false,
            };
            self.workers.insert(id, member);
            self.in_time(BIRTH, Happening::Born(id));
        }
        self.most = self.most.max(self.workers.len());
    }

    fn think(&mut self, event: Event) {
        let crew: Vec<Member> = self.workers.values().copied().collect();
        let (scheduler, actions) = self
            .scheduler
            .on(event, &self.rules, &crew, self.epoch + self.now);
        self.scheduler = scheduler;
        for action in actions {
            match action {
                Action::Retire(WorkerId(id)) => {
                    // An idle worker obeys at once.
                    self.workers.remove(&id).expect("one of the crew");
                    assert!(self.idle.remove(&id), "only idle ones are ended");
                    self.changes += 1;
                    self.scheduler = self.scheduler.on_end(&self.rules, true, Ended::Exited(0)).0;
                }
                Action::Kill(_) => panic!("nobody is deaf here"),
                Action::CountReached => self.reached += 1,
                Action::Say(..) => {}
            }
        }
        self.ask_for_workers();
    }

    /// The worker takes a connection, if one waits.
    fn accept(&mut self, id: u64) {
        let now = self.epoch + self.now;
        let busy = self.queue > 0;
        let Some(member) = self.workers.get_mut(&id) else {
            return;
        };
        if busy {
            self.idle.remove(&id);
            member.activity = Activity::Busy;
            self.queue -= 1;
            let time = self.random(self.mean_service);
            self.in_time(time, Happening::Served(id));
        } else {
            self.idle.insert(id);
            member.activity = Activity::Idle { since: now };
        }
    }

    fn arrive(&mut self, count: u32) {
        self.queue += count;
        while let Some(id) = self.idle.first().copied().filter(|_| self.queue > 0) {
            self.accept(id);
        }
    }

    fn run_until(&mut self, end: Duration) {
        while let Some(Reverse((at, happening))) = self.agenda.pop() {
            if at > end {
                self.agenda.push(Reverse((at, happening)));
                break;
            }
            self.now = at;
            match (happening, self.load) {
                (Happening::Tick, _) => {
                    self.think(Event::Tick);
                    self.in_time(SECOND, Happening::Tick);
                }
                (Happening::Look, _) => {
                    if self.queue > 0 {
                        self.think(Event::Demand { waiting: self.queue });
                    }
                    self.in_time(LOOK, Happening::Look);
                }
                (Happening::Arrival, Load::Open(per_second)) => {
                    self.arrive(1);
                    let wait = self.random(1.0 / per_second);
                    self.in_time(wait, Happening::Arrival);
                }
                (Happening::Arrival, Load::Closed(count) | Load::Burst(count)) => self.arrive(count),
                (Happening::Born(id), _) => self.accept(id),
                (Happening::Served(id), load) => {
                    if let Load::Closed(_) = load {
                        self.queue += 1;
                    }
                    self.accept(id);
                }
            }
        }
        self.now = end;
    }
}

fn dynamic() -> Rules {
    let some = |count| NonZeroU32::new(count).expect("not zero");
    Rules {
        manager: ProcessManager::Dynamic {
            start_servers: some(100),
            min_spare: some(50),
            max_spare: some(150),
            max_spawn_rate: some(32),
        },
        max_children: 1000,
        quiet: false,
    }
}

fn on_demand() -> Rules {
    Rules {
        manager: ProcessManager::OnDemand {
            idle_timeout: Duration::from_secs(10),
        },
        ..dynamic()
    }
}

#[test]
fn a_random_load_on_a_thousand_workers_finds_its_size_and_stays_there() {
    // 600 are busy on the average, with a standard deviation of 24.
    let mut simulation = Simulation::new(dynamic(), Load::Open(600.0), 1.0);
    // Growing is fast and too much, getting smaller takes a second for each worker.
    simulation.run_until(SECOND * 480);
    assert_eq!(simulation.queue, 0);
    let count = simulation.workers.len();
    assert!((650..780).contains(&count), "{count} workers");
    let before = simulation.changes;
    simulation.run_until(SECOND * 600);
    let changes = simulation.changes - before;
    assert!(
        changes <= 60,
        "{changes} came and went in two minutes of steady load"
    );
}

#[test]
fn a_constant_load_comes_to_a_standstill() {
    let mut simulation = Simulation::new(dynamic(), Load::Closed(400), 0.5);
    simulation.run_until(SECOND * 60);
    let before = simulation.changes;
    simulation.run_until(SECOND * 180);
    assert_eq!(simulation.changes, before);
    let idle = simulation.idle.len();
    assert!((50..=150).contains(&idle), "{idle} idle workers");
}

#[test]
fn too_much_load_fills_the_pool_and_is_told_once() {
    let mut simulation = Simulation::new(dynamic(), Load::Closed(3000), 1.0);
    simulation.run_until(SECOND * 120);
    assert_eq!((simulation.workers.len(), simulation.most), (1000, 1000));
    assert_eq!((simulation.reached, simulation.queue), (1, 2000));
}

#[test]
fn a_burst_is_met_at_once_and_its_workers_do_not_outstay_it() {
    let mut simulation = Simulation::new(on_demand(), Load::Burst(800), 1.0);
    simulation.run_until(SECOND + Duration::from_millis(50));
    assert_eq!((simulation.workers.len(), simulation.queue), (800, 0));
    // The longest of 800 requests takes about seven times the mean.
    simulation.run_until(SECOND * 60);
    assert_eq!(simulation.workers.len(), 0);
    assert_eq!(
        (simulation.most, simulation.changes, simulation.reached),
        (800, 1600, 0)
    );
}
