//! What the live view knows and how keys change it. Pure.

use std::cmp::Ordering;

use glasspool_abi::Pid;

use crate::inspect::look::{Seen, State};

/// What rows can be sorted by; also the columns, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Pid,
    Pool,
    State,
    Age,
    Wait,
    Request,
    Doing,
}

/// All of them.
pub(super) const COLUMNS: [Column; 7] = [
    Column::Pid,
    Column::Pool,
    Column::State,
    Column::Age,
    Column::Wait,
    Column::Request,
    Column::Doing,
];

/// What the keys go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// The table.
    Table,
    /// The text after `/`, letter by letter.
    Filter,
    /// The list of keys.
    Help,
    /// A dump of one process.
    Dump {
        /// Whose.
        pid: Pid,
        /// What to show.
        text: String,
        /// Lines above the screen.
        scroll: u16,
    },
}

/// A key, as far as it means anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    /// Ctrl-C.
    Interrupt,
}

/// What the caller is to do for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Look at this one and call [`Model::show_dump`].
    Dump(Pid),
}

/// The state of the view.
#[derive(Debug)]
pub(super) struct Model {
    rows: Vec<Seen>,
    /// What could not be had lately.
    pub(super) trouble: Option<String>,
    pub(super) sort: Column,
    pub(super) reverse: bool,
    pub(super) filter: String,
    pub(super) paused: bool,
    pub(super) mode: Mode,
    selected: Option<Pid>,
}

/// Rows that the page keys move by.
const PAGE: usize = 10;
/// A filter is typed; nobody types more.
const MOST_LETTERS: usize = 100;

impl Model {
    pub(super) fn new() -> Model {
        Model {
            rows: Vec::new(),
            trouble: None,
            sort: Column::State,
            reverse: false,
            filter: String::new(),
            paused: false,
            mode: Mode::Table,
            selected: None,
        }
    }

    /// Takes a new round of looks, unless paused.
    pub(super) fn update(&mut self, rows: Vec<Seen>) {
        if !self.paused {
            self.rows = rows;
        }
    }

    /// Rows that pass the filter, sorted.
    pub(super) fn shown(&self) -> Vec<&Seen> {
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<&Seen> = self
            .rows
            .iter()
            .filter(|seen| {
                wanted.is_empty()
                    || COLUMNS
                        .iter()
                        .any(|column| cell(seen, *column).to_lowercase().contains(&wanted))
            })
            .collect();
        rows.sort_by(|a, b| {
            let order = compare(a, b, self.sort);
            let order = if self.reverse { order.reverse() } else { order };
            order.then(a.pid.cmp(&b.pid))
        });
        rows
    }

    /// Processes in each state: running, waiting, idle.
    pub(super) fn counts(&self) -> [usize; 3] {
        [State::Running, State::Waiting, State::Idle]
            .map(|state| self.rows.iter().filter(|seen| seen.state() == state).count())
    }

    /// Index of the selected row among those shown: it stays with its process, and goes to
    /// the first row if that is gone.
    pub(super) fn position(&self) -> Option<usize> {
        let rows = self.shown();
        let place = rows.iter().position(|seen| Some(seen.pid) == self.selected);
        place.or((!rows.is_empty()).then_some(0))
    }

    /// Shows a dump, of which somebody asked for.
    pub(super) fn show_dump(&mut self, pid: Pid, text: String) {
        self.mode = Mode::Dump { pid, text, scroll: 0 };
    }

    /// Does what a key means; what is left to do is returned.
    pub(super) fn on(&mut self, key: Key) -> Option<Action> {
        if key == Key::Interrupt {
            return Some(Action::Quit);
        }
        match &mut self.mode {
            Mode::Table => return self.on_table(key),
            Mode::Filter => self.on_filter(key),
            Mode::Help => match key {
                Key::Char('q') => return Some(Action::Quit),
                _ => self.mode = Mode::Table,
            },
            Mode::Dump { text, scroll, .. } => match key {
                Key::Up | Key::Char('k') => *scroll = scroll.saturating_sub(1),
                Key::Down | Key::Char('j') => *scroll = scroll.saturating_add(1).min(last_line(text)),
                Key::PageUp => *scroll = scroll.saturating_sub(10),
                Key::PageDown => *scroll = scroll.saturating_add(10).min(last_line(text)),
                Key::Escape | Key::Enter | Key::Backspace | Key::Char('q') => self.mode = Mode::Table,
                Key::Char(_) | Key::Interrupt => {}
            },
        }
        None
    }

    fn on_table(&mut self, key: Key) -> Option<Action> {
        match key {
            Key::Char('q') => return Some(Action::Quit),
            Key::Char('s') => self.sort = after(self.sort),
            Key::Char('r') => self.reverse = !self.reverse,
            Key::Char(' ') => self.paused = !self.paused,
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Escape => self.filter.clear(),
            Key::Up | Key::Char('k') => self.step(|at| at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.step(|at| at + 1),
            Key::PageUp => self.step(|at| at.saturating_sub(PAGE)),
            Key::PageDown => self.step(|at| at + PAGE),
            Key::Enter => {
                let place = self.position()?;
                return self.shown().get(place).map(|seen| Action::Dump(seen.pid));
            }
            Key::Char(_) | Key::Backspace | Key::Interrupt => {}
        }
        None
    }

    fn on_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.mode = Mode::Table,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Table;
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(letter) if self.filter.chars().count() < MOST_LETTERS => self.filter.push(letter),
            Key::Char(_) | Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Interrupt => {}
        }
    }

    fn step(&mut self, to: impl Fn(usize) -> usize) {
        let rows = self.shown();
        let next = self
            .position()
            .and_then(|at| rows.get(to(at).min(rows.len() - 1)))
            .map(|seen| seen.pid);
        self.selected = next;
    }
}

fn last_line(text: &str) -> u16 {
    u16::try_from(text.lines().count().saturating_sub(1)).unwrap_or(u16::MAX)
}

fn after(column: Column) -> Column {
    let place = COLUMNS.iter().position(|one| *one == column).unwrap_or(0);
    COLUMNS[(place + 1) % COLUMNS.len()]
}

/// The order in which people look for trouble: longest first where it is about time.
fn compare(a: &Seen, b: &Seen, column: Column) -> Ordering {
    let since = |seen: &Seen| seen.wait.as_ref().and_then(|wait| wait.since);
    match column {
        Column::Pid => a.pid.cmp(&b.pid),
        Column::Pool => a.pool.cmp(&b.pool),
        Column::State => a
            .state()
            .cmp(&b.state())
            .then_with(|| b.age.cmp(&a.age))
            .then_with(|| since(b).cmp(&since(a))),
        Column::Age => b.age.cmp(&a.age),
        // An idle worker's wait is no trouble, however long.
        Column::Wait => (a.state() == State::Idle)
            .cmp(&(b.state() == State::Idle))
            .then_with(|| since(b).cmp(&since(a))),
        Column::Request => a.request.cmp(&b.request),
        Column::Doing => cell(a, column).cmp(&cell(b, column)),
    }
}

impl Column {
    pub(super) fn title(self) -> &'static str {
        match self {
            Column::Pid => "PID",
            Column::Pool => "POOL",
            Column::State => "STATE",
            Column::Age => "AGE",
            Column::Wait => "WAITING",
            Column::Request => "REQUEST",
            Column::Doing => "DOING",
        }
    }

    /// Fewest and most cells of the screen: it takes what its longest text does. The last
    /// column takes what is left.
    pub(super) fn bounds(self) -> (u16, u16) {
        match self {
            Column::Pid => (7, 10),
            Column::Pool => (5, 12),
            Column::State => (8, 8),
            Column::Age | Column::Wait => (8, 12),
            Column::Request => (8, 28),
            Column::Doing => (0, 0),
        }
    }
}

/// The text of one cell; empty if there is nothing to say.
pub(super) fn cell(seen: &Seen, column: Column) -> String {
    let idle = seen.state() == State::Idle;
    match column {
        Column::Pid => seen.pid.to_string(),
        Column::Pool => crate::inspect::console::plain(seen.pool.as_deref().unwrap_or("-")),
        Column::State => seen.state().word().to_owned(),
        Column::Age => seen.age.map(super::super::look::short).unwrap_or_default(),
        Column::Wait if idle => String::new(),
        Column::Wait => {
            let since = seen.wait.as_ref().and_then(|wait| wait.since);
            since.map(super::super::look::short).unwrap_or_default()
        }
        Column::Request => seen
            .request
            .as_ref()
            .map(super::super::look::Request::words)
            .unwrap_or_default(),
        Column::Doing if idle => String::new(),
        Column::Doing => doing(seen),
    }
}

/// What it waits in, and the innermost frames.
fn doing(seen: &Seen) -> String {
    let mut parts: Vec<String> = seen.wait.iter().map(|wait| format!("[{}]", wait.alike)).collect();
    parts.extend(seen.lines.iter().take(3).map(|line| {
        let place = line.place();
        let short = place.rsplit('/').next().unwrap_or_default().trim_start();
        match short {
            "" => line.call(),
            short => format!("{} {short}", line.call()),
        }
    }));
    parts.join(" < ")
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
