//! A pool whose workers are all busy: what all of them do, at one moment, in one line.
//! Pure; the looking itself is `sampler`.
//!
//! A survey asks for one look at each busy worker and groups what is seen by stack and
//! wait. Workers are never stopped for it: it is taken exactly when time is short.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

use glasspool_abi::{PoolId, WorkerId};
use glasspool_otel::saturation::{Group, Saturation};
use glasspool_otel::slow::SlowEvent;

use super::text::Plain;

/// Between two surveys of a pool. A pool that is full is so for minutes, and tells in its
/// second survey what it told in its first.
const PERIOD_NS: u64 = 60_000_000_000;
/// Workers that are looked at in one survey: some 50 ms of the sampler's time.
const MOST_LOOKS: usize = 256;
/// Groups that the log line names; all are in the log record.
const MOST_TOLD: usize = 3;
/// Groups in the log record.
const MOST_GROUPS: usize = 16;

/// Surveys that are under way, and when each pool had its last.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    last: BTreeMap<PoolId, u64>,
    open: Vec<Survey>,
}

#[derive(Debug)]
struct Survey {
    pool: PoolId,
    name: String,
    busy: usize,
    workers: usize,
    /// Busy workers that no look was ordered of yet, with the numbers of their requests.
    waiting: VecDeque<(WorkerId, u64)>,
    ordered: BTreeSet<WorkerId>,
    seen: Vec<SlowEvent>,
}

impl Surveys {
    /// Whether a survey of the pool may begin at `now`, monotonic nanoseconds.
    pub(super) fn is_due(&self, pool: PoolId, now: u64) -> bool {
        let is_under_way = self.open.iter().any(|survey| survey.pool == pool);
        let is_due = self
            .last
            .get(&pool)
            .is_none_or(|last| now.saturating_sub(*last) >= PERIOD_NS);
        is_due && !is_under_way
    }

    /// Begins one: so many workers, of which these are busy with these requests.
    pub(super) fn begin(
        &mut self,
        pool: PoolId,
        name: &str,
        workers: usize,
        busy: Vec<(WorkerId, u64)>,
        now: u64,
    ) {
        if busy.is_empty() {
            return;
        }
        self.last.insert(pool, now);
        self.open.push(Survey {
            pool,
            name: name.to_owned(),
            busy: busy.len(),
            workers,
            waiting: busy.into_iter().take(MOST_LOOKS).collect(),
            ordered: BTreeSet::new(),
            seen: Vec::new(),
        });
    }

    /// The next look to order, if there is any.
    pub(super) fn next(&self) -> Option<(PoolId, WorkerId, u64)> {
        self.open.iter().find_map(|survey| {
            let (worker, number) = survey.waiting.front()?;
            Some((survey.pool, *worker, *number))
        })
    }

    /// That look was ordered, or cannot be. Returns the survey if it is over.
    pub(super) fn passed(&mut self, ordered: bool) -> Option<Saturation> {
        let place = self.open.iter().position(|survey| !survey.waiting.is_empty())?;
        let survey = &mut self.open[place];
        let (worker, _) = survey.waiting.pop_front()?;
        if ordered {
            survey.ordered.insert(worker);
        }
        self.close(place)
    }

    /// A look is over; nothing was seen if the request had ended. Returns the survey if
    /// that is over, too.
    pub(super) fn answered(&mut self, worker: WorkerId, seen: Option<SlowEvent>) -> Option<Saturation> {
        let mut open = self.open.iter_mut();
        let place = open.position(|survey| survey.ordered.remove(&worker))?;
        self.open[place].seen.extend(seen);
        self.close(place)
    }

    /// The pool is gone.
    pub(super) fn forget(&mut self, pool: PoolId) {
        self.last.remove(&pool);
    }

    fn close(&mut self, place: usize) -> Option<Saturation> {
        let survey = &self.open[place];
        if !survey.waiting.is_empty() || !survey.ordered.is_empty() {
            return None;
        }
        let survey = self.open.swap_remove(place);
        Some(survey.result())
    }
}

impl Survey {
    fn result(self) -> Saturation {
        let seen = self.seen.len();
        let mut groups: Vec<(Alike, Group)> = Vec::new();
        for event in self.seen {
            let alike = Alike::of(&event);
            match groups.iter_mut().find(|(known, _)| *known == alike) {
                Some((_, group)) => group.workers += 1,
                None => groups.push((alike, group(event))),
            }
        }
        // The largest first; those of one size in the order in which they were seen.
        groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.workers));
        let elsewhere = groups.iter().skip(MOST_GROUPS);
        let elsewhere = elsewhere.map(|(_, group)| group.workers).sum();
        Saturation {
            pool: self.name,
            busy: self.busy,
            workers: self.workers,
            seen,
            groups: groups
                .into_iter()
                .take(MOST_GROUPS)
                .map(|(_, group)| group)
                .collect(),
            elsewhere,
        }
    }
}

/// What is the same in all of a group.
#[derive(Debug, PartialEq, Eq)]
struct Alike {
    stacktrace: String,
    wait: Option<String>,
}

impl Alike {
    fn of(event: &SlowEvent) -> Alike {
        Alike {
            stacktrace: event.stacktrace.clone(),
            wait: waiting_for(event),
        }
    }
}

fn group(event: SlowEvent) -> Group {
    let wait = waiting_for(&event);
    let place = match (&event.function, &event.file, event.line) {
        (None, _, _) => "an unreadable stack".to_owned(),
        (Some(function), Some(file), Some(line)) => format!("{function} {file}:{line}"),
        (Some(function), _, _) => function.clone(),
    };
    Group {
        workers: 1,
        place,
        wait,
        stacktrace: event.stacktrace,
    }
}

/// What it waits for, the same for every worker that waits for the same.
fn waiting_for(event: &SlowEvent) -> Option<String> {
    let Some(peer) = &event.waiting.peer else {
        return event.waiting.alike.clone().or_else(|| event.wait.clone());
    };
    let transport = peer.transport.as_deref().unwrap_or("a connection to");
    Some(match (&peer.address, peer.port) {
        (address, Some(port)) if address.contains(':') => format!("{transport} [{address}]:{port}"),
        (address, Some(port)) => format!("{transport} {address}:{port}"),
        (address, None) => format!("{transport} {address}"),
    })
}

/// The line for the log.
pub(super) fn line(saturation: &Saturation) -> String {
    let Saturation {
        pool,
        busy,
        workers,
        seen,
        groups,
        elsewhere,
    } = saturation;
    let mut line = format!("pool {pool} saturated: {busy}/{workers} busy");
    if seen < busy {
        write!(line, " ({seen} seen)").expect("writing to a string does not fail");
    }
    for (index, group) in groups.iter().take(MOST_TOLD).enumerate() {
        let separator = if index == 0 { "," } else { ";" };
        write!(line, "{separator} {}", Plain(group.to_string())).expect("as above");
    }
    let rest = groups.iter().skip(MOST_TOLD).map(|group| group.workers);
    let rest = rest.sum::<usize>() + elsewhere;
    if rest > 0 {
        write!(line, "; and {rest} more").expect("as above");
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use glasspool_otel::slow::{Peer, Waiting};

    use super::super::testing::event;
    use super::*;

    const S: u64 = 1_000_000_000;
    const WWW: PoolId = PoolId(3);

    fn at(function: &str, line: u32, wait: Option<&str>) -> SlowEvent {
        SlowEvent {
            function: Some(function.to_owned()),
            file: Some("/srv/Repo.php".to_owned()),
            line: Some(line),
            stacktrace: format!("#0 {function} {line}"),
            wait: wait.map(str::to_owned),
            elapsed: Duration::from_secs(u64::from(line)),
            ..event()
        }
    }

    /// A whole survey of workers that are seen so, `None` for a request that ends.
    fn survey(seen: Vec<Option<SlowEvent>>) -> Saturation {
        let mut surveys = Surveys::default();
        let busy = (1..).zip(&seen).map(|(id, _)| (WorkerId(id), 7)).collect();
        surveys.begin(WWW, "www", seen.len(), busy, S);
        let mut result = None;
        for (id, event) in (1..).zip(seen) {
            assert_eq!(surveys.next(), Some((WWW, WorkerId(id), 7)));
            assert!(surveys.passed(true).is_none());
            assert!(result.is_none());
            result = surveys.answered(WorkerId(id), event);
            assert!(surveys.answered(WorkerId(id), None).is_none(), "answered twice");
        }
        assert_eq!(surveys.next(), None);
        result.expect("all are answered")
    }

    #[test]
    fn workers_that_do_the_same_are_one_group() {
        let query = || Some(at("PDO::query", 42, Some("tcp 10.0.3.7:3306")));
        let other = || Some(at("PDO::query", 42, Some("tcp 10.0.3.8:3306")));
        let mut seen: Vec<_> = (0..38).map(|_| query()).collect();
        seen.insert(0, other());
        seen.push(Some(at("md5", 9, None)));
        let saturation = survey(seen);
        assert_eq!(
            line(&saturation),
            "pool www saturated: 40/40 busy, 38 in PDO::query /srv/Repo.php:42, waiting for tcp 10.0.3.7:3306; \
             1 in PDO::query /srv/Repo.php:42, waiting for tcp 10.0.3.8:3306; 1 in md5 /srv/Repo.php:9"
        );
    }

    #[test]
    fn who_is_waited_for_is_named_by_address_else_by_what_the_look_says() {
        let mut event = at("f", 1, Some("poll on tcp ::1:3306"));
        assert_eq!(waiting_for(&event).as_deref(), Some("poll on tcp ::1:3306"));
        for (address, port, transport, expected) in [
            ("::1", Some(3306), Some("tcp"), "tcp [::1]:3306"),
            ("10.0.3.7", Some(53), Some("udp"), "udp 10.0.3.7:53"),
            ("/run/db.sock", None, Some("unix"), "unix /run/db.sock"),
            ("10.0.3.7", None, None, "a connection to 10.0.3.7"),
        ] {
            let peer = Peer {
                address: address.to_owned(),
                port,
                transport: transport.map(str::to_owned),
            };
            event.waiting = Waiting {
                peer: Some(peer),
                ..Waiting::default()
            };
            assert_eq!(waiting_for(&event).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut seen: Vec<_> = (0..40).map(|line| Some(at("f", line, None))).collect();
        seen[5] = Some(at("f", 4, None));
        seen.push(None);
        let saturation = survey(seen);
        let told = line(&saturation);
        let expected = "pool www saturated: 41/41 busy (40 seen), 2 in f /srv/Repo.php:4; \
                        1 in f /srv/Repo.php:0; 1 in f /srv/Repo.php:1; and 36 more";
        assert_eq!(told, expected);
        assert_eq!((saturation.groups.len(), saturation.elsewhere), (16, 23));
    }

    #[test]
    fn a_stack_that_cannot_be_read_and_a_name_with_control_characters_are_one_line() {
        let mut odd = at("f\n\x1b[2J", 1, None);
        odd.file = None;
        let saturation = survey(vec![Some(event()), Some(odd)]);
        let told = line(&saturation);
        assert!(
            told.contains("1 in an unreadable stack; 1 in f\\n\\x1b[2J"),
            "{told}"
        );
    }

    #[test]
    fn a_pool_is_surveyed_once_a_minute_and_only_with_busy_workers() {
        let mut surveys = Surveys::default();
        surveys.begin(WWW, "www", 4, vec![], S);
        assert!(surveys.is_due(WWW, S) && surveys.next().is_none());
        surveys.begin(WWW, "www", 4, vec![(WorkerId(1), 1), (WorkerId(2), 1)], S);
        assert!(surveys.is_due(PoolId(4), S));
        assert!(!surveys.is_due(WWW, 100 * S), "it is not over");
        // One has ended before its look, the other cannot be looked at.
        assert!(surveys.passed(true).is_none());
        assert!(surveys.passed(false).is_none());
        let over = surveys.answered(WorkerId(1), None).expect("is over");
        assert_eq!(line(&over), "pool www saturated: 2/4 busy (0 seen)");
        assert!(!surveys.is_due(WWW, 60 * S) && surveys.is_due(WWW, 61 * S));
        surveys.forget(WWW);
        assert!(surveys.is_due(WWW, S));
    }

    #[test]
    fn a_large_pool_is_looked_at_in_part() {
        let mut surveys = Surveys::default();
        let busy = (0..1000).map(|id| (WorkerId(id), 1)).collect();
        surveys.begin(WWW, "www", 1000, busy, S);
        let mut ordered = 0;
        while surveys.next().is_some() {
            assert!(surveys.passed(true).is_none());
            ordered += 1;
        }
        assert_eq!(ordered, MOST_LOOKS);
    }
}
