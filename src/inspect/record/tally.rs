//! What was seen how often. Pure.
//!
//! Bounded in memory whatever the targets do: so many different frames, stacks and
//! groups are kept, and what comes after that is counted as "other".

use std::collections::HashMap;
use std::hash::Hash;

use crate::inspect::args::By;
use crate::inspect::look::{Line, Seen, State};

/// Different stacks that are kept; an application has some thousands.
const MOST_STACKS: usize = 100_000;
/// Different URIs, pools or processes.
const MOST_GROUPS: usize = 1_000;

/// A frame of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    /// What people read.
    pub(super) name: String,
    /// The file of its code, if it has one.
    pub(super) file: Option<String>,
    /// The line, if known.
    pub(super) line: Option<u32>,
}

/// Index into [`Tally::spots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SpotId(pub(super) usize);

/// Index into [`Tally::stacks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct StackId(usize);

/// Samples by group and stack.
#[derive(Debug)]
pub(super) struct Tally {
    by: By,
    keep_idle: bool,
    spots: Interned<Spot>,
    stacks: Interned<Vec<SpotId>>,
    groups: Interned<String>,
    counts: HashMap<(usize, StackId), u64>,
    /// What became of the looks.
    pub(super) totals: Totals,
}

/// What became of the looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// In the profile, on a CPU or ready for one.
    pub(super) running: u64,
    /// In the profile, waiting.
    pub(super) waiting: u64,
    /// In no script, and left out or kept as asked for.
    pub(super) idle: u64,
    /// In the profile with only the outer frames.
    pub(super) partial: u64,
    /// Could not be read.
    pub(super) failed: u64,
    /// Not taken, because a look came too late or to bound the cost.
    pub(super) missed: u64,
}

/// One line of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// What it belongs to.
    pub(super) group: &'a str,
    /// Outermost first.
    pub(super) stack: &'a [SpotId],
    /// How often it was seen.
    pub(super) count: u64,
}

impl Tally {
    pub(super) fn new(by: By, keep_idle: bool) -> Tally {
        Tally {
            by,
            keep_idle,
            spots: Interned::default(),
            stacks: Interned::default(),
            groups: Interned::default(),
            counts: HashMap::new(),
            totals: Totals::default(),
        }
    }

    /// Counts one look.
    pub(super) fn add(&mut self, seen: &Seen) {
        let state = seen.state();
        match state {
            State::Idle => self.totals.idle += 1,
            State::Waiting => self.totals.waiting += 1,
            State::Running => self.totals.running += 1,
        }
        if state == State::Idle && !self.keep_idle {
            return;
        }
        if seen.doubt.is_some() {
            self.totals.partial += 1;
        }
        let mut stack: Vec<SpotId> = Vec::with_capacity(seen.lines.len() + 1);
        for line in seen.lines.iter().rev() {
            stack.push(self.spots.id(Spot::from(line)));
        }
        if let Some(leaf) = leaf(seen, state) {
            stack.push(self.spots.id(leaf));
        }
        let stack = if self.stacks.is_full(MOST_STACKS, &stack) {
            let other = self.spots.id(Spot::named("(more stacks than are kept)"));
            vec![other]
        } else {
            stack
        };
        let mut group = group(seen, self.by);
        if self.groups.is_full(MOST_GROUPS, &group) {
            group = "(other)".to_owned();
        }
        let key = (self.groups.id(group), StackId(self.stacks.id_of(stack)));
        *self.counts.entry(key).or_default() += 1;
    }

    /// Everything, by group in order of their names and stack in order of their frames.
    pub(super) fn entries(&self) -> Vec<Entry<'_>> {
        let mut entries: Vec<Entry<'_>> = self
            .counts
            .iter()
            .map(|((group, stack), count)| Entry {
                group: &self.groups.all[*group],
                stack: &self.stacks.all[stack.0],
                count: *count,
            })
            .collect();
        entries.sort_by(|a, b| (a.group, a.stack).cmp(&(b.group, b.stack)));
        entries
    }

    /// The frames that entries name.
    pub(super) fn spots(&self) -> &[Spot] {
        &self.spots.all
    }

    pub(super) fn spot(&self, id: SpotId) -> &Spot {
        &self.spots.all[id.0]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

fn group(seen: &Seen, by: By) -> String {
    match by {
        By::Pool => seen.pool_or_program().to_owned(),
        By::Process => format!("{} {}", seen.pool_or_program(), seen.pid),
        By::Uri => match (&seen.request, seen.state()) {
            (Some(request), _) => request.words(),
            (None, State::Idle) => "idle".to_owned(),
            (None, _) => "(no request)".to_owned(),
        },
    }
}

/// What the innermost function was doing, where that is not simply running.
fn leaf(seen: &Seen, state: State) -> Option<Spot> {
    if seen.doubt.is_some() && state == State::Running {
        return Some(Spot::named("[inner frames unknown]"));
    }
    match (state, &seen.wait) {
        (State::Idle, _) => Some(Spot::named("[idle]")),
        (State::Waiting, Some(wait)) => Some(Spot::named(&format!("[{}]", wait.alike))),
        (State::Waiting, None) | (State::Running, _) => None,
    }
}

impl Spot {
    fn named(name: &str) -> Spot {
        Spot {
            name: name.to_owned(),
            file: None,
            line: None,
        }
    }

    /// The name; of code that has none of its own, with its file.
    pub(super) fn title(&self) -> String {
        match &self.file {
            Some(file) if self.name.starts_with('{') => format!("{} {file}", self.name),
            _ => self.name.clone(),
        }
    }
}

impl From<&Line> for Spot {
    fn from(line: &Line) -> Spot {
        Spot {
            name: line.name.clone(),
            file: line.file.clone(),
            line: line.line,
        }
    }
}

/// Values by the order of their first appearance.
#[derive(Debug)]
struct Interned<T> {
    all: Vec<T>,
    ids: HashMap<T, usize>,
}

impl<T> Default for Interned<T> {
    fn default() -> Interned<T> {
        Interned {
            all: Vec::new(),
            ids: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn id_of(&mut self, value: T) -> usize {
        if let Some(id) = self.ids.get(&value) {
            return *id;
        }
        let id = self.all.len();
        self.all.push(value.clone());
        self.ids.insert(value, id);
        id
    }

    /// Whether `value` is new and there is no room for it.
    fn is_full(&self, most: usize, value: &T) -> bool {
        self.all.len() >= most && !self.ids.contains_key(value)
    }
}

impl Interned<Spot> {
    fn id(&mut self, spot: Spot) -> SpotId {
        SpotId(self.id_of(spot))
    }
}

impl Interned<String> {
    fn id(&mut self, name: String) -> usize {
        self.id_of(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::look::Request;
    use crate::inspect::testing::{blocked, idle, running};

    fn shown(tally: &Tally) -> Vec<(String, Vec<String>, u64)> {
        let titles = |entry: &Entry<'_>| entry.stack.iter().map(|id| tally.spot(*id).title()).collect();
        tally
            .entries()
            .iter()
            .map(|entry| (entry.group.to_owned(), titles(entry), entry.count))
            .collect()
    }

    #[test]
    fn a_wait_is_the_innermost_frame_and_alike_ones_add_up() {
        let mut tally = Tally::new(By::Pool, false);
        for pid in [1, 2, 2] {
            tally.add(&blocked(pid));
        }
        tally.add(&idle(3));
        let stack = [
            "{main} /srv/index.php",
            "{closure} /srv/src/Page.php",
            "App\\Repo->find",
            "PDO->query",
            "[poll, tcp 10.0.3.7:3306]",
        ];
        let expected = ("www".to_owned(), stack.map(str::to_owned).to_vec(), 3);
        assert_eq!(shown(&tally), [expected]);
        assert_eq!((tally.totals.waiting, tally.totals.idle), (3, 1));
    }

    #[test]
    fn groups_are_what_was_asked_for() {
        let groups = |by| {
            let mut tally = Tally::new(by, true);
            for seen in [blocked(1), blocked(2), idle(3), running(4)] {
                tally.add(&seen);
            }
            let mut groups: Vec<String> = shown(&tally).into_iter().map(|(group, ..)| group).collect();
            groups.dedup();
            groups
        };
        assert_eq!(groups(By::Pool), ["php", "www"]);
        assert_eq!(groups(By::Process), ["php 4", "www 1", "www 2", "www 3"]);
        assert_eq!(groups(By::Uri), ["(no request)", "GET /orders", "idle"]);
    }

    #[test]
    fn a_stack_without_its_inner_frames_says_so() {
        let mut seen = running(1);
        seen.doubt = Some("the process ran on".to_owned());
        let mut tally = Tally::new(By::Pool, false);
        tally.add(&seen);
        assert_eq!(shown(&tally)[0].1.last().unwrap(), "[inner frames unknown]");
        assert_eq!((tally.totals.running, tally.totals.partial), (1, 1));
    }

    #[test]
    fn endless_variety_is_bounded_and_nothing_is_lost() {
        let mut tally = Tally::new(By::Uri, false);
        let count = u32::try_from(MOST_GROUPS).unwrap() + 500;
        for number in 0..count {
            let mut seen = blocked(1);
            seen.request = Some(Request::new("GET", &format!("/{number}")));
            tally.add(&seen);
        }
        assert_eq!(tally.groups.all.len(), MOST_GROUPS + 1);
        let all: u64 = tally.entries().iter().map(|entry| entry.count).sum();
        assert_eq!(all, u64::from(count));

        let mut tally = Tally::new(By::Pool, false);
        let count = u32::try_from(MOST_STACKS).unwrap() + 500;
        for line in 0..count {
            let mut seen = running(1);
            seen.lines[0].line = Some(line);
            tally.add(&seen);
        }
        assert_eq!(tally.stacks.all.len(), MOST_STACKS + 1);
        assert!(tally.spots.all.len() <= count as usize + 2);
    }
}
