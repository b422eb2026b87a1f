//! The processes that a command looks at: opened, looked at, and found anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use glasspool_abi::Pid;
use glasspool_probes::native::Modules;
use glasspool_probes::{OpenError, process};

use super::look::Seen;
use super::member::Member;
use super::targets::{Found, Processes, Selector, TargetError};

/// What to see of each process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    /// Frames, innermost first.
    pub(super) frames: usize,
    /// Types of arguments.
    pub(super) types: bool,
    /// C functions.
    pub(super) native: bool,
    /// What it serves.
    pub(super) request: bool,
}

/// Processes that are open.
#[derive(Debug)]
pub(super) struct Crew {
    processes: Processes,
    selectors: Vec<Selector>,
    want: Want,
    members: BTreeMap<Pid, Member>,
    /// Not tried again: they were refused or are no PHP.
    refused: BTreeSet<Pid>,
    /// What is known of object files, if C functions are wanted.
    modules: Modules,
}

/// Why there is nothing to see of a process.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It is not what it was when it was found. Ordinary.
    Gone {
        /// The process.
        pid: Pid,
        /// What became of it.
        fate: Fate,
    },
    /// Anything else, in one line.
    Failed(String),
}

/// What became of a process that cannot be looked into any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has ended.
    Ended,
    /// It lives, and runs what it gave execve(2) since.
    Replaced,
}

impl Fate {
    /// Of a process that is known to be gone or replaced.
    pub(super) fn of(pid: Pid) -> Fate {
        if process::has_memory(pid) {
            Fate::Replaced
        } else {
            Fate::Ended
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Ended => "has just ended",
            Fate::Replaced => "has just executed another program",
        })
    }
}

impl Crew {
    /// Finds and opens what is meant. Costs 5 to 40 ms for each different PHP binary,
    /// and below a millisecond for each process. Returns also what could not be had.
    pub(super) fn gather(selectors: &[Selector], want: Want) -> (Crew, Vec<String>) {
        let mut crew = Crew {
            processes: Processes::here(),
            selectors: selectors.to_vec(),
            want,
            members: BTreeMap::new(),
            refused: BTreeSet::new(),
            modules: if want.native {
                Modules::with_lines()
            } else {
                Modules::new()
            },
        };
        let (found, errors) = crew.processes.find(selectors);
        let mut problems: Vec<String> = errors.iter().map(chain).collect();
        problems.extend(crew.open(found));
        if crew.members.is_empty() && problems.is_empty() {
            problems.push(TargetError::Nothing.to_string());
        }
        (crew, problems)
    }

    /// Finds what has come since. Returns what could not be opened, each only once;
    /// what has ended is not said.
    pub(super) fn refresh(&mut self) -> Vec<String> {
        if self
            .selectors
            .iter()
            .all(|selector| matches!(selector, Selector::Pid(_)))
        {
            return Vec::new();
        }
        let (found, _) = self.processes.find(&self.selectors);
        // A number may belong to another process by now.
        let present: BTreeSet<Pid> = found.iter().map(|one| one.pid).collect();
        self.refused.retain(|pid| present.contains(pid));
        self.open(found)
    }

    fn open(&mut self, found: Vec<Found>) -> Vec<String> {
        let mut problems = Vec::new();
        for one in found {
            let pid = one.pid;
            if self.refused.contains(&pid) {
                continue;
            }
            if self.members.get(&pid).is_some_and(|member| member.is_alive()) {
                continue;
            }
            self.members.remove(&pid);
            let asked_for = one.asked_for;
            match Member::open(one) {
                Ok(member) => drop(self.members.insert(pid, member)),
                Err(OpenError::Gone { .. } | OpenError::NotPhp { .. }) if !asked_for => {}
                Err(error) => {
                    self.refused.insert(pid);
                    let fate = Fate::of(pid);
                    problems.push(match error {
                        // That took the first program's files away while they were read.
                        OpenError::Gone { .. } if fate == Fate::Replaced => cannot_look(pid, fate),
                        error => chain(&error),
                    });
                }
            }
        }
        problems
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Looks at each, in order of their ids, and tells what was seen. Those that have
    /// ended are forgotten. About 0.1 ms for each that has run since the last round, and
    /// 0.01 ms for each that has not.
    pub(super) fn round(&mut self, mut tell: impl FnMut(Result<Seen, Trouble>)) {
        let want = self.want;
        let modules = &mut self.modules;
        self.members.retain(|_, member| {
            let seen = member.look_again(want, modules);
            let keep = !matches!(seen, Err(Trouble::Gone { .. }));
            tell(seen);
            keep
        });
    }

    /// Looks at one, with other wishes.
    pub(super) fn look(&mut self, pid: Pid, want: Want) -> Result<Seen, Trouble> {
        match self.members.get_mut(&pid) {
            Some(member) => member.look(want, &mut self.modules),
            None => Err(Trouble::Gone {
                pid,
                fate: Fate::of(pid),
            }),
        }
    }
}

/// Why there is nothing to show of a process.
pub(super) fn cannot_look(pid: Pid, fate: Fate) -> String {
    format!("cannot look into process {pid}: it {fate}")
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(impl std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    super::console::plain(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_php_is_an_error_only_if_it_was_asked_for() {
        let own = Pid(i32::try_from(std::process::id()).unwrap());
        let want = Want {
            frames: 10,
            types: false,
            native: false,
            request: false,
        };
        let (crew, problems) = Crew::gather(&[Selector::Pid(own)], want);
        assert_eq!(crew.len(), 0);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("not a PHP process"), "{problems:?}");
    }
}
