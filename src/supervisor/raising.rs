//! Rules of sampling that are raised for a time in the running program (`glasspool trace`).
//!
//! They stand on a page that all workers read, those of other generations and engines too:
//! a reload and a worker's end change nothing about them. They end by themselves, or with
//! this process; a program that takes our place is told of them by a variable.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use glasspool_abi::control::ToEngine;
use glasspool_abi::trace::raised::{MOST_RAISED, POOL_BYTES, Raised, RaisedPage};
use glasspool_abi::trace::sampling::Glob;
use serde::{Deserialize, Serialize};

use super::engines::GroupId;
use super::monotonic_ns;
use super::reload::Caller;
use super::run::Supervisor;
use crate::logs::ErrorLog;
use crate::raise::{Order, Raise};

/// Names the rules in force to the program that takes our place, as JSON. Engines get no
/// variables that begin so.
pub(super) const VARIABLE: &str = "GLASSPOOL_RAISED";
const SECOND_NS: u64 = 1_000_000_000;

/// A rule on its way to the program that takes our place. It keeps its clock: that of the
/// machine, which execve(2) does not touch.
#[derive(Debug, Serialize, Deserialize)]
struct Handed {
    raise: Raise,
    until_mono_ns: u64,
}

/// The rules in force and the page they stand on.
#[derive(Debug)]
pub(super) struct Raising {
    /// None where the kernel cannot make one that only we can write to.
    page: Option<(RaisedPage, Arc<OwnedFd>)>,
    rules: Vec<Raised>,
}

impl Raising {
    /// With the rules of the program whose place we have taken, as it has handed them over.
    pub(super) fn new(handed: Option<&OsStr>, log: &ErrorLog) -> Raising {
        let mut raising = Raising::empty(log);
        let Some((text, (page, _))) = handed.zip(raising.page.as_ref()) else {
            return raising;
        };
        let now_ns = monotonic_ns();
        match taken_over(text, now_ns) {
            Ok(rules) if rules.is_empty() => {}
            Ok(rules) => {
                page.publish(&rules);
                let shown: Vec<String> = rules.iter().map(|rule| shown(rule, now_ns)).collect();
                log.notice(format_args!(
                    "rules of sampling taken over from the program before: {}",
                    shown.join("; ")
                ));
                raising.rules = rules;
            }
            Err(why) => log.warning(format_args!(
                "the rules of sampling in {VARIABLE} are not taken over: {why}"
            )),
        }
        raising
    }

    /// The variable for a program that takes our place, if there are rules for it.
    pub(super) fn handover(&self, now_ns: u64) -> Option<(String, OsString)> {
        let rules = self.rules.iter().filter(|rule| rule.until_mono_ns > now_ns);
        let handed: Vec<Handed> = rules.map(|rule| handed(rule, now_ns)).collect();
        let text = serde_json::to_string(&handed).ok()?;
        (!handed.is_empty()).then(|| (VARIABLE.to_owned(), text.into()))
    }

    fn empty(log: &ErrorLog) -> Raising {
        let made = RaisedPage::create().map_err(|e| e.to_string());
        let page = made.and_then(|page| {
            let file = page
                .file()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|e| e.to_string())?;
            Ok((page, Arc::new(file)))
        });
        let page = page.inspect_err(|why| {
            log.warning(format_args!("`glasspool trace` will not work: {why}"));
        });
        Raising {
            page: page.ok(),
            rules: Vec::new(),
        }
    }

    /// Does what is asked, and says what to answer; an error is one for the caller.
    fn on(&mut self, order: Order, pools: &[&str], now_ns: u64) -> Result<Vec<String>, String> {
        let Some((page, _)) = &self.page else {
            return Err(
                "this kernel has no memory that is sealed against writing (Linux 5.1 or later is needed)"
                    .into(),
            );
        };
        self.rules.retain(|rule| rule.until_mono_ns > now_ns);
        match order {
            Order::List => return Ok(self.rules.iter().map(|rule| shown(rule, now_ns)).collect()),
            Order::Clear => self.rules.clear(),
            Order::Raise(raise) => {
                let rule = rule(raise, pools, now_ns)?;
                // The same again takes the place of what it was.
                self.rules
                    .retain(|old| (&old.which, &old.pool) != (&rule.which, &rule.pool));
                if self.rules.len() == MOST_RAISED {
                    return Err(format!(
                        "{MOST_RAISED} rules are in force, which is the most (glasspool trace --clear ends them)"
                    ));
                }
                // The newest first: it is what somebody wants now.
                self.rules.insert(0, rule);
            }
        }
        page.publish(&self.rules);
        Ok(vec![])
    }
}

/// The rule that somebody asks for, checked: who may ask is root or ourselves, but may err.
fn rule(raise: Raise, pools: &[&str], now_ns: u64) -> Result<Raised, String> {
    if let Some(pool) = &raise.pool
        && !pools.iter().any(|name| name.eq_ignore_ascii_case(pool))
    {
        return Err(format!("there is no pool {pool:?} (known: {})", pools.join(", ")));
    }
    rule_of_any_pool(raise, now_ns)
}

fn rule_of_any_pool(raise: Raise, now_ns: u64) -> Result<Raised, String> {
    let (which, seconds) = (raise.which()?, raise.seconds()?);
    if raise.pool.as_ref().is_some_and(|pool| pool.len() > POOL_BYTES) {
        return Err(format!(
            "the pool's name is longer than {POOL_BYTES} bytes, which no rule can hold"
        ));
    }
    Ok(Raised {
        which,
        pool: raise.pool,
        ratio: raise.ratio,
        until_mono_ns: now_ns.saturating_add(seconds.saturating_mul(SECOND_NS)),
    })
}

fn handed(rule: &Raised, now_ns: u64) -> Handed {
    Handed {
        raise: Raise {
            path: rule.which.path.as_ref().map(Glob::as_str).map(str::to_owned),
            method: rule.which.method.clone(),
            pool: rule.pool.clone(),
            ratio: rule.ratio,
            seconds: rule.until_mono_ns.saturating_sub(now_ns).div_ceil(SECOND_NS),
        },
        until_mono_ns: rule.until_mono_ns,
    }
}

/// What is still in force of the rules that the program before has handed over, by the same
/// checks as if somebody had asked for them. Those that are over are left out: a program in
/// between that does not know the variable passes it on as it was. A rule for a pool that is
/// no more holds for nothing.
fn taken_over(text: &OsStr, now_ns: u64) -> Result<Vec<Raised>, String> {
    let text = text.to_str().ok_or("it is not UTF-8")?;
    let handed: Vec<Handed> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let in_force = handed.into_iter().filter(|rule| rule.until_mono_ns > now_ns);
    let rules = in_force.take(MOST_RAISED).map(|handed| {
        let mut rule = rule_of_any_pool(handed.raise, now_ns)?;
        rule.until_mono_ns = rule.until_mono_ns.min(handed.until_mono_ns);
        Ok(rule)
    });
    rules.collect()
}

/// One line for people.
fn shown(rule: &Raised, now_ns: u64) -> String {
    let path = rule
        .which
        .path
        .as_ref()
        .map_or("every path", |path| path.as_str());
    let method = rule
        .which
        .method
        .as_ref()
        .map_or(String::new(), |method| format!("{method} "));
    let pool = rule
        .pool
        .as_ref()
        .map_or("all pools".to_owned(), |pool| format!("pool {pool}"));
    let left = Duration::from_nanos(rule.until_mono_ns.saturating_sub(now_ns)).as_secs();
    let (hours, minutes, seconds) = (left / 3600, left / 60 % 60, left % 60);
    let left = match hours {
        0 => format!("{minutes}m {seconds}s"),
        hours => format!("{hours}h {minutes}m {seconds}s"),
    };
    format!("{method}{path}, {pool}, ratio {}, for {left} more", rule.ratio)
}

impl Supervisor {
    /// What makes the group's workers read the page.
    pub(super) fn introduce_raised(&mut self, group: GroupId) {
        if let Some((_, file)) = &self.raising.page {
            let file = Arc::clone(file);
            self.tell_engine(group, ToEngine::Raised, vec![file]);
        }
    }

    /// Somebody raises rules, asks for them or ends them.
    pub(super) fn on_raise(&mut self, order: Order, caller: &Caller) {
        let is_change = !matches!(order, Order::List);
        let pools: Vec<&str> = self.pools.values().map(|pool| pool.name.as_str()).collect();
        let now_ns = monotonic_ns();
        let answer = self.raising.on(order, &pools, now_ns);
        if is_change && answer.is_ok() {
            let rules: Vec<String> = self
                .raising
                .rules
                .iter()
                .map(|rule| shown(rule, now_ns))
                .collect();
            self.log.notice(format_args!(
                "rules of sampling raised over the control socket: {}",
                if rules.is_empty() {
                    "none".to_owned()
                } else {
                    rules.join("; ")
                }
            ));
        }
        let lines = match answer {
            Ok(lines) => lines.into_iter().chain(["ok".to_owned()]).collect(),
            Err(why) => vec![format!("failed: {why}")],
        };
        for line in lines {
            // Its queue is longer than all rules; if it has gone, there is nobody to tell.
            caller.try_send(line).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(path: &str, pool: Option<&str>) -> Order {
        Order::Raise(Raise {
            path: Some(path.to_owned()),
            method: None,
            pool: pool.map(str::to_owned),
            ratio: 1.0,
            seconds: 90,
        })
    }

    #[test]
    fn the_next_program_takes_over_what_is_in_force_with_the_time_that_is_left() {
        let mut raising = Raising {
            page: RaisedPage::create().ok().map(|page| {
                let file = page.file().try_clone().expect("a copy");
                (page, Arc::new(file))
            }),
            rules: vec![],
        };
        assert_eq!(raising.handover(SECOND_NS), None);
        let pools = ["www"];
        for (path, pool, at) in [("/a*", None, 1), ("/b", Some("www"), 31)] {
            raising
                .on(raise(path, pool), &pools, at * SECOND_NS)
                .expect("is raised");
        }
        let (name, text) = raising.handover(90 * SECOND_NS).expect("has rules");
        assert_eq!(name, VARIABLE);
        assert_eq!(taken_over(&text, 90 * SECOND_NS), Ok(raising.rules.clone()));
        let later = taken_over(&text, 91 * SECOND_NS).expect("is taken");
        assert_eq!(later, raising.rules[..1], "the other one is over");
        assert_eq!(raising.handover(121 * SECOND_NS), None);
        assert_eq!(taken_over(&text, 121 * SECOND_NS), Ok(vec![]));
        // An own clock that is far behind gives no rule more than it could have been raised for.
        let capped = taken_over(&text, 0).expect("is taken");
        assert_eq!(capped[1].until_mono_ns, SECOND_NS);
    }

    #[test]
    fn what_is_handed_over_is_checked() {
        let good = r#"[{"raise":{"path":"/a","method":null,"pool":null,"ratio":1.0,"seconds":60},"until_mono_ns":9}]"#;
        assert_eq!(taken_over(OsStr::new(good), 1).map(|rules| rules.len()), Ok(1));
        for (from, to) in [("\"/a\"", "\"a\""), ("1.0", "7"), ("60", "90000"), ("]", "")] {
            let text = good.replace(from, to);
            assert!(taken_over(OsStr::new(&text), 1).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_raised_listed_replaced_and_cleared() {
        let mut raising = Raising {
            page: RaisedPage::create().ok().map(|page| {
                let file = page.file().try_clone().expect("a copy");
                (page, Arc::new(file))
            }),
            rules: vec![],
        };
        let second = 1_000_000_000;
        let mut on = |order, at: u64| raising.on(order, &["www"], at * second);
        assert_eq!(on(raise("/a*", None), 1), Ok(vec![]));
        assert_eq!(on(raise("/b", Some("WWW")), 11), Ok(vec![]));
        let listed = on(Order::List, 31).expect("a list");
        assert_eq!(
            listed,
            [
                "/b, pool WWW, ratio 1, for 1m 10s more",
                "/a*, all pools, ratio 1, for 1m 0s more"
            ]
        );
        assert_eq!(on(raise("/a*", None), 31), Ok(vec![]));
        assert_eq!(on(Order::List, 101).expect("a list").len(), 1);
        let refused = on(raise("/c", Some("shop")), 101);
        assert_eq!(refused, Err("there is no pool \"shop\" (known: www)".to_owned()));
        assert!(on(raise("checkout", None), 101).is_err());
        for n in 0..MOST_RAISED - 1 {
            on(raise(&format!("/{n}"), None), 101).expect("has room");
        }
        assert!(on(raise("/more", None), 101).is_err_and(|why| why.contains("16 rules are in force")));
        assert_eq!(on(Order::Clear, 101), Ok(vec![]));
        assert_eq!(on(Order::List, 101), Ok(vec![]));
    }
}
